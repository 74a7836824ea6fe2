"""`fastwhisper slm`: parts to a model, questions and transcripts of files, long files window by window, bad input."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from fastwhisper import FastSLMForCausalLM, FastSLMProcessor
from fastwhisper.cli.main import main
from fastwhisper.cli.slm import hear, read_windows

from ..fastslm_parts import tiny_encoder, tiny_language_model, tiny_pair, tiny_processor
from ..sounds import write_nan


def write_tone(path, seconds, rate=16_000, channels=1):
    samples = 0.1 * np.sin(np.arange(round(seconds * rate)) * 0.05 * 16_000 / rate).astype(np.float32)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slm")
    for part in tiny_pair({"rates": (2, 5)}):
        part.save_pretrained(folder)
    return folder


def only_error(capsys):
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("fastwhisper slm: error: ")
    return line


def test_init_builds_from_parts(tmp_path, capsys):
    processor = tiny_processor()
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    WhisperFeatureExtractor(feature_size=80, chunk_length=1).save_pretrained(tmp_path / "encoder")
    tiny_language_model(vocab_size=900).save_pretrained(tmp_path / "llm")
    processor.tokenizer.save_pretrained(tmp_path / "llm")
    arguments = ["slm", "init", "--encoder", str(tmp_path / "encoder"), "--language_model", str(tmp_path / "llm")]
    arguments += ["--output", str(tmp_path / "out"), "--num_queries", "4", "--stage_queries", "3", "3"]
    arguments += ["--tokens_follow_length", "--rates", "2", "4", "--window_times", "--encoder_true_length"]
    assert main(arguments) == 0
    assert "4.00 speech tokens a second" in capsys.readouterr().out
    model = FastSLMForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.qformer_config.stage_queries == [3, 3]
    assert model.config.encoder_true_length
    processor = FastSLMProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokens_follow_length and processor.window_times
    assert main(["slm", "transcribe", str(write_tone(tmp_path / "a.wav", 0.7)), "--model", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(arguments) == 2
    assert "exists already" in only_error(capsys)


def test_transcripts_are_those_of_the_model(folder, tmp_path, capsys):
    paths = [str(write_tone(tmp_path / "a.wav", 1.4)), str(write_tone(tmp_path / "b.flac", 0.3))]
    arguments = ["--model", str(folder), "--max_new_tokens", "12"]
    assert main(["slm", "transcribe", *paths, *arguments, "--output", str(tmp_path / "texts")]) == 0
    model, processor = FastSLMForCausalLM.from_pretrained(folder), FastSLMProcessor.from_pretrained(folder)
    for path in paths:
        request = processor.apply_transcription_request(path)
        ids = model.generate(**request, max_new_tokens=12)[0, request["input_ids"].shape[1] :]
        expected = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert (tmp_path / "texts" / f"{Path(path).stem}.txt").read_text().strip() == expected
    assert main(["slm", "ask", paths[0], *arguments, "--question", "who speaks"]) == 0
    assert main(["slm", "transcribe", *paths, *arguments, "--tokens_per_window", "2"]) == 0
    assert capsys.readouterr().out.count(str(tmp_path)) >= 2


@pytest.mark.parametrize(
    ("seconds", "rate", "channels"),
    [(0.3, 16_000, 1), (2.5, 16_000, 1), (3.0, 16_000, 2), (4.1, 8_000, 1), (11.2, 44_100, 2)],
)
@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_streamed_windows_are_those_of_the_whole_file(seconds, rate, channels, overlap, tmp_path):
    path = str(write_tone(tmp_path / "tone.wav", seconds, rate, channels))
    processor = tiny_processor(window_overlap=overlap)
    streamed = list(read_windows(path, 16_000, processor.step_samples))
    samples = processor.feature_extractor.fetch_audio(path)
    whole = processor.cut_windows(samples if samples.ndim == 1 else samples.mean(axis=-1))
    assert len(streamed) == len(whole)
    for ours, expected in zip(streamed[:-1], whole[:-1], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-3)
    assert abs(len(streamed[-1]) - len(whole[-1])) <= 2


def test_long_files_are_heard_block_by_block(folder, tmp_path):
    model, processor = FastSLMForCausalLM.from_pretrained(folder), FastSLMProcessor.from_pretrained(folder)
    path, seen = str(write_tone(tmp_path / "long.wav", 20.5)), []
    heard = hear(model, processor, path, progress=seen.append)
    assert seen == [8, 8, 5]
    assert heard.window_token_counts.tolist() == [5] * 21
    inputs = processor.apply_transcription_request(path)
    whole = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
    torch.testing.assert_close(heard.pooler_output, whole, rtol=1e-3, atol=1e-3)


def test_beyond_the_context_and_stitched(folder, tmp_path, capsys):
    path = str(write_tone(tmp_path / "long.wav", 120))
    assert main(["slm", "transcribe", path, "--model", str(folder)]) == 2
    error = only_error(capsys)
    assert "600 of speech" in error and "512 are available" in error and "stitch" in error
    arguments = ["--long_form", "stitch", "--max_new_tokens", "4"]
    assert main(["slm", "transcribe", path, "--model", str(folder), *arguments]) == 0


class RecordedBar:
    """Stands in for rich's bar: `shown` has what each task showed."""

    shown: list = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_task(self, description, total):
        self.shown.append([description, total])
        return len(self.shown) - 1

    def advance(self, task, count):
        self.shown[task].append(count)

    def update(self, task, completed, total):
        assert total == self.shown[task][1]
        self.shown[task].append(completed)


