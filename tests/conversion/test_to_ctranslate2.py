"""faster-whisper loads an exported folder, and the calls in its README.md work."""

import re

import numpy as np
import pytest
import soundfile

from fastwhisper.conversion.export import export
from fastwhisper.evaluation.metrics import word_error_rate
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.ctranslate2_whisper import load_ctranslate2

from ..engines import sentences, transcripts, write_student, write_tiny_student
from ..recordings import noise
from ..whisper_assets import whisper_tokenizer

faster_whisper = pytest.importorskip(
    "faster_whisper", reason="needs faster-whisper: pip install fastwhisper[ctranslate2]"
)
GREEDY = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False, "max_new_tokens": 40}


def load(folder, compute_type="float32"):
    return faster_whisper.WhisperModel(str(folder), device="cpu", compute_type=compute_type, cpu_threads=1)


def said(model, clip, **options) -> str:
    """The text of a clip that silence fills up to 30 s, as in transformers: faster-whisper adds zeros as features."""
    clip = np.pad(clip, (0, 480_000 - len(clip)))
    segments, _ = model.transcribe(clip, language="en", without_timestamps=True, **GREEDY, **options)
    return "".join(segment.text for segment in segments).strip()


def python_blocks(readme, folder) -> list[str]:
    text = readme.read_text(encoding="utf-8").replace("FOLDER", str(folder))
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A student of a random model with openai's vocabulary, which writes no times, at true length; and its export."""
    place = tmp_path_factory.mktemp("faster")
    student = write_tiny_student(
        *(place / "student", whisper_tokenizer(), 30, True),
        allowed=400,
        d_model=32,
        encoder_layers=1,
        max_target_positions=448,
        seed=4,
    )
    return student, export(student, "ctranslate2", place / "ctranslate2")


def test_faster_whisper_hears_the_window(tiny):
    model, processor = load_checkpoint(tiny[0], "cpu")
    model.config.true_length, model.generation_config.max_new_tokens = False, 40
    clip = noise(1.5, 2)
    (expected,) = transcripts(model, processor, [clip], language="en")
    suppressed = model.generation_config.suppress_tokens
    found = said(load(tiny[1]), clip, suppress_tokens=suppressed)
    assert found and expected.text.startswith(found)  # CTranslate2 stops after half of what it is allowed


def test_the_call_at_true_length(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", noise(1.5, 2), 16_000)
    (expected,) = transcripts(*load_checkpoint(tiny[0], "cpu"), ["speech.wav"], language="en")
    _, call = python_blocks(tiny[1] / "README.md", tiny[1])
    exec(call, {})
    # CTranslate2 itself stops after half of the positions, and this package where nobody could have said more; a
    # letter of several tokens may be cut there.
    printed = capsys.readouterr().out.strip()
    common = min(len(printed), len(expected.text)) - 2
    assert common > 20 and printed[:common] == expected.text[:common]


# ---- published Whispers, human speech ----


@pytest.fixture(scope="module")
def english(real_speech):
    return sentences(real_speech("kathleen_arctic"), 12)


@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_published_whispers_write_the_same(real_model, english, tmp_path, name):
    folder = export(real_model(name), "ctranslate2", tmp_path / "float32")
    expected = [
        each.text for each in transcripts(*load_checkpoint(real_model(name), "cpu"), english[0], language="en")
    ]
    model = load(folder)
    assert [said(model, clip) for clip in english[0]] == expected
    int8 = load(export(real_model(name), "ctranslate2", tmp_path / "int8", "int8"), "default")
    rates = [word_error_rate(english[1], texts) for texts in (expected, [said(int8, clip) for clip in english[0]])]
    print(f"{name}: WER {rates[0]:.4f} in float32, {rates[1]:.4f} in int8")
    assert rates[1] == pytest.approx(rates[0], abs=0.02)


@pytest.mark.parametrize("layers", [1, 2, None])
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_words_of_students(real_model, english, tmp_path, name, layers):
    folder = real_model(name) if layers is None else write_student(real_model(name), layers, tmp_path / "student")
    exported = export(folder, "ctranslate2", tmp_path / "ctranslate2")
    model, own = load(exported), load_ctranslate2(exported, "cpu", "float32")
    own[0].generation_config.max_new_tokens = 40
    for clip in english[0][:3]:
        segments, _ = model.transcribe(clip, language="en", word_timestamps=True, **GREEDY)
        words = [word for segment in segments for word in segment.words]
        (mine,) = transcripts(*own, [clip], language="en", word_timestamps=True, temperatures=(0.0,))
        found = [word for segment in mine.segments for word in segment.words]
        assert words and all(word.end >= word.start for word in words)
        if layers is None:  # what an untrained student writes is cut into segments at random
            assert [word.word.strip() for word in words] == [word.text for word in found]
            np.testing.assert_allclose([word.start for word in words], [word.start for word in found], atol=0.15)
