"""`fastwhisper slm`: parts to a model, questions and transcripts of files, bars, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor

from fastwhisper import FastSLMConfig, FastSLMForCausalLM, FastSLMProcessor
from fastwhisper.cli.main import main

from ..fastslm_parts import tiny_encoder, tiny_language_model, tiny_pair, tiny_processor


def write_tone(path, seconds):
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * 16_000)) * 0.05).astype(np.float32), 16_000)
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


@pytest.fixture
def parts(tmp_path):
    """Arguments of `init` but for the output."""
    processor = tiny_processor()
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    WhisperFeatureExtractor(feature_size=80, chunk_length=1).save_pretrained(tmp_path / "encoder")
    tiny_language_model(vocab_size=900).save_pretrained(tmp_path / "llm")
    processor.tokenizer.save_pretrained(tmp_path / "llm")
    return ["slm", "init", "--encoder", str(tmp_path / "encoder"), "--language_model", str(tmp_path / "llm")]


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--encoder_true_length", "false"], False)])
def test_init_follows_an_encoder_at_true_length(parts, tmp_path, flags, expected):
    path = tmp_path / "encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "true_length": True, "true_length_margin": 0.25}))
    assert main([*parts, "--output", str(tmp_path / "out"), "--num_queries", "4", *flags]) == 0
    config = FastSLMConfig.from_pretrained(tmp_path / "out")
    assert config.encoder_true_length is expected
    assert config.encoder_true_length_margin == (0.25 if expected else 0)
    assert ("encoder_true_length" in (tmp_path / "out" / "README.md").read_text()) is expected


def test_init_builds_from_parts(parts, tmp_path, capsys):
    arguments = [*parts, "--output", str(tmp_path / "out"), "--num_queries", "4", "--stage_queries", "3", "3"]
    arguments += ["--tokens_follow_length", "--rates", "2", "4", "--window_times", "--encoder_true_length"]
    assert main(arguments) == 0
    assert "4.00 speech tokens per second" in capsys.readouterr().out
    model = FastSLMForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.qformer_config.stage_queries == [3, 3]
    assert model.config.encoder_true_length and model.config.encoder_true_length_margin == 0
    processor = FastSLMProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokens_follow_length and processor.window_times
    assert main(["slm", "transcribe", str(write_tone(tmp_path / "a.wav", 0.7)), "--model", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(arguments) == 2
    assert "out already exists" in only_error(capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rates", "9"], "rates=[9] must lie between 1 and num_queries=4"),
        (["--window_overlap", "1.5"], "shorter than a window"),
        (["--query_clock", "noon"], "query_clock"),
        (["--encoder", "LLM"], "is not a Whisper"),
        (["--language_model", "NONE"], "NONE"),
    ],
)
def test_init_refuses_in_a_line_and_leaves_nothing(parts, more, message, tmp_path, capsys):
    more = [
        str(tmp_path / "llm") if word == "LLM" else str(tmp_path / word) if word == "NONE" else word for word in more
    ]
    assert main([*parts, "--output", str(tmp_path / "new" / "out"), "--num_queries", "4", *more]) == 2
    assert message in only_error(capsys)
    assert list(tmp_path.rglob("*out*")) == []


def test_transcripts_are_those_of_the_model(folder, tmp_path, capsys):
    paths = [str(write_tone(tmp_path / "a.wav", 1.4)), str(write_tone(tmp_path / "b.flac", 0.3))]
    arguments = ["--model", str(folder), "--max_new_tokens", "12"]
    assert main(["slm", "transcribe", *paths, *arguments, "--output", str(tmp_path / "texts")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("the answer was cut") == 2
    model, processor = FastSLMForCausalLM.from_pretrained(folder), FastSLMProcessor.from_pretrained(folder)
    texts = []
    for path in paths:
        request = processor.apply_transcription_request(path)
        ids = model.generate(**request, max_new_tokens=12)[0, request["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(ids, skip_special_tokens=True).strip())
        assert (tmp_path / "texts" / f"{Path(path).stem}.txt").read_text(encoding="utf-8") == f"{texts[-1]}\n"
    assert main(["slm", "transcribe", *paths, *arguments]) == 0
    assert capsys.readouterr().out == "".join(f"{path}: {text}\n" for path, text in zip(paths, texts, strict=True))
    assert main(["slm", "transcribe", paths[0], *arguments]) == 0
    assert capsys.readouterr().out == f"{texts[0]}\n"
    assert main(["slm", "ask", paths[0], *arguments, "--question", "who speaks", "--tokens_per_window", "2"]) == 0


class RecordedBar:
    """Stands in for rich's bar: `shown` has what each task showed."""

    shown: list = []
    disable = True

    def __init__(self, shown=True):
        assert shown

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
    monkeypatch.setattr("fastwhisper.transcription.answer_files.progress_bar", RecordedBar)
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


def test_bad_input_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "noise.wav").write_bytes(b"noise")
    good, long = str(write_tone(tmp_path / "a.wav", 0.3)), str(write_tone(tmp_path / "long.wav", 120))
    cases = [
        (["slm", "transcribe", "--model", str(folder)], "no audio files given"),
        (["slm", "transcribe", str(tmp_path / "missing.wav"), "--model", str(folder)], "missing.wav"),
        (["slm", "transcribe", str(tmp_path / "noise.wav"), "--model", str(folder)], "noise.wav"),
        (["slm", "transcribe", long, "--model", str(folder)], "600 of speech, 60 of text"),
        (["slm", "sing"], "there is no action 'sing'"),
        (["slm", "ask", good, "--model", str(folder), "--dtype", "int3"], "int3"),
        (["slm", "ask", good, "--model", str(folder), "--tokens_per_window", "3"], "rates"),
        (["slm", "ask", good, "--model", str(folder), "--span_windows", "2"], "long_form"),
        (["slm", "ask", good, "--model", str(tmp_path)], "not a checkpoint"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        assert message.partition(",")[0] in only_error(capsys), arguments


def test_one_bad_file_of_several_is_exit_code_1(folder, tmp_path, capsys):
    (tmp_path / "noise.wav").write_bytes(b"noise")
    files = [str(tmp_path / "noise.wav"), str(write_tone(tmp_path / "a.wav", 0.3)), str(tmp_path / "none.wav")]
    assert main(["slm", "ask", *files, "--model", str(folder), "--max_new_tokens", "2"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{files[1]}: ") and captured.out.count("\n") == 1
    assert "noise.wav cannot be read" in captured.err and "there is no file" in captured.err
