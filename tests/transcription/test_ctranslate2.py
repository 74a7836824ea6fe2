"""CTranslate2 in the place of transformers: same text, same times, same rules."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastwhisper.conversion.export import export
from fastwhisper.demo.training import PACKAGED_TEACHER
from fastwhisper.errors import InputError
from fastwhisper.evaluation.metrics import word_error_rate
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.ctranslate2_decoding import CTranslate2Decoder
from fastwhisper.transcription.ctranslate2_whisper import load_ctranslate2
from fastwhisper.transcription.recording_features import RecordingFeatures
from fastwhisper.transcription.sequential import Fallback, MovingClip, SequentialDecoder
from fastwhisper.transcription.token_kinds import TokenKinds

from ..engines import sentences, transcripts, write_student, write_tiny_student
from ..recordings import noise

pytest.importorskip("ctranslate2", reason="needs CTranslate2: pip install fastwhisper[ctranslate2]")
CLIPS = [noise(0.21 + 0.22 * index, index) for index in range(5)]  # a context of 1 s, or of the window, 2 s
LONG = noise(5.3, 9)
GREEDY = (0.0,)


@pytest.fixture(scope="module")
def wordy(demo_tokenizer, tmp_path_factory):
    """As `pairs`, of a student that writes no times, at true length."""
    place = tmp_path_factory.mktemp("wordy")
    student = write_tiny_student(place / "student", demo_tokenizer, true_length=True, allowed=400, seed=4)
    folder = export(student, "ctranslate2", place / "ctranslate2")
    return load_checkpoint(student, "cpu"), load_ctranslate2(folder, "cpu")


@pytest.fixture(scope="module", params=[False, True], ids=["window", "true_length"])
def pairs(request, demo_tokenizer, tmp_path_factory):
    """A tiny student in transformers and in CTranslate2, each with its processor."""
    place = tmp_path_factory.mktemp("ctranslate2")
    student = write_tiny_student(place / "student", demo_tokenizer, true_length=request.param)
    folder = export(student, "ctranslate2", place / "ctranslate2")
    return load_checkpoint(student, "cpu"), load_ctranslate2(folder, "cpu")


@pytest.fixture(scope="module")
def tiny(demo_tokenizer, tmp_path_factory):
    """The folders of a student at true length, and of its export."""
    place = tmp_path_factory.mktemp("tiny")
    student = write_tiny_student(place / "student", demo_tokenizer, true_length=True)
    return student, export(student, "ctranslate2", place / "ctranslate2")


@pytest.mark.parametrize(
    "options",
    [
        {"timestamps": True, "temperatures": GREEDY},
        {"word_timestamps": True, "temperatures": GREEDY},
    ],
    ids=["segments", "words"],
)
def test_segments_and_words_are_those_of_transformers(pairs, options):
    theirs, mine = (transcripts(*pair, CLIPS, **options) for pair in pairs)
    assert mine == theirs and any(transcript.text for transcript in mine)


def test_text_is_that_of_transformers(wordy):
    theirs, mine = (transcripts(*pair, CLIPS) for pair in wordy)
    assert mine == theirs and len({transcript.text for transcript in mine}) == len(CLIPS)
    # Beams are cut by other rules in each engine, so that only some texts are the same.
    assert transcripts(*wordy[1], CLIPS, num_beams=3) != mine


def test_long_recordings_move_along_the_same_windows(pairs):
    theirs, mine = (transcripts(*pair, [LONG], temperatures=GREEDY, word_timestamps=True)[0] for pair in pairs)
    assert mine == theirs and len(mine.segments) > 2


def test_encoder_states_at_each_length(tiny):
    model, processor = load_checkpoint(tiny[0], "cpu")
    engine, _ = load_ctranslate2(tiny[1], "cpu")
    features = processor.feature_extractor(CLIPS[0], sampling_rate=16_000, return_tensors="pt").input_features
    for frames in (100, 200):
        expected = model.model.encoder(features[..., :frames], context_frames=[frames]).last_hidden_state
        torch.testing.assert_close(engine.encode(features[..., :frames]), expected, atol=1e-4, rtol=0)


def test_a_clip_is_heard_at_its_own_length(pairs, monkeypatch):
    _, (engine, processor) = pairs
    heard = []
    encode = engine.encode

    def watched(features):
        heard.append(features.shape[-1])
        return encode(features)

    monkeypatch.setattr(engine, "encode", watched)
    for clip in CLIPS:
        transcripts(engine, processor, [clip])
        transcripts(engine, processor, [clip], timestamps=True, temperatures=GREEDY)
    own = [100 * math.ceil(len(clip) / 16_000 + 0.5) for clip in CLIPS]
    assert set(own) == {100, 200}
    assert heard == [frames if engine.config.true_length else 200 for frames in own for _ in range(2)]


@pytest.mark.parametrize("room", [None, 3])
def test_doubt_is_measured_as_in_transformers(tmp_path, room):
    """On the demo's teacher, which ends its texts, with and without the room for that."""
    pairs = (
        load_checkpoint(PACKAGED_TEACHER),
        load_ctranslate2(export(PACKAGED_TEACHER, "ctranslate2", tmp_path / "teacher"), "cpu"),
    )
    found = []
    for (model, processor), decoder_class in zip(pairs, (SequentialDecoder, CTranslate2Decoder), strict=True):
        model.generation_config.max_new_tokens = room
        decoder = decoder_class(model, TokenKinds(processor.tokenizer), Fallback(GREEDY, 1, 0), False)
        config = model.generation_config
        prompt = [config.decoder_start_token_id, config.lang_to_id["<|en|>"], config.task_to_id["transcribe"]]
        clips = [MovingClip(RecordingFeatures(clip, processor.feature_extractor, 400), prompt) for clip in CLIPS]
        with torch.no_grad():
            encoded = decoder._encode(clips, [clip.features.frames for clip in clips], [400] * len(clips))
            found.append((decoder._generate(encoded, clips, 0.0), decoder._silence(encoded, clips)))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert other.tokens == one.tokens and (room is None or len(one.tokens) == room)
        assert other.log_probability == pytest.approx(one.log_probability, rel=1e-3)
        assert other.compression_ratio == one.compression_ratio
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3)


