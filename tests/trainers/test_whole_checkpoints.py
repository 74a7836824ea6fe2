"""Checkpoints appear whole and go whole, and the last whole one is what a run goes on from."""

import errno
import json
import os
import shutil

import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import IntervalStrategy

from fastwhisper.errors import InputError
from fastwhisper.hub_cards.callback import ModelCardCallback
from fastwhisper.trainers.askd_trainer import STATE_FILE
from fastwhisper.trainers.whole_checkpoints import STAGING, checkpoints, last_whole_checkpoint, what_it_lacks

from ..recordings import tiny_processor
from .conftest import make_rows

SAVING = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}


@pytest.fixture
def run(make_trainer, tmp_path):
    """The output folder of a training of three steps, with a checkpoint each."""
    make_trainer(**SAVING).train()
    return tmp_path / "run"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def keep_alone(*names):
    def keep(folder):
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()

    return keep


@pytest.mark.parametrize(
    ("tear", "lack"),
    [
        (keep_alone(STATE_FILE), "has no optimizer.pt"),
        (keep_alone(STATE_FILE, "model.safetensors"), "has no optimizer.pt"),
        (keep_alone(), "has no optimizer.pt"),
        (lambda folder: cut(folder / "optimizer.pt"), "has a torn optimizer.pt"),
        (lambda folder: cut(folder / "rng_state.pth"), "has a torn rng_state.pth"),
        (lambda folder: cut(folder / "trainer_state.json"), "has a torn trainer_state.json"),
        (lambda folder: (folder / "trainer_state.json").write_text("[]"), "has a torn trainer_state.json"),
        (lambda folder: cut(folder / "model.safetensors"), "has a torn model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "has a torn model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "rng_state.pth").unlink(), "has no rng_state.pth"),
        (lambda folder: (folder / STATE_FILE).write_text('{"running'), f"has a torn {STATE_FILE}"),
        (lambda folder: (folder / STATE_FILE).unlink(), f"has no {STATE_FILE}"),
    ],
)
def test_a_torn_checkpoint_is_passed_over_by_name(run, caplog, tear, lack):
    tear(run / "checkpoint-3")
    assert last_whole_checkpoint(run, (STATE_FILE,)) == run / "checkpoint-2"
    assert f"going on from checkpoint-2; passed over: checkpoint-3 {lack}" in caplog.text


def test_no_whole_checkpoint_is_refused(run, make_trainer):
    for folder in checkpoints(run):
        cut(folder / "optimizer.pt")
    with pytest.raises(InputError, match="no checkpoint in .* that is whole: checkpoint-3 has a torn optimizer.pt; "):
        make_trainer(**SAVING).train(resume_from_checkpoint=True)
    with pytest.raises(
        InputError, match="checkpoint-2 is not a checkpoint that a run can resume from: it has a torn opt"
    ):
        make_trainer(**SAVING).train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_a_torn_checkpoint_is_replaced_when_its_step_comes_again(run, make_trainer):
    whole = torch.load(run / "checkpoint-3" / "optimizer.pt")
    cut(run / "checkpoint-3" / "optimizer.pt")
    (run / STAGING / "checkpoint-3").mkdir(parents=True)
    (run / STAGING / "checkpoint-3" / "half").touch()
    make_trainer(**SAVING).train(resume_from_checkpoint=True)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert what_it_lacks(run / "checkpoint-3", (STATE_FILE,)) is None
    assert not (run / "checkpoint-3" / "half").exists()
    again = torch.load(run / "checkpoint-3" / "optimizer.pt")
    assert all(torch.equal(again["state"][key]["exp_avg"], its["exp_avg"]) for key, its in whole["state"].items())


class Watch(TrainerCallback):
    """What is to be seen in the output folder whenever a file of a checkpoint is begun."""

    def __init__(self, monkeypatch, run):
        self.seen = []
        save = TrainerState.save_to_json

        def look(state, path):
            self.seen.append(sorted(folder.name for folder in run.glob("checkpoint-*")))
            save(state, path)

        monkeypatch.setattr(TrainerState, "save_to_json", look)


