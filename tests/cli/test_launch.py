"""`accelerate launch` on two processes: each row once an epoch, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastwhisper import FastWhisperForConditionalGeneration

from .conftest import SENTENCES

# --multi_gpu is what starts several processes, also on CPUs: with --cpu one alone is started, whatever is asked for.
LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


@pytest.fixture
def launch(whisper_folder, speech_folder, tmp_path):
    def launch(*flags):
        """Run a distillation on two processes; returns what it printed and the diary of each process."""
        words = ["--teacher", whisper_folder, "--dataset", speech_folder, "--output_dir", tmp_path / "out"]
        words += ["--decoder_layers", "1", "--language", "en", "--use_cpu", "--logging_steps", "1"]
        diary = tmp_path / "diary"
        diary.mkdir()
        done = subprocess.run(
            [
                sys.executable,
                *LAUNCHER,
                "-m",
                "tests.cli.counted_distill",
                str(diary),
                "distill",
                *map(str, words),
                *flags,
            ],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert {path.name for path in diary.iterdir()} == {"0.json", "1.json"}
        return done, *(json.loads((diary / f"{rank}.json").read_text()) for rank in range(2))

    return launch


def test_two_processes_take_each_row_once_an_epoch_and_one_writes(launch, tmp_path):
    """Six rows, one a process and step: three steps an epoch."""
    done, first, second = launch("--num_train_epochs", "2", "--per_device_train_batch_size", "1")
    assert len(first["batches"]) == len(second["batches"]) == 6
    for epoch in (slice(0, 3), slice(3, 6)):
        rows = [text for diary in (first, second) for batch in diary["batches"][epoch] for text in batch]
        assert sorted(rows) == sorted(SENTENCES)
    assert first["batches"][:3] != first["batches"][3:]  # in another order

    out = str(tmp_path / "out")
    assert any(file.endswith("README.md") for file in first["written"])
    mine = {Path(file).name for file in second["written"] if file.startswith(out)}
    assert mine <= {"out", "checkpoint-6", "rng_state_1.pth"}, mine  # each process saves its own random state
    assert done.stdout.count("student: ") == 1
    assert done.stderr.count("| 0/6 ") == 1 and "Warning: find_unused" not in done.stderr
    log = json.loads((tmp_path / "out" / "checkpoint-6" / "trainer_state.json").read_text())
    assert log["global_step"] == 6 and len([line for line in log["log_history"] if "loss" in line]) == 6
    assert FastWhisperForConditionalGeneration.from_pretrained(out).config.decoder_layers == 1


def test_two_processes_share_a_stream(launch):
    """Batches of two rows of different length: one process could not send them to the other."""
    flags = "--streaming --max_steps 3 --per_device_train_batch_size 2 --gradient_accumulation_steps 1"
    _, first, second = launch(*flags.split(), "--save_strategy", "no", "--limit", "4")
    assert len(first["batches"]) == len(second["batches"]) >= 3
    for mine, its in list(zip(first["batches"], second["batches"], strict=True))[:3]:
        assert sorted([*mine, *its]) == sorted(SENTENCES[:4])  # an epoch is one step
