"""Checkpoints of other engines become folders of transformers with the same weights."""

import json
import pickle
import shutil
import struct

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.conversion.export import export
from fastwhisper.conversion.import_model import import_model
from fastwhisper.conversion.whisper_tokenizers import openai_tokenizer
from fastwhisper.errors import InputError
from fastwhisper.transcription.checkpoints import load_checkpoint

from ..engines import transcripts, write_tiny_student
from ..recordings import noise, save_checkpoint
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer

SENTENCES = ["Hello, world! 12 naïve cafés", "今日は世界", " <|startoftranscript|> so <|0.00|> da", "🙂 fin"]


def same_weights(first, second) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def student(demo_tokenizer, tmp_path_factory):
    """The folder of a student at true length."""
    return write_tiny_student(tmp_path_factory.mktemp("student") / "student", demo_tokenizer, true_length=True)


@pytest.fixture(scope="module")
def converted(student, tmp_path_factory):
    """The same in CTranslate2."""
    pytest.importorskip("ctranslate2", reason="needs CTranslate2: pip install fastwhisper[ctranslate2]")
    return export(student, "ctranslate2", tmp_path_factory.mktemp("converted") / "ctranslate2")


def test_a_student_comes_back_as_it_was(student, converted, tmp_path):
    back = import_model(converted, tmp_path / "back")
    before, after = (load_checkpoint(folder, "cpu") for folder in (student, back))
    assert type(after[0]) is FastWhisperForConditionalGeneration and after[0].config.true_length
    assert same_weights(before[0], after[0])
    assert {**after[0].config.to_dict(), "_name_or_path": str(student)} == before[0].config.to_dict()
    assert after[0].generation_config.to_dict() == before[0].generation_config.to_dict()
    clip = noise(1.3, 1)
    assert transcripts(*after, [clip], timestamps=True) == transcripts(*before, [clip], timestamps=True)


@pytest.mark.parametrize("quantization", ["float16", "bfloat16", "int8", "int16"])
def test_precisions(student, converted, tmp_path, quantization):
    folder = export(student, "ctranslate2", tmp_path / "converted", quantization)
    before = FastWhisperForConditionalGeneration.from_pretrained(student)
    after = FastWhisperForConditionalGeneration.from_pretrained(import_model(folder, tmp_path / "back"))
    if quantization in ("float16", "bfloat16"):
        dtype = getattr(torch, quantization)
        assert after.dtype == dtype and same_weights(before.to(dtype), after)
        return
    assert after.dtype == torch.float32
    # int16 has one scale for a layer, which may be several of ours; int8 has one for each row.
    largest = max(float(weight.abs().max()) for name, weight in before.state_dict().items() if "layers" in name)
    for name, weight in before.state_dict().items():
        step = weight.flatten(1).abs().amax(1) / 127 if quantization == "int8" and weight.dim() > 1 else largest / 1024
        away = (after.state_dict()[name] - weight).reshape(len(weight), -1).abs().amax(1)
        assert (away <= 0.501 * step).all(), name


@pytest.mark.parametrize("words", ["tokenizer.json", "vocabulary.json"])
def test_a_folder_of_others(converted, student, tmp_path, words):
    """As faster-whisper's folders on the Hub: weights, CTranslate2's config, a tokenizer or a list of words."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in {"model.bin", "config.json", "vocabulary.json", words}:
        shutil.copy(converted / name, foreign)
    after, processor = load_checkpoint(import_model(foreign, tmp_path / "back"), "cpu")
    before, own = load_checkpoint(student, "cpu")
    assert type(after) is WhisperForConditionalGeneration
    expected = before.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in after.state_dict().items())
    assert processor.feature_extractor.nb_max_frames == own.feature_extractor.nb_max_frames
    assert processor.tokenizer.get_vocab() == own.tokenizer.get_vocab()
    for sentence in ("turn on the lamp", "never mind"):
        assert processor.tokenizer(sentence).input_ids == own.tokenizer(sentence).input_ids
    for name in ("alignment_heads", "suppress_tokens", "lang_to_id", "task_to_id", "no_timestamps_token_id"):
        assert getattr(after.generation_config, name) == getattr(before.generation_config, name), name


# ---- openai-whisper ----


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    """A tiny Whisper with openai's vocabulary, and the folder with its .pt file."""
    place = tmp_path_factory.mktemp("openai")
    tokenizer = whisper_tokenizer()
    model = tiny_whisper(tokenizer, 30, 1, 2, d_model=16, ffn_dim=64, max_target_positions=448)
    save_checkpoint(model, tokenizer, place / "whisper", 30)
    return model, export(place / "whisper", "openai", place / "openai")


def test_openais_own_code_loads_it(openai):
    whisper = pytest.importorskip("whisper", reason="needs openai-whisper: pip install fastwhisper[test]")
    model, folder = openai
    loaded = whisper.load_model(str(folder / "model.pt"), device="cpu")
    features, ids = torch.randn(1, 80, 3000), torch.tensor([[50258, 50259, 50359, 50363, 17, 42]])
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(features, ids), model(features, decoder_input_ids=ids).logits, atol=1e-4, rtol=1e-3
        )
    call = next(line for line in (folder / "README.md").read_text().splitlines() if "set_alignment_heads" in line)
    eval(call, {"model": loaded})
    assert loaded.alignment_heads.indices().T.tolist() == sorted(model.generation_config.alignment_heads)


