"""`--teacher_cache` and `--encoder_cache`: what they tell and refuse, and that the teacher stays on the disk."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration, distill
from fastwhisper.cli.main import main
from fastwhisper.data.audio import load_audio
from fastwhisper.hub_cards.folder_records import RUN_FILE
from fastwhisper.transcription.lazy_whisper import LazyWhisper

from ..recordings import save_checkpoint, write_only_words
from ..tiny_models import tiny_whisper
from .conftest import SENTENCES

LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
KEYS = ("loss", "grad_norm", "ce", "teacher_kl", "self_kl")


@pytest.fixture(scope="module")
def student_folder(whisper_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "start"
    assert main(["init", "--teacher", str(whisper_folder), "--output", str(folder), "--decoder_layers", "1"]) == 0
    return folder


@pytest.fixture
def words(whisper_folder, student_folder, speech_folder, tmp_path):
    """The words of a distillation into a folder."""

    def words_of(output, *more):
        fixed = "--max_steps 3 --per_device_train_batch_size 2 --learning_rate 1e-3 --language en --use_cpu"
        places = ["--teacher", whisper_folder, "--student", student_folder, "--dataset", speech_folder]
        saved = ["--save_strategy", "steps", "--save_steps", "3", "--logging_steps", "1"]
        return ["distill", *map(str, places), *fixed.split(), *saved, "--output_dir", str(tmp_path / output), *more]

    return words_of


def caches(tmp_path, dtype="float32"):
    return [
        *("--teacher_cache", str(tmp_path / "teacher")),
        *("--encoder_cache", str(tmp_path / "encoder")),
        *("--cache_dtype", dtype),
    ]


def log(folder):
    state = json.loads((folder / "checkpoint-3" / "trainer_state.json").read_text())
    return {key: [line[key] for line in state["log_history"] if "loss" in line] for key in KEYS}


def assert_same(folder, other):
    mine, its = log(folder), log(other)
    for key in KEYS:
        assert mine[key] == pytest.approx(its[key], rel=1e-6, abs=1e-6), key
    expected = load_file(other / "model.safetensors")
    for name, weight in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=2e-5, msg=name)


@pytest.fixture
def no_teacher(monkeypatch):
    """From now on loading a whole teacher fails, wherever that is asked for."""

    def forbid():
        for module in ("fastwhisper.trainers.distill", "fastwhisper.transcription.lazy_whisper"):
            monkeypatch.setattr(f"{module}.load_checkpoint", lambda *_: pytest.fail("the teacher was loaded"))

    return forbid


def test_the_teacher_runs_once_and_then_is_not_even_loaded(words, tmp_path, caplog, capsys, no_teacher):
    assert main(words("plain")) == 0
    capsys.readouterr()
    assert main(words("first", *caches(tmp_path))) == 0
    tokens = 32 * 4  # bytes of a token's state
    # Start, language, task, no times, one to four words, the end.
    expected = re.search(r"teacher_cache \S+ has 0 of 6 rows; the others .* take about ([\d.]+) kB", caplog.text)
    assert 6 * (5 * tokens + 136) < 1000 * float(expected[1]) < 6 * (23 * tokens + 136)
    taken = sum(path.stat().st_size for path in (tmp_path / "teacher").rglob("*.safetensors"))
    assert 1000 * float(expected[1]) == pytest.approx(taken, rel=0.02)
    assert f"take about {6 * (100 * tokens + 136) / 1000:.1f} kB" in caplog.text
    printed = capsys.readouterr().out
    told = "6 rows computed; it has 6 entries, "
    assert printed.count(told) == 2
    size = sum(path.stat().st_size for path in (tmp_path / "encoder").rglob("*.safetensors"))
    assert f"encoder_cache {tmp_path / 'encoder'}: {told}{size / 1000:.1f} kB" in printed
    assert size == pytest.approx(6 * (100 * tokens + 136), rel=0.01)
    assert_same(tmp_path / "first", tmp_path / "plain")

    no_teacher()
    caplog.clear()
    assert main(words("second", *caches(tmp_path))) == 0
    assert "has 6 of 6 rows" in caplog.text and "others" not in caplog.text
    assert capsys.readouterr().out.count("0 rows computed;") == 2
    assert_same(tmp_path / "second", tmp_path / "plain")
    plain, cached = (json.loads((tmp_path / folder / RUN_FILE).read_text()) for folder in ("plain", "second"))
    assert cached["teacher"] == plain["teacher"] and cached["teacher"]["parameters"] > 0
    # Other settings of the training ask for the same states.
    assert (
        main(words("other", *caches(tmp_path), "--temperature", "2", "--lora_rank", "2", "--eval_split", "train")) == 0
    )


def test_without_a_student_the_teacher_is_loaded_to_build_one_and_let_go(
    whisper_folder, speech_folder, tmp_path, monkeypatch
):
    def run(output):
        settings = ASKDTrainingArguments(
            output_dir=str(tmp_path / output), max_steps=2, schedule="constant", per_device_train_batch_size=3,
            use_cpu=True, save_strategy="no", report_to="none",
        )  # fmt: skip
        flags = {"teacher_cache": tmp_path / "teacher", "encoder_cache": tmp_path / "encoder", "decoder_layers": 1}
        return distill(str(whisper_folder), speech_folder, settings, language="en", **flags)

    first = run("first")
    assert first.trainer._caches.teacher.teacher.model is not None and "6 rows computed" in first.caches[0]
    monkeypatch.setattr(LazyWhisper, "last_states", lambda *_: pytest.fail("the teacher ran"))
    second = run("second")
    assert second.trainer._caches.teacher.teacher.model is None
    assert FastWhisperForConditionalGeneration.from_pretrained(tmp_path / "second").config.decoder_layers == 1


def test_true_length_is_looked_up_before_at_the_lengths_that_are_heard(words, tmp_path, caplog, capsys, no_teacher):
    """First the encoder learns it, with the teacher's cache alone; then it is frozen, with both."""
    heard = ["--true_length", "true", "--full_length_probability"]
    assert main(words("learnt", *caches(tmp_path)[:2], *heard, "0.5")) == 0
    no_teacher()
    frozen = ["--student", str(tmp_path / "learnt"), "--freeze_encoder", "true", *caches(tmp_path)[:4], *heard]
    caplog.clear()
    assert main(words("frozen", *frozen, "0")) == 0
    # Rows of 0.3 to 1.3 s and half a second: two of a second, four of the window of two; 32 float16 a position.
    taken = 2 * (50 * 32 * 2 + 136) + 4 * (100 * 32 * 2 + 136)
    assert f"encoder_cache {tmp_path / 'encoder'} has 0 of 6 rows" in caplog.text
    assert f"take about {taken / 1000:.1f} kB" in caplog.text
    assert "teacher_cache" in caplog.text and "has 6 of 6 rows" in caplog.text
    size = sum(path.stat().st_size for path in (tmp_path / "encoder").rglob("*.safetensors"))
    assert size == pytest.approx(taken, rel=0.02) and "6 rows computed" in capsys.readouterr().out
    caplog.clear()
    assert main(words("both", *frozen, "0.5")) == 0
    assert f"encoder_cache {tmp_path / 'encoder'} has 4 of 6 rows" in caplog.text