def test_a_checkpoint_is_not_seen_before_it_is_whole(make_trainer, monkeypatch, tmp_path):
    watch = Watch(monkeypatch, tmp_path / "run")
    make_trainer(**SAVING, callbacks=[watch]).train()
    assert watch.seen[0] == [] and watch.seen[-1] == ["checkpoint-1", "checkpoint-2"]


def test_the_card_is_written_before_the_checkpoint_is_seen(make_trainer, demo_tokenizer, monkeypatch, tmp_path):
    completed = []

    class Card(ModelCardCallback):
        def _complete(self, folder, processing_class):
            completed.append((folder, folder.name in {path.name for path in (tmp_path / "run").iterdir()}))
            super()._complete(folder, processing_class)

    trainer = make_trainer(**SAVING, callbacks=[Card()])
    trainer.processing_class = tiny_processor(demo_tokenizer)
    trainer.train()
    assert [seen for _, seen in completed] == [False] * 3
    assert (tmp_path / "run" / "checkpoint-3" / "README.md").is_file()
    assert (tmp_path / "run" / "checkpoint-3" / "modeling_fastwhisper.py").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 704 vs 598"),
    ],
)
def test_a_full_disk_leaves_the_checkpoints_before_it(make_trainer, monkeypatch, tmp_path, error):
    saved = []
    save = torch.save

    def full(value, path, **options):
        saved.append(path)
        if len(saved) < 8:  # of four files a checkpoint
            return save(value, path, **options)
        (tmp_path / path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="step 2 could not be written .*: make room, then go on from checkpoint-1"):
        make_trainer(**SAVING).train()
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-1"]
    trainer = make_trainer(**SAVING)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3


def test_other_errors_of_a_save_stay_as_they_are(make_trainer, monkeypatch, tmp_path):
    def wrong(*args, **options):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match="device-side assert") as raised:
        make_trainer(**SAVING).train()
    assert not isinstance(raised.value, InputError) and list((tmp_path / "run").iterdir()) == []


def test_the_oldest_go_and_the_newest_stays(make_trainer, tmp_path):
    """Also where a run went on from an earlier step than the last."""
    run = tmp_path / "run"
    make_trainer(**{**SAVING, "max_steps": 5}, save_total_limit=3).train()
    assert [path.name for path in checkpoints(run)] == ["checkpoint-3", "checkpoint-4", "checkpoint-5"]
    os.utime(run / "checkpoint-3", (1, 1))
    shutil.rmtree(run / "checkpoint-4")
    (run / "checkpoint-9").mkdir()  # a torn one
    make_trainer(**{**SAVING, "max_steps": 4}, save_total_limit=2).train(str(run / "checkpoint-3"))
    assert [path.name for path in checkpoints(run)] == ["checkpoint-4", "checkpoint-9"]
    assert not (run / STAGING).exists()


def test_the_best_checkpoint_is_known_by_its_own_name_and_stays(make_trainer, demo_tokenizer, tmp_path):
    trainer = make_trainer(**{**SAVING, "max_steps": 4, "learning_rate": 0.5}, save_total_limit=1)
    trainer.eval_dataset = make_rows(4, len(demo_tokenizer))
    args = trainer.args
    args.eval_strategy, args.eval_steps = IntervalStrategy.STEPS, 1
    args.load_best_model_at_end, args.metric_for_best_model, args.greater_is_better = True, "loss", False
    trainer.train()
    run = tmp_path / "run"
    best = run / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_model_checkpoint == str(best) and best.is_dir()
    assert json.loads((best / "trainer_state.json").read_text())["best_model_checkpoint"] == str(best)


def test_going_on_from_the_last_step_takes_no_other(make_trainer, tmp_path):
    """Within an epoch of two steps, where a Trainer takes a fourth."""
    make_trainer(**SAVING).train()
    trainer = make_trainer(**SAVING, lr_scheduler_type="constant")
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3