SAMPLED = """
import sys
sys.path.insert(0, sys.argv[2])
from fastwhisper.transcription.transcribe import transcribe
from tests.recordings import noise
speech = transcribe(noise(5.3, 9), sys.argv[1], engine="ctranslate2", device="cpu", temperatures=(0.7,), seed=3)
print(ascii(speech.text))
"""


def test_what_is_drawn_is_the_same_in_every_run(tiny, request):
    command = [sys.executable, "-c", SAMPLED, str(tiny[1]), str(request.config.rootpath)]
    runs = [subprocess.run(command, capture_output=True, text=True, env=os.environ) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) > 8


def test_a_folder_that_is_not_whole_is_refused(tiny, tmp_path):
    student, folder = tiny
    with pytest.raises(InputError, match="has no model.bin: .*export MODEL --to ctranslate2"):
        load_ctranslate2(student)
    for file, content, complaint in [
        ("model.bin", b"no model", "model.bin"),
        ("whisper_config.json", b"{", "whisper_config.json is not valid JSON"),
        ("whisper_config.json", json.dumps({"d_model": "wide"}).encode(), "whisper_config.json"),
        ("generation_config.json", b"[]", "generation_config.json"),
    ]:
        broken = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        broken.mkdir()
        for path in folder.iterdir():
            (broken / path.name).write_bytes(content if path.name == file else path.read_bytes())
        with pytest.raises(InputError, match=complaint):
            load_ctranslate2(broken)


def test_devices_and_precisions(tiny):
    with pytest.raises(InputError, match="no device 'gpu'"):
        load_ctranslate2(tiny[1], "gpu")
    with pytest.raises(InputError, match="CTranslate2 finds 0 CUDA devices|finds 1 CUDA"):
        load_ctranslate2(tiny[1], "cuda:1")
    with pytest.raises(InputError, match="no dtype 'int3' on cpu; choose one of"):
        load_ctranslate2(tiny[1], "cpu", "int3")
    engine, _ = load_ctranslate2(tiny[1], "cpu", "int8")
    assert engine.model.compute_type.startswith("int8")


def test_one_language_needs_no_detection_and_several_need_a_large_vocabulary(tiny):
    engine, processor = load_ctranslate2(tiny[1], "cpu")
    assert transcripts(engine, processor, CLIPS[:1])[0].language == "en"
    engine.generation_config.lang_to_id = {"<|en|>": 642, "<|de|>": 643}
    with pytest.raises(InputError, match="name one with --language"):
        transcripts(engine, processor, CLIPS[:1])


# ---- published Whispers, human speech ----


@pytest.fixture(scope="module")
def english(real_speech):
    return sentences(real_speech("kathleen_arctic"), 12)


@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_published_whispers_write_the_same(real_model, english, tmp_path, name):
    folder, options = real_model(name), {"language": "en"}
    theirs = load_checkpoint(folder, "cpu")
    mine = load_ctranslate2(export(folder, "ctranslate2", tmp_path / "float32"), "cpu", "float32")
    expected = [transcript.text for transcript in transcripts(*theirs, english[0], **options)]
    assert [transcript.text for transcript in transcripts(*mine, english[0], **options)] == expected
    int8 = load_ctranslate2(export(folder, "ctranslate2", tmp_path / "int8", "int8"), "cpu")
    assert int8[0].model.compute_type.startswith("int8")
    quantized = [transcript.text for transcript in transcripts(*int8, english[0], **options)]
    rates = [word_error_rate(english[1], texts) for texts in (expected, quantized)]
    assert rates[1] == pytest.approx(rates[0], abs=0.02), rates


@pytest.mark.parametrize("layers", [1, 2, None])
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_words_of_students(real_model, english, tmp_path, name, layers):
    folder = real_model(name) if layers is None else write_student(real_model(name), layers, tmp_path / "student")
    theirs = load_checkpoint(folder, "cpu")
    mine = load_ctranslate2(export(folder, "ctranslate2", tmp_path / "ctranslate2"), "cpu", "float32")
    for model in (theirs[0], mine[0]):
        model.generation_config.max_length = 40  # what an untrained student writes has no end
    options = {"language": "en", "word_timestamps": True, "temperatures": GREEDY}
    for one, other in zip(*(transcripts(*pair, english[0][:4], **options) for pair in (theirs, mine)), strict=True):
        assert other.text == one.text
        starts = [[word.start for segment in each.segments for word in segment.words] for each in (one, other)]
        assert len(starts[0]) == len(starts[1]) > 0
        np.testing.assert_allclose(*starts, atol=0.041)


def test_german_is_detected(real_model, real_speech, tmp_path):
    clips, _ = sentences(real_speech("common_voice"), 200)
    folder = real_model("whisper-base")
    mine = load_ctranslate2(export(folder, "ctranslate2", tmp_path / "base"), "cpu", "float32")
    chosen = clips[::50]
    expected = transcripts(*load_checkpoint(folder, "cpu"), chosen)
    assert transcripts(*mine, chosen) == expected and len({transcript.language for transcript in expected}) > 1
