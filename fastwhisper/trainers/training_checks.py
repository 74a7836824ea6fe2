"""Training arguments that no run can use, found before anything is loaded."""

import math
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.optimization import get_scheduler

from ..errors import InputError

_LARGE = 10**9
# The least and the most that each number may be; absent ones and None stand for what transformers does by itself.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), (1, 10**6)),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "save_total_limit"), (1, 10**6)),
    **dict.fromkeys(("generation_num_beams", "generation_max_length"), (1, 10**4)),
    **dict.fromkeys(("warmup_steps", "max_grad_norm", "weight_decay", "eval_delay"), (0, _LARGE)),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("adam_epsilon", "label_smoothing_factor"), (0, 1)),
    **dict.fromkeys(("learning_rate", "encoder_learning_rate"), (0, 1000)),
    "dataloader_num_workers": (0, 1024),
    "ddp_timeout": (1, _LARGE),
}
# Numbers of steps, or below 1 a share of them.
_INTERVALS = ("logging_steps", "save_steps", "eval_steps")
_CHECKPOINTING = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop")


def check_numbers(arguments: Seq2SeqTrainingArguments) -> None:
    """Check the numbers, as they were given.

    Raises:
        InputError: names the setting, its value and the bound.
    """
    for name, (least, most) in _RANGES.items():
        value = getattr(arguments, name, None)
        if value is None or least <= value <= most:
            continue
        bound = f"{least} or more" if value < least else f"at most {most}"
        raise InputError(f"{name} must be {bound}, not {value}")
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(arguments, name) < 1:
            raise InputError(f"{name}={getattr(arguments, name)} must be in [0, 1)")
    for name in _INTERVALS:
        value = getattr(arguments, name)
        if value is not None and not 0 < value <= _LARGE:
            raise InputError(f"{name}={value} must be above 0: steps, or below 1 a share of all steps")
    if arguments.max_steps != -1 and not 1 <= arguments.max_steps <= _LARGE:
        raise InputError(f"max_steps={arguments.max_steps} must be from 1 to {_LARGE}, or left out")
    epochs = arguments.num_train_epochs
    if not (math.isfinite(epochs) and 0 < epochs <= _LARGE):
        raise InputError(f"num_train_epochs={epochs} must be above 0")


def check_parts(arguments: Seq2SeqTrainingArguments) -> None:
    """Check what the optimiser, its schedule, checkpointing and reports are made of, once the arguments are settled.

    Raises:
        InputError: names the setting and what it may be.
    """
    for name in ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        value = getattr(arguments, name, None)
        if value is not None and not isinstance(value, dict):
            raise InputError(f"{name}={value!r:.60} must be a JSON object")
        unknown = sorted(set(value or {}) - set(_CHECKPOINTING)) if "checkpointing" in name else []
        if unknown:
            raise InputError(f"{name} has no {unknown[0]!r}; it has {', '.join(_CHECKPOINTING)}")
    _check_schedule(arguments)
    for pair in (arguments.optim_args or "").replace(" ", "").split(","):
        if pair and pair.count("=") != 1:
            raise InputError(f"optim_args={arguments.optim_args!r:.60} must be name=value, separated by commas")
    here = get_available_reporting_integrations()
    for name in arguments.report_to or []:
        if name not in here:
            raise InputError(
                f"report_to {name} is unknown or not installed; here there is {', '.join(here) or 'none'}"
            )


def _check_schedule(arguments: Seq2SeqTrainingArguments) -> None:
    settings: Any = arguments.lr_scheduler_kwargs
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            num_warmup_steps=0,
            num_training_steps=2,
            scheduler_specific_kwargs=dict(settings or {}),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"lr_scheduler_type {arguments.lr_scheduler_type}: {error}") from error