def test_encoder_states_are_told_and_kept_beside(words, speech_folder, tmp_path, caplog, capsys, no_teacher):
    """In the same folder: for rows whose decoder states are there already, they alone are computed."""
    assert main(words("first", *caches(tmp_path)[:2], "--freeze_encoder", "false")) == 0
    before = sum(path.stat().st_size for path in (tmp_path / "teacher").rglob("*.safetensors"))
    flags = [
        *caches(tmp_path)[:2],
        "--encoder_weight",
        "0.2",
        "--true_length",
        "true",
        "--full_length_probability",
        "0",
    ]
    caplog.clear()
    capsys.readouterr()
    assert main(words("fills", *flags)) == 0
    cache = f"teacher_cache {tmp_path / 'teacher'}"
    seconds = [load_audio(path).size / 16_000 for path in sorted(speech_folder.glob("*.wav"))]
    # 100 frames a second, two a position, 32 float16 a position.
    taken = sum(math.ceil(math.ceil(round(100 * length, 6)) / 2) * 64 + 136 for length in seconds)
    assert f"{cache} has 6 of 6 rows\n" in caplog.text
    told = (
        f"{cache} (encoder states) has 0 of 6 rows; the others will be computed, and take about {taken / 1000:.1f} kB"
    )
    assert told in caplog.text
    size = sum(path.stat().st_size for path in (tmp_path / "teacher").rglob("*.safetensors"))
    assert size - before == pytest.approx(taken, rel=0.02)
    printed = capsys.readouterr().out
    assert f"{cache}: 0 rows computed; it has 12 entries" in printed
    assert f"{cache} (encoder states): 6 rows computed; it has 12 entries" in printed

    no_teacher()
    caplog.clear()
    assert main(words("reads", *flags)) == 0
    assert f"{cache} (encoder states) has 6 of 6 rows\n" in caplog.text
    assert capsys.readouterr().out.count("0 rows computed;") == 2
    assert log(tmp_path / "reads")["loss"] == log(tmp_path / "fills")["loss"]


def test_a_stream_reads_through(words, tmp_path, no_teacher, capsys, caplog):
    assert main(words("first", *caches(tmp_path), "--streaming")) == 0
    assert "rows" not in caplog.text and "teacher_cache" in capsys.readouterr().out
    no_teacher()
    assert main(words("second", *caches(tmp_path), "--streaming")) == 0
    assert log(tmp_path / "first")["loss"] == log(tmp_path / "second")["loss"]