@pytest.mark.parametrize("stitched", [False, True])
def test_both_bars(stitched, folder, tmp_path, monkeypatch):
    path = str(write_tone(tmp_path / "long.wav", 60 if stitched else 9.5))
    monkeypatch.setattr(RecordedBar, "shown", [])
    monkeypatch.setattr("fastwhisper.progress.progress_bar", RecordedBar)
    arguments = ["--long_form", "stitch", "--max_new_tokens", "200"] if stitched else ["--max_new_tokens", "4"]
    assert main(["slm", "transcribe", path, "--model", str(folder), *arguments]) == 0
    first, *others = RecordedBar.shown
    if not stitched:
        assert first == [f"{path}: 10 windows", 10, 8, 2] and not others
        return
    assert first == [f"{path}: 60 windows", 60, *[8] * 7, 4]
    processor = FastSLMProcessor.from_pretrained(folder)
    text = processor.tokenizer(
        processor.apply_transcription_request(path, tokenize=False)[0], add_special_tokens=False
    )
    span = (512 - 200 - (len(text.input_ids) - 1)) // 5
    assert others == [["answered", 60, span, 60]]


@pytest.mark.parametrize("extra", [[], ["--long_form", "stitch"]])
def test_window_times_are_those_of_the_processor(extra, folder, tmp_path, capsys):
    path = str(write_tone(tmp_path / "a.wav", 3.4))
    arguments = ["slm", "transcribe", path, "--model", str(folder), "--max_new_tokens", "12", *extra]
    assert main([*arguments, "--window_times"]) == 0
    model, processor = FastSLMForCausalLM.from_pretrained(folder), FastSLMProcessor.from_pretrained(folder)
    request = processor.apply_transcription_request(path, window_times=True)
    ids = model.generate(**request, max_new_tokens=12)[0, request["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    timed = capsys.readouterr().out.strip()
    assert timed == expected
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() != timed
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    processor.window_times = True
    processor.save_pretrained(own)
    assert main(["slm", "transcribe", path, "--model", str(own), "--max_new_tokens", "12", *extra]) == 0
    assert capsys.readouterr().out.strip() == timed


def test_spans_of_a_window(folder, tmp_path, capsys):
    path = str(write_tone(tmp_path / "a.wav", 2.6))
    arguments = ["slm", "transcribe", path, "--model", str(folder), "--span_windows", "1"]
    assert main([*arguments, "--long_form", "stitch", "--max_new_tokens", "4"]) == 0
    said = capsys.readouterr().out.strip()
    model, processor = FastSLMForCausalLM.from_pretrained(folder), FastSLMProcessor.from_pretrained(folder)
    samples, _ = soundfile.read(path, dtype="float32")
    texts = []
    for window in processor.cut_windows(samples):
        request = processor.apply_transcription_request(window)
        ids = model.generate(**request, max_new_tokens=4)[0, request["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(ids, skip_special_tokens=True))
    assert (
        said
        == processor.tokenizer.decode(processor.tokenizer.encode(" ", add_special_tokens=False)).join(texts).strip()
    )
    assert main(arguments) == 2
    assert "needs long_form='stitch'" in only_error(capsys)


def test_bad_input_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "noise.wav").write_bytes(b"noise")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16_000)
    cases = [
        (["slm", "transcribe", "--model", str(folder)], "at least one audio file"),
        (["slm", "transcribe", str(tmp_path / "missing.wav"), "--model", str(folder)], "missing.wav"),
        (["slm", "transcribe", str(tmp_path / "noise.wav"), "--model", str(folder)], "noise.wav"),
        (["slm", "transcribe", str(tmp_path / "empty.wav"), "--model", str(folder)], "empty"),
        (["slm", "transcribe", str(write_nan(tmp_path / "nan.wav")), "--model", str(folder)], "NaN"),
        (["slm", "sing"], "there is no action 'sing'"),
        (["slm", "ask", str(write_tone(tmp_path / "a.wav", 0.3)), "--model", str(folder), "--dtype", "int3"], "int3"),
        (["slm", "ask", str(tmp_path / "a.wav"), "--model", str(folder), "--tokens_per_window", "3"], "rates"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        assert message in only_error(capsys), arguments
