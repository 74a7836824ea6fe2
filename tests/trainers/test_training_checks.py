"""Training arguments that no run can use are refused before anything is loaded, by name."""

import pytest

from fastwhisper import ASKDTrainingArguments
from fastwhisper.errors import InputError

REFUSED = [
    ("gradient_accumulation_steps", 0),
    ("gradient_accumulation_steps", -1),
    ("per_device_train_batch_size", 0),
    ("per_device_train_batch_size", 10**11),
    ("per_device_eval_batch_size", -1),
    ("max_steps", 0),
    ("max_steps", 10**20),
    ("num_train_epochs", -1.0),
    ("num_train_epochs", float("nan")),
    ("learning_rate", -1.0),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("warmup_steps", -1),
    ("warmup_steps", 1e30),
    ("save_steps", 0),
    ("logging_steps", -1),
    ("eval_steps", 0),
    ("max_grad_norm", -1.0),
    ("weight_decay", -1.0),
    ("adam_beta1", 2.0),
    ("adam_epsilon", -1.0),
    ("seed", -1),
    ("seed", 10**23),
    ("save_total_limit", -1),
    ("dataloader_num_workers", -1),
    ("generation_num_beams", 0),
    ("generation_max_length", -1),
    ("ddp_timeout", -1),
    ("temperature", float("inf")),
    ("optim_args", "x"),
    ("optim", "nonsense"),
    ("lr_scheduler_kwargs", {"x": 1}),
    ("lr_scheduler_kwargs", [1]),
    ("accelerator_config", {"x": 1}),
    ("activation_checkpointing_kwargs", {"x": 1}),
    ("report_to", "nonsense"),
    ("report_to", ["nonsense"]),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_no_run_can_use_is_refused(tmp_path, name, value):
    if name == "activation_checkpointing_kwargs" and name not in ASKDTrainingArguments.__dataclass_fields__:
        name = "gradient_checkpointing_kwargs"
    # An unknown name of a choice is transformers' own ValueError, which the command line shows in one line.
    with pytest.raises(ValueError if name == "optim" else InputError, match=r"nonsense|x" if name == "optim" else ""):
        ASKDTrainingArguments(str(tmp_path), use_cpu=True, **{name: value})


def test_a_report_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fastwhisper.trainers.training_checks.get_available_reporting_integrations", lambda: ["mlflow"]
    )
    with pytest.raises(InputError, match="report_to tensorboard is unknown or not installed; here there is mlflow"):
        ASKDTrainingArguments(str(tmp_path), use_cpu=True, report_to="tensorboard")


def test_usual_arguments_are_taken(tmp_path):
    ASKDTrainingArguments(
        str(tmp_path),
        use_cpu=True,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 1e-6},
        logging_steps=0.1,
        optim_args="a=1,b=2",
        report_to="none",
    )