def test_a_weight_of_zero_asks_nothing_of_the_teacher(words, tmp_path, no_teacher, caplog):
    no_teacher()
    assert main(words("out", *caches(tmp_path), "--teacher_weight", "0")) == 0
    assert "teacher_cache" not in caplog.text and not list((tmp_path / "teacher").rglob("*.safetensors"))


def test_two_processes_fill_and_read_the_same_caches(words, tmp_path):
    """One process with batches of two, and two with one each; the second run reads what the first wrote."""
    assert main(words("plain")) == 0
    for output in ("fills", "reads"):
        flags = [*caches(tmp_path), "--per_device_train_batch_size", "1"]
        done = subprocess.run(
            [sys.executable, *LAUNCHER, "-m", "fastwhisper", *words(output, *flags)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        computed = 6 if output == "fills" else 0
        assert done.stdout.count(f"{computed} rows computed") == 2, done.stdout
        assert done.stderr.count(f"has {6 - computed} of 6 rows") == 2, done.stderr
        mine, its = log(tmp_path / output), log(tmp_path / "plain")
        for key in KEYS:
            assert mine[key] == pytest.approx(its[key], rel=2e-5, abs=1e-6), key


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--encoder_cache", "ENCODER", "--freeze_encoder", "false"], "--encoder_cache needs --freeze_encoder true"),
        (["--encoder_cache", "ENCODER", "--cache_dtype", "int8"], "there is no cache_dtype 'int8'"),
        (["--teacher_cache", "FILE"], "cannot be written in"),
        (["--teacher_cache", "FILE/cache"], "cannot be written in"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(words, tmp_path, refused, flags, said):
    (tmp_path / "file").write_text("")
    flags = [flag.replace("FILE", str(tmp_path / "file")).replace("ENCODER", str(tmp_path / "e")) for flag in flags]
    assert said in refused(*words("out", *flags))
    assert not (tmp_path / "out").exists() and not (tmp_path / "e").exists()


def test_spec_augment_is_refused_for_the_encoder_alone(words, whisper_folder, demo_tokenizer, tmp_path, refused):
    augmented = {"apply_spec_augment": True, "mask_time_prob": 0.5, "mask_time_length": 10}
    student = FastWhisperForConditionalGeneration.from_teacher(
        tiny_whisper(demo_tokenizer, max_target_positions=24, **augmented), 1
    )
    folder = save_checkpoint(student, demo_tokenizer, tmp_path / "augmented")
    said = refused(*words("out", "--student", str(folder), *caches(tmp_path)))
    assert "SpecAugment masks the student's audio anew" in said and "leave out encoder_cache" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "encoder").exists()
    assert main(words("out", "--student", str(folder), *caches(tmp_path)[:2], "--freeze_encoder", "false")) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_label_fills_what_distill_asks_for(
    words, demo_tokenizer, speech_folder, student_folder, tmp_path, caplog, capsys, no_teacher, processes
):
    """With times and prompts, from the table that label wrote; run again, nothing is left to do."""
    model = tiny_whisper(demo_tokenizer, max_target_positions=24)
    write_only_words(model, demo_tokenizer)
    model.generation_config.max_length = 10
    teacher = save_checkpoint(model, demo_tokenizer, tmp_path / "talker")
    table = [
        {"file_name": str(speech_folder / f"{index}.wav"), "text": text, "previous_text": "so"}
        for index, text in enumerate(SENTENCES)
    ]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    drawn = ["--timestamp_probability", "0.5", "--prompt_probability", "0.5", "--seed", "7"]
    kept = ["--teacher_cache", str(tmp_path / "teacher"), *drawn]
    label = ["label", "--model", teacher, "--dataset", tmp_path / "rows", "--output", tmp_path / "labels"]
    label = [*map(str, label), "--language", "en", "--batch_size", "4", "--device", "cpu", *kept]
    if processes == 1:
        assert main(label) == 0
        told = capsys.readouterr().out
    else:
        done = subprocess.run(
            [sys.executable, *LAUNCHER, "-m", "fastwhisper", *label],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        told = done.stdout
    assert "6 rows computed with dtype float32; it has 6 entries" in told
    if processes == 1:
        assert main(label) == 0 and "0 rows computed" in capsys.readouterr().out
    no_teacher()
    distil = words("out", "--teacher", str(teacher), "--dataset", str(tmp_path / "labels"), *kept)
    assert main(distil) == 0
    assert "has 6 of 6 rows" in caplog.text and "0 rows computed" in capsys.readouterr().out


def test_label_refuses_a_cache_that_cannot_be_written_in_before_it_starts(
    whisper_folder, speech_folder, tmp_path, refused
):
    (tmp_path / "file").write_text("")
    words = ["label", "--model", whisper_folder, "--dataset", speech_folder, "--output", tmp_path / "labels"]
    assert "cannot be written in" in refused(*words, "--teacher_cache", tmp_path / "file")
    assert "there is no cache_dtype" in refused(*words, "--teacher_cache", tmp_path / "c", "--cache_dtype", "int8")
    assert not (tmp_path / "labels").exists() and not (tmp_path / "c").exists()
