"""whisper.cpp loads the file and writes what transformers writes."""

import struct

import numpy as np
import pytest

from fastwhisper.conversion.export import export
from fastwhisper.conversion.to_ggml import _in_blocks
from fastwhisper.errors import InputError
from fastwhisper.evaluation.metrics import word_error_rate
from fastwhisper.transcription.checkpoints import load_checkpoint

from ..engines import sentences, transcripts, write_tiny_student
from ..recordings import noise, save_checkpoint
from ..tiny_models import tiny_whisper
from ..transcription.openai_model import openai_model
from ..whisper_assets import whisper_tokenizer

# Greedy, once, without times: as transformers writes the text of a short clip.
PLAIN = {"temperature": 0.0, "temperature_inc": 0.0, "no_context": True, "no_timestamps": True, "single_segment": True}


def cpp(path):
    model = pytest.importorskip("pywhispercpp.model", reason="needs whisper.cpp: pip install fastwhisper[whispercpp]")
    return model.Model(
        str(path), n_threads=1, print_progress=False, print_realtime=False, redirect_whispercpp_logs_to=None
    )


def said(model, clip: np.ndarray, **options) -> str:
    # whisper.cpp refuses less than a second.
    padded = np.pad(clip, (0, max(0, 16_400 - len(clip))))
    return "".join(segment.text for segment in model.transcribe(padded, **PLAIN, **options)).strip()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny Whisper with openai's vocabulary, its folder, and the folder of its export."""
    place = tmp_path_factory.mktemp("ggml")
    tokenizer = whisper_tokenizer()
    model = tiny_whisper(tokenizer, 30, 1, 2, d_model=64, ffn_dim=256, max_target_positions=448)
    save_checkpoint(model, tokenizer, place / "whisper", 30)
    return model, place / "whisper", export(place / "whisper", "ggml", place / "ggml")


def tensors(path):
    """Names, shapes and values of a file, read by its layout."""
    data = path.read_bytes()
    head = struct.unpack_from("<I11i", data)
    rows, columns = struct.unpack_from("<ii", data, 48)
    place = 56 + 4 * rows * columns
    (words,) = struct.unpack_from("<i", data, place)
    place += 4
    texts = []
    for _ in range(words):
        (length,) = struct.unpack_from("<i", data, place)
        texts.append(data[place + 4 : place + 4 + length])
        place += 4 + length
    found = {}
    while place < len(data):
        rank, length, kind = struct.unpack_from("<iii", data, place)
        shape = struct.unpack_from(f"<{rank}i", data, place + 12)[::-1]
        place += 12 + 4 * rank
        name = data[place : place + length].decode()
        place += length
        size = int(np.prod(shape))
        if kind == 8:
            blocks = np.frombuffer(data, [("scale", "<f2"), ("units", "i1", 32)], size // 32, place)
            values = blocks["scale"][:, None].astype(np.float32) * blocks["units"]
            place += 34 * (size // 32)
        else:
            values = np.frombuffer(data, ("<f4", "<f2")[kind], size, place)
            place += size * (4, 2)[kind]
        found[name] = values.reshape(shape).astype(np.float32)
    return head, texts, found


def test_the_layout(tiny):
    whisper = pytest.importorskip("whisper", reason="needs openai-whisper: pip install fastwhisper[test]")
    from whisper.audio import mel_filters
    from whisper.tokenizer import get_tokenizer

    model, _, folder = tiny
    head, texts, found = tensors(folder / "ggml-model.bin")
    assert head == (0x67676D6C, 51865, 1500, 64, 4, 1, 448, 64, 4, 2, 80, 1)
    encoding = get_tokenizer(True).encoding
    assert texts == [encoding.decode_single_token_bytes(token) for token in range(50257)]
    data = (folder / "ggml-model.bin").read_bytes()
    filters = np.frombuffer(data, "<f4", 80 * 201, 56).reshape(80, 201)
    np.testing.assert_allclose(filters, mel_filters("cpu", 80), atol=1e-6)
    names = whisper.model.Whisper(whisper.model.ModelDimensions(80, 1500, 64, 4, 1, 51865, 448, 64, 4, 2)).state_dict()
    assert found.keys() == {name for name in names if name != "decoder.mask"}
    openai = {name: weight.numpy() for name, weight in openai_model(model).state_dict().items()}
    for name, values in found.items():
        np.testing.assert_allclose(values.squeeze(), openai[name], rtol=1e-3, atol=1e-7, err_msg=name)
        if values.ndim == 1 or "positional" in name:
            assert np.array_equal(values, openai[name]), name


def test_eight_bits():
    weight = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    weight[1, :32] = 0.0
    blocks = np.frombuffer(_in_blocks(weight), [("scale", "<f2"), ("units", "i1", 32)])
    back = (blocks["scale"][:, None].astype(np.float32) * blocks["units"]).reshape(3, 64)
    step = np.abs(weight).reshape(-1, 32).max(axis=1).repeat(32).reshape(3, 64) / 127
    assert (np.abs(back - weight) <= 0.6 * step).all()


@pytest.mark.parametrize("quantization", ["float16", "q8_0"])
def test_whisper_cpp_loads_each_precision(tiny, tmp_path, quantization):
    folder = export(tiny[1], "ggml", tmp_path / "ggml", quantization)
    model = cpp(folder / "ggml-model.bin")
    assert isinstance(said(model, noise(1.5), language="en"), str)
    assert isinstance(said(model, noise(1.5), language="en", audio_ctx=100), str)


def test_models_that_whisper_cpp_cannot_run(demo_tokenizer, tmp_path):
    student = write_tiny_student(tmp_path / "student", demo_tokenizer)
    with pytest.raises(InputError, match="needs a vocabulary of openai"):
        export(student, "ggml", tmp_path / "ggml")
    assert not (tmp_path / "ggml").exists()


@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_published_whispers_write_the_same(real_model, real_speech, tmp_path, name):
    clips, texts = sentences(real_speech("kathleen_arctic"), 8)
    expected = [each.text for each in transcripts(*load_checkpoint(real_model(name), "cpu"), clips, language="en")]
    rates = {}
    for stored in ("float16", "q8_0"):
        model = cpp(export(real_model(name), "ggml", tmp_path / stored, stored) / "ggml-model.bin")
        found = [said(model, clip, language="en", suppress_nst=True) for clip in clips]
        rates[stored] = word_error_rate(texts, found)
        if stored == "float16":
            # Its features are computed in another way, and its weights are rounded: a comma may differ.
            assert word_error_rate(expected, found) < 0.05, (expected, found)
    assert rates["q8_0"] == pytest.approx(rates["float16"], abs=0.03), rates
