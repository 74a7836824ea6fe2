"""What the ASKD trainer does with models: compare teacher and student, take hidden states, keep a self-teacher."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import is_compiled_module
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from ..errors import InputError
from .askd_loss import Predictions


def whisper_of(model: nn.Module) -> WhisperForConditionalGeneration:
    """The Whisper itself, unwrapped from PEFT if needed."""
    return cast(WhisperForConditionalGeneration, model.get_base_model() if isinstance(model, PeftModel) else model)


def is_compiled(model: nn.Module) -> bool:
    """Whether calling the model goes through torch.compile: `torch.compile(model)`, or `model.compile()`."""
    return any(is_compiled_module(part) or part._compiled_call_impl is not None for part in (model, whisper_of(model)))


def check_teacher(
    student: WhisperConfig,
    teacher: PreTrainedConfig,
    processor: ProcessorMixin | None,
    teacher_processor: ProcessorMixin | None,
) -> None:
    """Refuse a teacher whose inputs or outputs differ from the student's, by their configs and processors.

    Raises:
        InputError: names every difference: vocabulary, mel bins, window, start and pad token, sampling rate.
    """
    fields = ("vocab_size", "num_mel_bins", "max_source_positions", "decoder_start_token_id", "pad_token_id")
    differences = [
        f"{field} {getattr(teacher, field, None)} (teacher) against {getattr(student, field)} (student)"
        for field in fields
        if getattr(teacher, field, None) != getattr(student, field)
    ]
    if processor is not None and teacher_processor is not None:
        mine, its = processor.feature_extractor, teacher_processor.feature_extractor
        differences += [
            f"{field} {getattr(its, field)} (teacher) against {getattr(mine, field)} (student)"
            for field in ("sampling_rate", "feature_size", "hop_length", "n_fft")
            if getattr(its, field) != getattr(mine, field)
        ]
        if processor.tokenizer.get_vocab() != teacher_processor.tokenizer.get_vocab():
            differences.append("the tokenizers give different ids")
    if differences:
        raise InputError(f"this teacher cannot teach this student: {'; '.join(differences)}")


def encoder_is_frozen(student: nn.Module) -> bool:
    """Whether the student's encoder is frozen entirely."""
    return not any(parameter.requires_grad for parameter in whisper_of(student).model.encoder.parameters())


def shares_encoder(student: nn.Module, teacher: PreTrainedModel) -> bool:
    """Whether the student's encoder computes what the teacher's does: frozen, with equal weights.

    LoRA matrices on a frozen encoder change nothing while their second factor is zero.
    """
    if not encoder_is_frozen(student):
        return False
    weights = frozen_encoder_weights(student)
    its = teacher.model.encoder.state_dict()
    return weights.keys() == its.keys() and all(
        weights[name].shape == its[name].shape
        and torch.equal(weights[name].to(its[name].dtype), its[name].to(weights[name].device))
        for name in its
    )


def frozen_encoder_weights(student: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a frozen encoder by their names, without adapters that change nothing."""
    encoder = whisper_of(student).model.encoder
    weights = {name.replace(".base_layer.", "."): weight for name, weight in encoder.state_dict().items()}
    adapters = [name for name in weights if ".lora_" in name]
    if not any(".lora_B." in name and torch.any(weights[name] != 0) for name in adapters):
        for name in adapters:
            del weights[name]
    return weights


@contextlib.contextmanager
def projection_skipped(model: nn.Module) -> Iterator[None]:
    """Inside the context, `model(...)` returns its last hidden states as `logits`.

    The call still goes through whatever wraps the model (DistributedDataParallel, autocast), which calling only the
    decoder would bypass, and the output layer is left to the chunked loss.
    """
    projection = whisper_of(model).get_output_embeddings()
    projection.forward = lambda hidden_states: hidden_states
    try:
        yield
    finally:
        del projection.forward


def predict(call: nn.Module, model: nn.Module, inputs: dict[str, Any], targets: torch.Tensor) -> Predictions:
    """Hidden states of the unmasked target tokens, and the output layer's weight; arguments as below."""
    return predict_with_states(call, model, inputs, targets)[0]


def predict_with_states(
    call: nn.Module, model: nn.Module, inputs: dict[str, Any], targets: torch.Tensor
) -> tuple[Predictions, torch.Tensor]:
    """As `predict`, with the encoder's states `(batch, positions, hidden)`.

    Args:
        call (`nn.Module`): what to call: `model`, or a wrapper around it.
        model (`nn.Module`): the model.
        inputs (`dict`): inputs of its forward.
        targets (`torch.Tensor`): `(batch, tokens)`, true where the label is not masked.
    """
    with projection_skipped(model):
        outputs = call(**inputs, use_cache=False)
    projection = whisper_of(model).get_output_embeddings().weight
    return Predictions(outputs.logits[targets], projection), outputs.encoder_last_hidden_state


class SelfTeacher:
    """A frozen earlier state of the student: it has its own copy of the trainable weights and shares the frozen ones.

    Args:
        student (`nn.Module`): the model in training, in its current state.
    """

    def __init__(self, student: nn.Module) -> None:
        shared = {id(parameter): parameter for parameter in student.parameters() if not parameter.requires_grad}
        self.model = copy.deepcopy(student, memo=shared).eval()
        self._names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, decay: float) -> None:
        """Move the weights to `decay * own + (1 - decay) * student`; a decay of 0 is a new snapshot."""
        mine, its = dict(self.model.named_parameters()), dict(student.named_parameters())
        for name in self._names:
            mine[name].lerp_(its[name].detach(), 1.0 - decay)

    def save(self, path: Path) -> None:
        """Write its own weights as safetensors."""
        mine = dict(self.model.named_parameters())
        save_file({name: mine[name].detach().cpu().contiguous() for name in self._names}, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Read what `save` wrote.

        Raises:
            InputError: if the file's weights are not those that the student trains.
        """
        weights = load_file(path)
        if weights.keys() != set(self._names):
            raise InputError(
                f"{path} belongs to another student: it has {len(weights)} weights, this one trains {len(self._names)}"
            )
        mine = dict(self.model.named_parameters())
        for name, weight in weights.items():
            mine[name].copy_(weight)
