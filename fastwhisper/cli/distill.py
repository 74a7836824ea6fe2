"""`fastwhisper distill`: train a student with adaptive self-knowledge distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from ..data.loading import SpeechDataset
    from ..hub_cards.callback import ModelCardCallback
    from ..trainers.askd_arguments import ASKDTrainingArguments
    from ..trainers.askd_trainer import ASKDTrainer

SHUFFLED_ROWS = 256  # of a stream, in memory at a time

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
  --push_to_hub true, --hub_model_id OWNER/NAME, --hub_private_repo true

On several processes or machines: accelerate launch --multi_gpu --num_processes 2 -m fastwhisper distill ...
(--multi_gpu is right for CPUs too)
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

    Evaluation data is measured every epoch unless `training_arguments.eval_strategy` says when.

    Returns:
        The trainer, after training.

    Raises:
        InputError: for a model, data or a setting that cannot be used, before the first step.
    """
    import logging

    from ..data.collator import SpeechCollator
    from ..evaluation.training_metrics import training_metrics
    from ..hub_cards.callback import ModelCardCallback
    from ..progress import quiet_transformers
    from ..trainers.askd_trainer import ASKDTrainer
    from ..trainers.training_bar import show_training_bar

    quiet_transformers()
    checkpoint = _checkpoint(training_arguments)
    _settle(arguments, training_arguments)
    # Downloads come once to a machine, and warnings from one process.
    if not training_arguments.should_log:
        logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    with training_arguments.main_process_first():
        teacher, student, processor, teacher_processor = _load_models(arguments)
    dataset, eval_dataset = _load_data(arguments, processor, student.config.max_target_positions, training_arguments)
    card = ModelCardCallback(teacher, datasets=[arguments.dataset], language=arguments.language)
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
            max_target_positions=student.config.max_target_positions,
            seed=training_arguments.seed,
        ),
        compute_metrics=training_metrics(processor, arguments.language) if eval_dataset is not None else None,
        processing_class=processor,
        teacher_processing_class=teacher_processor,
        callbacks=[card],
    )
    show_training_bar(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        _write_student(trainer, processor, card)
    return trainer


def _checkpoint(training_arguments: "ASKDTrainingArguments") -> str | None:
    """The checkpoint to go on from; none for a run of its own, which may not mix its checkpoints with others."""
    from transformers.trainer_utils import get_last_checkpoint

    from ..errors import InputError

    asked = str(training_arguments.resume_from_checkpoint or "")
    folder = str(training_arguments.output_dir)
    last = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    if asked.lower() in ("", "false", "none"):
        if last is not None:
            raise InputError(
                f"{folder} has checkpoints of another run: choose another --output_dir, remove them, or go on from "
                "them with --resume_from_checkpoint last"
            )
        return None
    if asked.lower() in ("last", "true"):
        if last is None:
            raise InputError(f"there is no checkpoint in {folder} to resume from")
        return last
    if not Path(asked, "trainer_state.json").is_file():
        raise InputError(f"{asked} is no checkpoint of a run: it has no trainer_state.json")
    return asked


def _settle(arguments: DistillArguments, training_arguments: "ASKDTrainingArguments") -> None:
    """Set what follows from the data, and refuse what contradicts it."""
    from transformers.trainer_utils import IntervalStrategy

    from ..errors import InputError

    measured = bool(arguments.eval_dataset or arguments.eval_split)
    if training_arguments.eval_strategy != IntervalStrategy.NO and not measured:
        raise InputError(
            f"--eval_strategy {IntervalStrategy(training_arguments.eval_strategy).value} needs --eval_dataset or "
            "--eval_split"
        )
    if measured:
        training_arguments.predict_with_generate = True
        if training_arguments.eval_strategy == IntervalStrategy.NO:
            training_arguments.eval_strategy = IntervalStrategy.EPOCH
    if arguments.streaming:
        if training_arguments.max_steps <= 0:
            raise InputError("--streaming needs --max_steps: nobody knows how long a stream is")
        # Each process reads the stream and takes its own batches: batches of one process that sends them to the
        # others would have to be equally long.
        accelerator: Any = training_arguments.accelerator_config
        if accelerator.dispatch_batches is None:
            accelerator.dispatch_batches = False
    training_arguments.remove_unused_columns = False  # the collator reads the raw columns


def _load_models(
    arguments: DistillArguments,
) -> tuple[
    "WhisperForConditionalGeneration", "WhisperForConditionalGeneration", "WhisperProcessor", "WhisperProcessor"
]:
    """Teacher, student, and the processor of each."""
    import torch

    from ..errors import InputError
    from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
    from ..transcription.checkpoints import DTYPES, load_checkpoint, load_processor

    if arguments.teacher_dtype not in DTYPES:
        raise InputError(f"there is no dtype {arguments.teacher_dtype!r}; choose one of {', '.join(DTYPES)}")
    # In full precision, since the student starts from its weights.
    teacher, teacher_processor = load_checkpoint(arguments.teacher, "cpu", "float32")
    if arguments.student:
        processor = load_processor(arguments.student)
        student = FastWhisperForConditionalGeneration.from_pretrained(arguments.student, dtype=torch.float32)
    else:
        processor = teacher_processor
        student = FastWhisperForConditionalGeneration.from_teacher(
            teacher, arguments.decoder_layers, arguments.encoder_layers
        )
    if arguments.language and getattr(student.generation_config, "is_multilingual", False):
        student.generation_config.language = arguments.language  # type: ignore[attr-defined]
        student.generation_config.task = arguments.task  # type: ignore[attr-defined]
    teacher.to(dtype=DTYPES[arguments.teacher_dtype])  # type: ignore[call-arg]
    return teacher, student, processor, teacher_processor


def _load_data(
    arguments: DistillArguments,
    processor: "WhisperProcessor",
    max_target_positions: int,
    training_arguments: "ASKDTrainingArguments",
) -> "tuple[SpeechDataset, SpeechDataset | None]":
    """Training data and evaluation data without the rows that cannot be used."""
    from datasets import IterableDataset

    from ..data.filtering import drop_unusable_rows
    from ..data.loading import load_speech_dataset

    def load(source: str, name: str | None, split: str | None, limit: int | None, streaming: bool) -> "SpeechDataset":
        with training_arguments.main_process_first():
            dataset = load_speech_dataset(
                source,
                name=name,
                split=split,
                audio_column=arguments.audio_column,
                text_column=arguments.text_column,
                streaming=streaming,
                limit=limit,
            )
        return drop_unusable_rows(
            dataset, processor, max_target_positions, language=arguments.language, task=arguments.task
        )

    dataset = load(arguments.dataset, arguments.dataset_name, arguments.split, arguments.limit, arguments.streaming)
    if isinstance(dataset, IterableDataset):
        # A Trainer shuffles rows that it can count, and takes a stream as it comes.
        dataset = dataset.shuffle(seed=training_arguments.seed, buffer_size=SHUFFLED_ROWS)
    eval_dataset = None
    if arguments.eval_dataset:
        eval_dataset = load(arguments.eval_dataset, None, arguments.eval_split, arguments.eval_limit, False)
    elif arguments.eval_split:
        name = arguments.dataset_name
        eval_dataset = load(arguments.dataset, name, arguments.eval_split, arguments.eval_limit, False)
    return dataset, eval_dataset


def _with_lora(student: "WhisperForConditionalGeneration", rank: int):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    return get_peft_model(student, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))


def _write_student(trainer: "ASKDTrainer", processor: "WhisperProcessor", card: "ModelCardCallback") -> None:
    from peft import PeftModel

    from ..hub_cards.export import export_folder
    from ..hub_cards.push import upload_folder_to_hub

    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    folder = export_folder(model, processor, str(trainer.args.output_dir))
    card.write(folder)
    print(f"student: {folder}")
    if trainer.args.push_to_hub:
        # Not trainer.push_to_hub, which would save an adapter over the merged model.
        trainer._finish_current_push()
        settings = trainer.args
        print(
            upload_folder_to_hub(
                folder, trainer.hub_model_id, revision=settings.hub_revision, token=settings.hub_token
            )
        )


def main(argv: Sequence[str]) -> None:
    from ..trainers.askd_settings import ASKDOptions
    from .arguments import parse_arguments, print_help

    program = "fastwhisper distill"
    if any(flag in argv for flag in ("-h", "--help")):
        print_help(program, DESCRIPTION, [DistillArguments, ASKDOptions], None, EPILOG)
        return
    from ..trainers.askd_arguments import ASKDTrainingArguments

    distill(*parse_arguments(program, argv, [DistillArguments, ASKDTrainingArguments]))