def test_a_pt_file_becomes_a_whisper(openai, tmp_path):
    model, folder = openai
    back, processor = load_checkpoint(import_model(folder / "model.pt", tmp_path / "back"), "cpu")
    assert type(back) is WhisperForConditionalGeneration and same_weights(back, model)
    assert processor.tokenizer.get_vocab() == whisper_tokenizer().get_vocab()
    assert len(back.generation_config.lang_to_id) == 99
    # openai's default where nobody has measured which heads follow the speech.
    assert back.generation_config.alignment_heads == [[1, head] for head in range(4)]


@pytest.mark.parametrize("size, table", [(51864, "gpt2"), (51865, "multilingual"), (51866, "multilingual")])
def test_openais_tokenizers(size, table):
    from whisper.tokenizer import get_tokenizer

    mine = openai_tokenizer(size)
    languages = 100 if size == 51866 else 99
    theirs = get_tokenizer(table == "multilingual", num_languages=languages).encoding
    assert len(mine) == size == theirs.n_vocab
    for sentence in SENTENCES:
        assert mine(sentence, add_special_tokens=False).input_ids == theirs.encode(sentence, allowed_special="all")
    assert mine.get_vocab()["<|0.00|>"] == theirs.encode_single_token("<|0.00|>")


# ---- what is refused ----


def refused(source, tmp_path, match, **options):
    with pytest.raises(InputError, match=match):
        import_model(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_damaged_files_of_ctranslate2(converted, tmp_path):
    whole = (converted / "model.bin").read_bytes()
    broken = tmp_path / "broken"
    broken.mkdir()
    for content, match in [
        (whole[: len(whole) // 2], "damaged"),
        (b"", "damaged"),
        (b"no model at all", "its version is"),
        (whole.replace(b"WhisperSpec", b"TransforSpec"[:11]), "not a Whisper"),
        (
            struct.pack("<I", 6) + whole[4:].replace(b"decoder/layer_norm/beta", b"decoder/layer_norm/bets"),
            "no variable",
        ),
    ]:
        (broken / "model.bin").write_bytes(content)
        refused(broken, tmp_path, match)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('code has run')",)


def test_files_that_are_no_checkpoint_of_openai(openai, tmp_path):
    saved = torch.load(openai[1] / "model.pt")
    for name, content, match in [
        ("code", Harmful(), "no checkpoint of openai-whisper"),
        ("other", {"weights": torch.ones(1)}, "lacks dims"),
        ("sizes", {**saved, "dims": {**saved["dims"], "n_mels": "80"}}, "its dims lack n_mels"),
        ("less", {**saved, "model_state_dict": dict(list(saved["model_state_dict"].items())[3:])}, "has no weight"),
        ("vocabulary", {**saved, "dims": {**saved["dims"], "n_vocab": 100}}, "no vocabulary of openai has 100"),
        ("wider", {**saved, "dims": {**saved["dims"], "n_mels": 128}}, "the weights"),
    ]:
        torch.save(content, tmp_path / f"{name}.pt")
        refused(tmp_path / f"{name}.pt", tmp_path, match)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Harmful()))
    refused(tmp_path / "pickle.pt", tmp_path, "no checkpoint of openai-whisper")
    (tmp_path / "text.pt").write_text("no checkpoint")
    refused(tmp_path / "text.pt", tmp_path, "no checkpoint of openai-whisper")


def test_sources_that_are_not_there(student, tmp_path, demo_tokenizer):
    refused(tmp_path / "nowhere", tmp_path, "there is no")
    refused(student, tmp_path, "holds no model.bin of CTranslate2, and 0 .pt files")
    refused(student / "config.json", tmp_path, "neither a .pt file")


def test_a_tokenizer_of_another_model(converted, openai, tmp_path, demo_tokenizer):
    save_checkpoint(tiny_whisper(whisper_tokenizer(), d_model=8), whisper_tokenizer(), tmp_path / "other")
    refused(converted, tmp_path, "vocab_size is 850", tokenizer=str(tmp_path / "other"))
    refused(openai[1], tmp_path, "cannot be loaded", tokenizer=str(tmp_path / "nowhere"))


# ---- published Whispers ----


@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_published_whispers_both_ways(real_model, tmp_path, name):
    pytest.importorskip("ctranslate2", reason="needs CTranslate2: pip install fastwhisper[ctranslate2]")
    before, own = load_checkpoint(real_model(name), "cpu")
    for engine in ("ctranslate2", "openai"):
        folder = export(real_model(name), engine, tmp_path / engine)
        (folder / "whisper_config.json").unlink(missing_ok=True)
        after, processor = load_checkpoint(import_model(folder, tmp_path / f"{engine}_back"), "cpu")
        assert same_weights(before, after), engine
        assert processor.tokenizer.get_vocab() == own.tokenizer.get_vocab()
        settings, expected = after.generation_config.to_dict(), before.generation_config.to_dict()
        for key in ("suppress_tokens", "begin_suppress_tokens", "lang_to_id", "no_timestamps_token_id", "max_length"):
            assert settings.get(key) == expected.get(key), (engine, key)
        if engine == "ctranslate2":
            assert settings["alignment_heads"] == expected["alignment_heads"]
        assert json.loads((tmp_path / f"{engine}_back" / "config.json").read_text())["model_type"] == "whisper"


def test_a_processor_is_complete(converted, tmp_path):
    folder = import_model(converted, tmp_path / "back")
    assert WhisperProcessor.from_pretrained(folder).tokenizer.get_vocab()
