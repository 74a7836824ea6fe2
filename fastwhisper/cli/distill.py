"""`fastwhisper distill`: train a student with adaptive self-knowledge distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .arguments import Verb, given
from .shared_arguments import DataArguments, TrustArguments

if TYPE_CHECKING:
    from ..trainers.askd_arguments import ASKDTrainingArguments

NOTES = """\
Every field of transformers' Seq2SeqTrainingArguments is also a flag. The usual ones:
  --output_dir FOLDER                checkpoints and, at the end, the Hub-ready student
  --max_steps N, --num_train_epochs N
  --per_device_train_batch_size N, --gradient_accumulation_steps N
  --learning_rate X, --warmup_steps N, --lr_scheduler_type NAME
  --bf16 true, --activation_checkpointing true
  --eval_strategy steps, --eval_steps N, --save_steps N, --save_total_limit N
  --resume_from_checkpoint last      resume from the last checkpoint in --output_dir
  --report_to NAME, --seed N
  --push_to_hub true, --hub_model_id OWNER/NAME, --hub_private_repo true

On several processes or machines (on CPUs, use --multi_gpu as well):
  accelerate launch --multi_gpu --num_processes 2 -m fastwhisper distill ..."""


@dataclass
class DistillArguments:
    """Models."""

    teacher: str = field(metadata={"help": "name on the Hub or folder of the Whisper to learn from"})
    student: str | None = field(
        default=None,
        metadata={"help": "student to start from; by default one is built from the teacher", "metavar": "FOLDER"},
    )
    decoder_layers: int | None = field(
        default=None, metadata={"help": "decoder layers of a newly built student (default: 4)"}
    )
    encoder_layers: int | None = field(
        default=None, metadata={"help": "encoder layers of a newly built student (default: all)"}
    )
    lora_rank: int = field(
        default=0, metadata={"help": "train LoRA adapters of this rank, merged at the end; 0 trains all weights"}
    )
    teacher_dtype: str = field(
        default="float32",
        metadata={"help": "precision of the teacher: float32, float16 or bfloat16", "metavar": "DTYPE"},
    )


@dataclass
class TextArguments:
    """Text."""

    language: str | None = field(
        default=None,
        metadata={"help": "code or English name; without it, a multilingual teacher needs a column language"},
    )
    task: str = field(
        default="transcribe", metadata={"help": "transcribe, or translate into English", "metavar": "TASK"}
    )
    text_case: str = field(
        default="as_is",
        metadata={"help": "as_is; sentence writes texts in capitals as Whisper would", "metavar": "as_is|sentence"},
    )
    timestamp_probability: float = field(
        default=0.2, metadata={"help": "share of rows with timestamped_text to train with timestamps"}
    )
    prompt_probability: float = field(
        default=0.2, metadata={"help": "share of rows with previous_text to train with it as the prompt"}
    )
    joined_probability: float = field(
        default=0.0,
        metadata={"help": "share of rows to join with others of their speaker, up to 30 s, with times of segments"},
    )


@dataclass
class EvaluationDataArguments:
    """Evaluation during training."""

    eval_dataset: str | None = field(
        default=None, metadata={"help": "dataset to measure WER on; with just --eval_split, a split of --dataset"}
    )
    eval_dataset_config: str | None = field(
        default=None, metadata={"help": "configuration of --eval_dataset on the Hub"}
    )
    eval_split: str | None = field(default=None, metadata={"help": "split of the evaluation data"})
    eval_limit: int | None = field(default=None, metadata={"help": "use only its first N rows"})


@dataclass
class CacheArguments:
    """Caches."""

    teacher_cache: str | None = field(
        default=None,
        metadata={
            "help": "folder for the teacher's states of each row: it runs once a row, and never for one that is there",
            "metavar": "FOLDER",
        },
    )
    encoder_cache: str | None = field(
        default=None,
        metadata={"help": "folder for the output of the frozen encoder for each row", "metavar": "FOLDER"},
    )
    cache_dtype: str = field(
        default="float16",
        metadata={"help": "what both are kept in: float16, bfloat16, or float32", "metavar": "DTYPE"},
    )


def _verb(training: type) -> Verb:
    return Verb(
        "fastwhisper distill",
        "Distil a Whisper teacher into a student with fewer layers, on your own speech, with ASKD.",
        "fastwhisper distill --teacher openai/whisper-small --dataset labels --language en --max_steps 5000 "
        "--output_dir student",
        [
            *(DistillArguments, TrustArguments, DataArguments, TextArguments),
            *(EvaluationDataArguments, CacheArguments, training),
        ],
        notes=NOTES,
    )


def run(
    models: DistillArguments,
    trust: TrustArguments,
    data: DataArguments,
    text: TextArguments,
    evaluation: EvaluationDataArguments,
    caches: CacheArguments,
    training: "ASKDTrainingArguments",
) -> None:
    """Train a student and print where it was saved."""
    import logging

    from ..progress import quiet_transformers
    from ..trainers.distill import distill

    quiet_transformers()
    if not training.should_log:
        logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    groups = (models, trust, data, text, evaluation, caches)
    options = {name: value for group in groups for name, value in given(group).items()}
    report = distill(**options, training_arguments=training)
    if report.trainer.is_world_process_zero():
        for line in report.caches:
            print(line)
        print(f"student: {report.folder}")
        if report.url is not None:
            print(report.url)


def main(argv: Sequence[str]) -> None:
    if any(flag in argv for flag in ("-h", "--help")):
        from ..trainers.askd_settings import ASKDSettings

        _verb(ASKDSettings).print_help()
        return
    from ..trainers.askd_arguments import ASKDTrainingArguments

    _verb(ASKDTrainingArguments).run(argv, run)
