"""World size and killed runs: each run is a program of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def run(folder, processes=1, expected_code=0, **settings):
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "tests.trainers.askd_run"]
    completed = subprocess.run(
        [*command, json.dumps({"folder": str(folder), **settings})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert completed.returncode == expected_code, completed.stderr[-3000:]
    if expected_code == 0:
        return json.loads((folder / "log.json").read_text()), load_file(folder / "w.safetensors")
    return None


def test_two_processes_equal_one(tmp_path):
    settings = {"rows": 8, "max_steps": 4, "mode": "joint", "schedule": "gap", "save_strategy": "no"}
    one, weights_one = run(tmp_path / "one", per_device_train_batch_size=8, **settings)
    two, weights_two = run(tmp_path / "two", processes=2, per_device_train_batch_size=4, **settings)
    for key in ("loss", "grad_norm", "ce", "teacher_kl", "self_kl", "teacher_weight"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=2e-5, abs=1e-7), key
    # The gap is a difference of two cross-entropies and has their errors, which are relative to them and not to it.
    error = 2e-5 * max(line["ce"] for line in one)
    assert [line["gap"] for line in two] == pytest.approx([line["gap"] for line in one], rel=0, abs=error)
    for name, weight in weights_one.items():
        assert (weight - weights_two[name]).abs().max() < 2e-5, name


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "sequential", "teacher_decay_end": 0.3, "self_teacher": "snapshot"},
        {"mode": "joint", "schedule": "gap", "self_teacher": "ema", "ema_decay": 0.9, "freeze_encoder": False},
    ],
    ids=["snapshot", "ema-gap"],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, settings):
    """Three steps an epoch; killed in the third after a checkpoint within it. Dropout is on: RNG states count."""
    settings = {
        "rows": 12, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 12,
        "save_strategy": "steps", "save_steps": 7, "dropout": 0.1, **settings,
    }  # fmt: skip
    whole, weights = run(tmp_path / "whole", **settings)
    run(tmp_path / "killed", die_at=9, expected_code=17, **settings)
    files = {path.name for path in (tmp_path / "killed/run/checkpoint-7").iterdir()}
    assert {"askd_state.json", "self_teacher.safetensors", "trainer_state.json"} <= files
    resumed, resumed_weights = run(tmp_path / "killed", resume=True, **settings)
    keys = ("step", "loss", "ce", "teacher_kl", "self_kl", "teacher_weight", "self_weight")
    for mine, other in zip(resumed, whole, strict=True):
        assert {key: mine[key] for key in keys} == {key: other[key] for key in keys}
    assert any(line["self_kl"] > 0 for line in whole[7:])
    for name, weight in weights.items():
        assert weight.equal(resumed_weights[name]), name


# Rows of four contexts, so that steps of one and mixed ones come up.
SECONDS = [0.2, 0.3, 0.4, 0.45, 0.7, 1.2, 1.3, 1.4, 1.45, 1.49, 2.2, 2.4, 2.45, 2.9, 3.1, 3.9]
TRUE_LENGTH = {
    "seconds": SECONDS, "encoder_weight": 0.5, "encoder_learning_rate": 5e-4, "full_length_probability": 0.3,
    "mode": "joint",
}  # fmt: skip
KEYS = ("loss", "ce", "teacher_kl", "self_kl", "encoder_mse", "teacher_weight", "self_weight")


def test_two_processes_equal_one_at_true_length(tmp_path):
    """Two epochs of two steps."""
    settings = {**TRUE_LENGTH, "max_steps": 4, "save_strategy": "no"}
    one, weights_one = run(tmp_path / "one", per_device_train_batch_size=8, **settings)
    two, weights_two = run(tmp_path / "two", processes=2, per_device_train_batch_size=4, **settings)
    for key in (*KEYS, "grad_norm"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=2e-5, abs=1e-7), key
    for name, weight in weights_one.items():
        assert (weight - weights_two[name]).abs().max() < 2e-5, name


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_at_true_length(tmp_path, processes):
    """Four steps an epoch; killed in the second epoch after a checkpoint within it."""
    settings = {
        **TRUE_LENGTH, "processes": processes, "per_device_train_batch_size": 2 // processes,
        "gradient_accumulation_steps": 2, "max_steps": 12, "save_strategy": "steps", "save_steps": 5, "dropout": 0.1,
    }  # fmt: skip
    whole, weights = run(tmp_path / "whole", **settings)
    run(tmp_path / "killed", die_at=7, expected_code=17 if processes == 1 else 1, **settings)
    resumed, resumed_weights = run(tmp_path / "killed", resume=True, **settings)
    for mine, other in zip(resumed, whole, strict=True):
        assert [mine[key] for key in KEYS] == [other[key] for key in KEYS], mine["step"]
    for name, weight in weights.items():
        assert weight.equal(resumed_weights[name]), name


def test_checkpoint_of_another_trainer_is_refused(tmp_path):
    settings = {"rows": 4, "per_device_train_batch_size": 4, "max_steps": 2, "save_steps": 1}
    run(tmp_path / "run", **settings)
    checkpoint = tmp_path / "run/run/checkpoint-2"
    (checkpoint / "askd_state.json").unlink()
    with pytest.raises(AssertionError, match="it has no askd_state.json"):
        run(tmp_path / "run", resume=True, **{**settings, "max_steps": 3})
