"""`fastwhisper distill`: train a student with adaptive self-knowledge distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from ..trainers.askd_config import ASKDTrainingArguments
    from ..trainers.askd_trainer import ASKDTrainer

DESCRIPTION = "Distil a Whisper teacher into a student of fewer layers on your own speech, with ASKD."
EPILOG = """\
Every field of transformers' Seq2SeqTrainingArguments is a flag as well. The usual ones:
  --output_dir DIR                   checkpoints, and in the end the Hub-ready student
  --max_steps N, --num_train_epochs N
  --per_device_train_batch_size N, --gradient_accumulation_steps N
  --learning_rate X, --warmup_steps N, --lr_scheduler_type NAME
  --bf16 true, --activation_checkpointing true
  --eval_strategy steps, --eval_steps N, --save_steps N, --save_total_limit N
  --resume_from_checkpoint last      go on from the last checkpoint in --output_dir
  --report_to NAME, --seed N

On several processes or machines: accelerate launch -m fastwhisper distill ...
"""


@dataclass
class DistillArguments:
    """Teacher, student and data; how it is trained is up to the other flags."""

    teacher: str = field(metadata={"help": "name or folder of the Whisper to learn from"})
    dataset: str = field(
        metadata={"help": "training data: a name on the Hub, or a folder with metadata.csv, .tsv or .jsonl"}
    )
    dataset_name: str | None = field(default=None, metadata={"help": "configuration of the training data"})
    split: str | None = field(default=None, metadata={"help": "split of the training data"})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "data for WER during training; --eval_split alone takes it from --dataset"}
    )
    eval_split: str | None = field(default=None, metadata={"help": "split of the evaluation data"})
    eval_limit: int | None = field(default=None, metadata={"help": "only the first rows of the evaluation data"})
    limit: int | None = field(default=None, metadata={"help": "only the first rows of the training data"})
    audio_column: str = field(default="audio", metadata={"help": "column of the audio"})
    text_column: str = field(default="text", metadata={"help": "column of the text, or of the pseudo-labels"})
    streaming: bool = field(default=False, metadata={"help": "read the training data as it comes (with --max_steps)"})
    student: str | None = field(
        default=None, metadata={"help": "folder of a student to start from; else one is built from the teacher"}
    )
    decoder_layers: int = field(default=4, metadata={"help": "decoder layers of the student that is built"})
    encoder_layers: int | None = field(
        default=None, metadata={"help": "encoder layers of the student that is built; all by default"}
    )
    language: str | None = field(default=None, metadata={"help": "language of the data, code or English name"})
    task: str = field(default="transcribe", metadata={"help": "transcribe or translate"})
    timestamp_probability: float = field(
        default=0.2, metadata={"help": "share of rows with timestamped_text that are trained with timestamps"}
    )
    prompt_probability: float = field(
        default=0.2, metadata={"help": "share of rows with previous_text that are trained with it as a prompt"}
    )
    lora_rank: int = field(default=0, metadata={"help": "train LoRA adapters of this rank, merged in the end; 0: all"})
    teacher_dtype: str = field(
        default="float32", metadata={"help": "float32, float16 or bfloat16: precision the teacher is held in"}
    )


def distill(arguments: DistillArguments, training_arguments: "ASKDTrainingArguments") -> "ASKDTrainer":
    """Train, and write the student as a Hub-ready folder into `training_arguments.output_dir`.

    Returns:
        The trainer, after training.

    Raises:
        InputError: for a model, data or a setting that cannot be used, before the first step.
    """
    from ..data.collator import SpeechCollator
    from ..data.filtering import drop_unusable_rows
    from ..data.loading import load_speech_dataset
    from ..evaluation.training_metrics import training_metrics
    from ..hub_cards.callback import FastWhisperCardCallback
    from ..trainers.askd_trainer import ASKDTrainer
    from ..trainers.progress import show_training_bar

    teacher, student, processor, teacher_processor = _load_models(arguments)
    columns = {"audio_column": arguments.audio_column, "text_column": arguments.text_column}
    limits = {"language": arguments.language, "task": arguments.task}
    max_target_positions = student.config.max_target_positions
    dataset = load_speech_dataset(
        arguments.dataset, name=arguments.dataset_name, split=arguments.split, streaming=arguments.streaming,
        limit=arguments.limit, **columns,
    )  # fmt: skip
    dataset = drop_unusable_rows(dataset, processor, max_target_positions, **limits)
    eval_dataset = None
    if arguments.eval_dataset or arguments.eval_split:
        eval_dataset = load_speech_dataset(
            arguments.eval_dataset or arguments.dataset,
            name=None if arguments.eval_dataset else arguments.dataset_name,
            split=arguments.eval_split, limit=arguments.eval_limit, **columns,
        )  # fmt: skip
        eval_dataset = drop_unusable_rows(eval_dataset, processor, max_target_positions, **limits)
        training_arguments.predict_with_generate = True
    training_arguments.remove_unused_columns = False  # the collator reads the raw columns
    card = FastWhisperCardCallback(teacher, datasets=[arguments.dataset], language=arguments.language)
    trainer = ASKDTrainer(
        model=_with_lora(student, arguments.lora_rank) if arguments.lora_rank else student,
        teacher_model=teacher,
        args=training_arguments,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=SpeechCollator(
            processor,
            language=arguments.language,
            task=arguments.task,
            timestamp_probability=arguments.timestamp_probability,
            prompt_probability=arguments.prompt_probability,
            max_target_positions=max_target_positions,
            seed=training_arguments.seed,
        ),
        compute_metrics=training_metrics(processor, arguments.language) if eval_dataset is not None else None,
        processing_class=processor,
        teacher_processing_class=teacher_processor,
        callbacks=[card],
    )
    show_training_bar(trainer)
    trainer.train(resume_from_checkpoint=_checkpoint(training_arguments))
    _write_student(trainer, processor, card, Path(training_arguments.output_dir))
    return trainer


def _load_models(
    arguments: DistillArguments,
) -> tuple[
    "WhisperForConditionalGeneration", "WhisperForConditionalGeneration", "WhisperProcessor", "WhisperProcessor"
]:
    import torch

    from ..evaluation.checkpoints import load_checkpoint
    from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration

    teacher, teacher_processor = load_checkpoint(arguments.teacher, "cpu", arguments.teacher_dtype)
    if arguments.student:
        _, processor = load_checkpoint(arguments.student, "cpu")
        student = FastWhisperForConditionalGeneration.from_pretrained(arguments.student, dtype=torch.float32)
    else:
        processor = teacher_processor
        student = FastWhisperForConditionalGeneration.from_teacher(
            teacher, arguments.decoder_layers, arguments.encoder_layers
        ).float()
    if arguments.language and getattr(student.generation_config, "is_multilingual", False):
        student.generation_config.language = arguments.language
        student.generation_config.task = arguments.task
    return teacher, student, processor, teacher_processor


def _with_lora(student: "WhisperForConditionalGeneration", rank: int):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    return get_peft_model(student, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))


def _checkpoint(training_arguments: "ASKDTrainingArguments") -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    from ..errors import InputError

    asked = training_arguments.resume_from_checkpoint
    if asked is None or str(asked).lower() in ("false", "none"):
        return None
    if str(asked).lower() not in ("last", "true"):
        return str(asked)
    folder = str(training_arguments.output_dir)
    checkpoint = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    if checkpoint is None:
        raise InputError(f"there is no checkpoint in {folder} to resume from")
    return checkpoint


def _write_student(trainer: "ASKDTrainer", processor: "WhisperProcessor", card, folder: Path) -> None:
    from peft import PeftModel

    from ..hub_cards.export import export_folder

    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if trainer.is_world_process_zero():
        export_folder(model, processor, folder)
        card.write(folder)
        print(f"student: {folder}")


def main(argv: Sequence[str]) -> None:
    from ..trainers.askd_options import ASKDOptions
    from .arguments import parse_arguments, print_help

    program = "fastwhisper distill"
    if any(flag in argv for flag in ("-h", "--help")):
        print_help(program, DESCRIPTION, [DistillArguments, ASKDOptions], None, EPILOG)
        return
    from ..trainers.askd_config import ASKDTrainingArguments

    distill(*parse_arguments(program, argv, [DistillArguments, ASKDTrainingArguments]))
