"""The short set: kills, full disks, signals, two runs at once. `python -m benchmarks.faults` is the long one."""

import os
import random
import signal
import sys
import time

import pytest

from fastwhisper.files import LOCK_NAME
from fastwhisper.trainers.whole_checkpoints import STAGING, checkpoints

from .runs import Runs, result, send_at_random, torn_files


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole(runs):
    """The result of a run that nothing happened to, and how long it took."""
    output, begun = runs.folder / "whole", time.monotonic()
    run = runs.distill(output)
    assert run.wait() == 0, run.said
    return result(output), time.monotonic() - begun


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize(("seed", "within_save"), [(0, False), (1, True), (2, True)])
def test_killed_at_random_and_resumed_is_the_same_run(runs, whole, seed, within_save):
    same, seconds = whole
    output = runs.folder / f"killed-{seed}"
    run = runs.distill(output)
    send_at_random(run, output, random.Random(seed), seconds, signal.SIGKILL, within_save)
    run.wait()
    assert torn_files(output) == []
    again = runs.go_on(output)
    assert again.wait() == 0, again.said
    assert result(output) == same
    assert not (output / STAGING).exists() and not (output / LOCK_NAME).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_within_a_save_ends_at_a_step_with_a_checkpoint(runs, whole, number, code):
    output = runs.folder / number.name
    run = runs.distill(output)
    until((output / STAGING).is_dir)
    run.send(number)
    assert run.wait() == code and "Traceback" not in run.said
    last = checkpoints(output)[-1].name
    assert run.error_lines == [
        "fastwhisper: stopping after this step, with a checkpoint; once more stops at once",
        f"fastwhisper distill: stopped by {number.name} after step {last[11:]}, with a checkpoint: go on with the "
        "same command and --resume_from_checkpoint last",
    ]
    assert torn_files(output) == [] and not (output / "model.safetensors").exists()
    assert runs.go_on(output).wait() == 0
    assert result(output) == whole[0]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the length of files")
def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_is_gone_on_from(runs, whole):
    output = runs.folder / "full"
    run = runs.distill(output)
    until(lambda: checkpoints(output))
    run.send(signal.SIGKILL)
    run.wait()
    last = checkpoints(output)[-1].name
    optimizer = (output / last / "optimizer.pt").stat().st_size
    run = runs.go_on(output, file_limit=optimizer - 1000)
    assert run.wait() == 2 and "Traceback" not in run.said
    assert f"could not be written into {output}" in run.said
    assert f"make room, then go on from {last} with --resume_from_checkpoint last" in run.said
    assert torn_files(output) == [] and not (output / STAGING).exists()
    assert runs.go_on(output).wait() == 0
    assert result(output) == whole[0]


def test_of_two_trainings_in_one_folder_the_second_is_refused(runs, whole):
    output = runs.folder / "two"
    first = runs.distill(output)
    until((output / LOCK_NAME).exists)
    second = runs.distill(output)
    assert second.wait() == 2
    assert f"another run writes into {output}: wait for its end, or choose another folder" in second.said
    assert first.wait() == 0 and result(output) == whole[0]


def test_labelling_twice_at_once_and_killed(runs):
    done = runs.folder / "labels"
    assert runs.label(done).wait() == 0
    output = runs.folder / "labels-killed"
    first = runs.label(output)
    until(lambda: list(output.glob("parts/*.jsonl")))
    second = runs.label(output)
    if first.running:  # else it was too fast for the other
        assert second.wait() in (0, 2)
    first.send(signal.SIGKILL)
    first.wait()
    again = runs.label(output)
    assert again.wait() == 0, again.said
    assert (output / "metadata.jsonl").read_bytes() == (done / "metadata.jsonl").read_bytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a folder that not even root writes in")
def test_a_read_only_folder_is_refused_before_the_work(runs):
    place = "/sys/fastwhisper"
    for run in (runs.distill(place), runs.label(place)):
        assert run.wait() == 2 and len(run.error_lines) == 1
        assert f"the folder {place} cannot be written in" in run.error_lines[0]


def test_a_signal_to_one_of_two_processes_ends_both_at_the_same_step(tmp_path):
    runs, output = Runs(tmp_path, processes=2), tmp_path / "out"
    run = runs.distill(output, "--max_steps", "200", "--save_steps", "100")
    until(lambda: "1/200" in run.said)
    os.kill(run.processes[1].pid, signal.SIGTERM)
    assert run.wait() == 143 and run.processes[1].exitcode == 143, run.said
    (last,) = checkpoints(output)
    assert sorted(path.name for path in last.glob("rng_state*")) == ["rng_state_0.pth", "rng_state_1.pth"]
    assert run.said.count(f"stopped by SIGTERM after step {last.name[11:]}, with a checkpoint") == 2
    assert torn_files(output) == [] and not (output / STAGING).exists()
