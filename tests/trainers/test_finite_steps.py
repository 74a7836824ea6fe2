"""Training that leaves the finite numbers ends, says which rows it was given, and saves nothing more."""

import math

import pytest
import torch
from transformers import TrainerCallback

from fastwhisper import ASKDTrainingArguments
from fastwhisper.errors import InputError

from .conftest import make_rows
from .test_askd_processes import run as run_program

SAVING = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2, "max_steps": 4}
SAVING["remove_unused_columns"] = False  # which takes the audio away


def named_rows(count, vocab_size):
    return [{**row, "audio": {"path": f"{index}.wav"}} for index, row in enumerate(make_rows(count, vocab_size))]


def saved(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_row_that_overflows_ends_the_training_by_name(make_trainer, demo_tokenizer, tmp_path, value, accumulation):
    rows = named_rows(8, len(demo_tokenizer))
    rows[5]["input_features"][3, 50] = value
    trainer = make_trainer(
        dataset=rows, **SAVING, gradient_accumulation_steps=accumulation, freeze_encoder=False, teacher_decay_end=0.1
    )
    with pytest.raises(InputError, match=r"step [1-4] is not finite; its rows: .*5\.wav") as raised:
        trainer.train()
    step = int(str(raised.value).split("step ")[1][0])
    said = str(raised.value).split("its rows: ")[1].split(". Nothing")[0].split(", ")
    assert len(said) == 2, "the rows of the other batches of the step are not to blame"
    assert saved(tmp_path / "run") == [f"checkpoint-{number}" for number in range(1, step)] or step == 1
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


def test_without_names_the_step_is_named(make_trainer, demo_tokenizer):
    rows = make_rows(2, len(demo_tokenizer))
    rows[1]["input_features"][3, 50] = math.nan
    with pytest.raises(InputError, match="the loss of step 1 is not finite. Nothing of it was saved"):
        make_trainer(dataset=rows, **SAVING).train()


class Break(TrainerCallback):
    """Changes a tensor of the model at one event of a step."""

    def __init__(self, event, step, change):
        def act(args, state, control, model=None, **kwargs):
            if state.global_step == step:
                change(next(weight for weight in model.parameters() if weight.requires_grad))

        setattr(self, event, act)


def test_a_gradient_that_is_not_finite(make_trainer, monkeypatch, tmp_path, demo_tokenizer):
    def spoil(weight):
        weight.register_hook(lambda gradient: gradient * math.nan)

    trainer = make_trainer(
        dataset=named_rows(8, len(demo_tokenizer)), **SAVING, callbacks=[Break("on_step_begin", 1, spoil)]
    )
    with pytest.raises(InputError, match="the gradient of step 2 is not finite; its rows: .*wav"):
        trainer.train()
    assert saved(tmp_path / "run") == ["checkpoint-1"]


@pytest.mark.parametrize("steps", [2, 3])
def test_weights_that_are_not_finite_are_never_saved(make_trainer, tmp_path, steps):
    """After the step before a checkpoint, and after the last one."""

    def spoil(weight):
        weight.data[0] = math.inf

    settings = {**SAVING, "max_steps": steps, "save_steps": 2 if steps == 2 else 5, "save_strategy": "steps"}
    if steps == 3:
        settings["save_strategy"] = "no"
    trainer = make_trainer(**settings, callbacks=[Break("on_step_end", steps, spoil)])
    with pytest.raises(InputError, match=f"the weights after step {steps} are not finite"):
        trainer.train()
    assert not list((tmp_path / "run").glob("checkpoint-*"))


class Scaler:
    """A gradient scaler that has come down to `scale`."""

    def __init__(self, scale):
        self.get_scale = lambda: scale


def test_under_a_gradient_scaler_gradients_may_overflow_until_its_scale_is_used_up(make_trainer, demo_tokenizer):
    trainer = make_trainer(dataset=named_rows(4, len(demo_tokenizer)))
    weight = torch.nn.Linear(1, 1)
    weight.weight.grad = torch.full((1, 1), math.inf)
    check = trainer._finite_steps
    check.note(torch.tensor(1.0), ["a.wav"])
    with pytest.raises(InputError, match="the gradient of step 1 .*a.wav"):
        check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control, model=weight)
    trainer.accelerator.scaler = Scaler(65536.0)
    check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control, model=weight)
    trainer.accelerator.scaler = Scaler(0.5)
    with pytest.raises(InputError, match="the gradient of step 1"):
        check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control, model=weight)
    check.note(torch.tensor(math.nan), ["b.wav"])
    trainer.accelerator.scaler = Scaler(65536.0)
    with pytest.raises(InputError, match="the loss of step 1 is not finite; its rows: b.wav"):
        check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control, model=weight)


def test_on_two_processes_both_say_the_rows_of_the_one(tmp_path):
    with pytest.raises(AssertionError) as raised:
        run_program(tmp_path / "run", processes=2, rows=8, spoiled_row=5, **SAVING)
    said = [line for line in str(raised.value).splitlines() if "InputError: the loss of step" in line]
    assert len({line.partition("InputError")[2] for line in said}) == 1 and "row-5.wav" in said[0]
    names = saved(tmp_path / "run" / "run") if (tmp_path / "run" / "run").exists() else []
    step = int(said[0].split("of step ")[1][0])
    assert names == [f"checkpoint-{number}" for number in range(1, step)]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("learning_rate", math.inf, "learning_rate must be a finite number, not inf"),
        ("learning_rate", math.nan, "learning_rate must be a finite number, not nan"),
        ("learning_rate", -1.0, "learning_rate must be 0 or more, not -1.0"),
        ("weight_decay", math.nan, "weight_decay must be a finite number"),
        ("weight_decay", -0.1, "weight_decay must be 0 or more"),
        ("max_grad_norm", math.inf, "max_grad_norm must be a finite number"),
        ("adam_beta2", 1.0, r"adam_beta2=1.0 must be in \[0, 1\)"),
        ("adam_epsilon", -1e-8, "adam_epsilon must be 0 or more"),
        ("num_train_epochs", math.inf, "num_train_epochs must be a finite number"),
        ("temperature", math.inf, "temperature must be a finite number"),
        ("teacher_weight", math.nan, "teacher_weight must be a finite number"),
    ],
)
def test_settings_that_are_no_numbers_are_refused(tmp_path, setting, value, said):
    with pytest.raises(InputError, match=said):
        ASKDTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **{setting: value})
