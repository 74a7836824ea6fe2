"""What is refused before anything runs: settings that the models, the collator or each other contradict."""

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.collator import SpeechCollator
from ..errors import InputError
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from .askd_arguments import ASKDTrainingArguments, check_way_of_running
from .askd_teachers import encoder_is_frozen, is_compiled, whisper_of


def check_models(
    model: nn.Module,
    teacher_model: PreTrainedModel | None,
    args: ASKDTrainingArguments,
    has_teacher_cache: bool = False,
) -> None:
    """Check what does not depend on which weights are frozen.

    Raises:
        InputError: for a missing teacher or two, label smoothing, compiled models, an adapted output layer, several
            GPUs.
    """
    if teacher_model is not None and has_teacher_cache:
        raise InputError("give teacher_model or a cache of the teacher's states, which runs the teacher itself")
    if args.teacher_weight > 0.0 and teacher_model is None and not has_teacher_cache:
        raise InputError(f"teacher_weight={args.teacher_weight} needs a teacher_model; set it to 0 to go without")
    if args.label_smoothing_factor:
        raise InputError("label_smoothing_factor is not part of the ASKD loss: set it to 0")
    check_way_of_running(args)
    for name, checked in (("student", model), ("teacher", teacher_model)):
        if checked is not None and is_compiled(checked):
            raise InputError(f"ASKD is not tested with a compiled {name}: give the model as it was before compile()")
    if args.n_gpu > 1:
        raise InputError(f"{args.n_gpu} GPUs in one process: start with `accelerate launch`, one process a GPU")
    if not isinstance(whisper_of(model).get_output_embeddings(), nn.Linear):
        raise InputError("the student's output layer proj_out must be a plain layer: leave it out of the adapters")


def check_true_length(model: nn.Module, args: ASKDTrainingArguments, collator: Any) -> None:
    """Check that a student can be trained at the length that the settings say.

    Raises:
        InputError: for a student that has no true length or has it already, an encoder that cannot learn it, a
            collator that does not cut, and another order of the rows.
    """
    whisper = whisper_of(model)
    has_true_length = isinstance(whisper, FastWhisperForConditionalGeneration) and bool(whisper.config.true_length)
    if has_true_length and not args.true_length:
        raise InputError(
            "the student was trained at true length, and would lose it: set true_length, or config.true_length of the "
            "student to False"
        )
    if args.encoder_weight > 0.0 and not isinstance(collator, SpeechCollator):
        raise InputError("encoder_weight needs to know where the speech ends: give a SpeechCollator as data_collator")
    if not args.true_length:
        return
    if not isinstance(whisper, FastWhisperForConditionalGeneration):
        raise InputError(
            f"true_length needs a student that is a FastWhisperForConditionalGeneration, not {type(whisper).__name__}"
        )
    if encoder_is_frozen(model) and not has_true_length:
        raise InputError(
            "true_length with a frozen encoder: it has only ever heard padded windows, and must learn; set "
            "freeze_encoder to false"
        )
    if not isinstance(collator, SpeechCollator):
        raise InputError("true_length needs a SpeechCollator as data_collator, which cuts the features")
    if args.train_sampling_strategy != "random":
        raise InputError(
            f"true_length orders the rows by itself: leave out train_sampling_strategy={args.train_sampling_strategy}"
        )


def check_encoder_settings(model: nn.Module, teacher: PreTrainedConfig | None, args: ASKDTrainingArguments) -> None:
    """Check `encoder_weight` and `encoder_learning_rate`.

    Raises:
        InputError: for a frozen encoder, a missing teacher, or one whose encoder has another hidden size.
    """
    for name in ("encoder_weight", "encoder_learning_rate"):
        value = getattr(args, name)
        if value and encoder_is_frozen(model):
            raise InputError(f"{name}={value} changes nothing on a frozen encoder: set freeze_encoder to false")
    if args.encoder_weight == 0.0:
        return
    if teacher is None:
        raise InputError(f"encoder_weight={args.encoder_weight} needs a teacher_model; set it to 0 to go without")
    mine, its = whisper_of(model).config.d_model, teacher.d_model
    if mine != its:
        raise InputError(
            f"encoder_weight compares encoder states, and their hidden sizes differ: {its} (teacher) against {mine} "
            "(student); set it to 0"
        )
