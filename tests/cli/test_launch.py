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
EPOCHS = "--num_train_epochs 2 --per_device_train_batch_size 1"
STREAM = "--streaming --limit 4 --max_steps 3 --per_device_train_batch_size 2 --save_strategy no"


@pytest.fixture(scope="module")
def launched(whisper_folder, speech_folder, tmp_path_factory):
    """Two distillations on the same two processes: what they printed, their folder, and their diaries."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "diary").mkdir()
    places = f"distill --teacher {whisper_folder} --dataset {speech_folder} --decoder_layers 1 --language en --use_cpu"
    calls = [
        f"{places} --output_dir {folder / 'epochs'} --logging_steps 1 {EPOCHS}",
        f"{places} --output_dir {folder / 'stream'} {STREAM}",
    ]
    done = subprocess.run(
        [sys.executable, *LAUNCHER, "-m", "tests.cli.counted_distill", str(folder / "diary")]
        + [json.dumps(call.split()) for call in calls],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in (folder / "diary").iterdir()} == {"0.json", "1.json"}
    return done, folder, [json.loads((folder / "diary" / f"{rank}.json").read_text()) for rank in range(2)]


def test_each_row_goes_to_one_process_once_an_epoch(launched):
    """Six rows, one a process and step: three steps an epoch."""
    first, second = (diary[0]["batches"] for diary in launched[2])
    assert len(first) == len(second) == 6
    for epoch in (slice(0, 3), slice(3, 6)):
        rows = [text for batches in (first, second) for batch in batches[epoch] for text in batch]
        assert sorted(rows) == sorted(SENTENCES)
    assert first[:3] != first[3:]  # in another order


def test_one_process_writes_and_speaks(launched):
    done, folder, (first, second) = launched
    out = str(folder / "epochs")
    assert f"{out}/README.md" in first[0]["written"]
    its = {Path(file).name for file in second[0]["written"] if file.startswith(out)}
    assert its <= {"epochs", ".unfinished", "checkpoint-6", "rng_state_1.pth"}, (
        its
    )  # each process saves its own random state
    assert done.stdout.count(f"student: {out}") == 1
    assert done.stderr.count("| 0/6 ") == 1 and "find_unused_parameters" not in done.stderr
    state = json.loads((folder / "epochs" / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["global_step"] == 6 and len([line for line in state["log_history"] if "loss" in line]) == 6
    assert FastWhisperForConditionalGeneration.from_pretrained(out).config.decoder_layers == 1


def test_a_stream_is_shared_too(launched):
    """Batches of two rows of different length: one process could not send them to the other."""
    first, second = (diary[1]["batches"] for diary in launched[2])
    assert len(first) == len(second) >= 3
    for mine, its in list(zip(first, second, strict=True))[:3]:
        assert sorted([*mine, *its]) == sorted(SENTENCES[:4])  # an epoch is one step
