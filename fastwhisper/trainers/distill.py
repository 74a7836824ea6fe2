"""`fastwhisper.distill`: turn a teacher and speech into a Hub-ready student."""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainerCallback, WhisperForConditionalGeneration, WhisperProcessor, set_seed
from transformers.trainer_utils import IntervalStrategy

from ..data.filtering import UsableRows, usable_rows
from ..data.joined_rows import join_rows
from ..data.label_encoding import LabelEncoder
from ..data.languages import language_code
from ..data.loading import DatasetSource, SpeechDataset, load_speech_dataset
from ..data.row_checks import RowCheck
from ..data.text_case import TEXT_CASES, warn_of_capitals, with_sentence_case
from ..errors import InputError, check_positive, check_probabilities
from ..evaluation.training_metrics import training_metrics
from ..files import held_folder, move_files
from ..hub_cards.callback import ModelCardCallback
from ..hub_cards.export import export_folder
from ..hub_cards.push import upload_folder_to_hub
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..transcription.checkpoints import DTYPES, load_checkpoint, load_whisper
from ..transcription.decoding import known_languages
from ..transcription.lazy_whisper import outline
from ..transcription.training_collator import training_collator
from .askd_arguments import ASKDTrainingArguments
from .askd_trainer import STATE_FILE, ASKDTrainer
from .distill_caches import CacheSettings, tell_before, told_after
from .stop_signals import StopAtSignal
from .training_bar import show_training_bar
from .true_length_rows import cutting
from .whole_checkpoints import STAGING, check_checkpoint, checkpoints, last_whole_checkpoint, written_whole

DECODER_LAYERS = 4
MOST_RANKS = 4096
SHUFFLED_ROWS = 256  # of a stream, in memory at a time


@dataclass(frozen=True)
class DistillReport:
    """What `distill` did.

    Args:
        folder (`Path`): the student, ready for the Hub.
        trainer (`ASKDTrainer`): the trainer, after training.
        url (`str`, *optional*): address of the commit, if the student was pushed.
        caches (`tuple[str, ...]`): a line for each cache, on what was computed for it and its size.
    """

    folder: Path
    trainer: ASKDTrainer
    url: str | None = None
    caches: tuple[str, ...] = ()


def _holding_its_folder(distill: Callable[..., DistillReport]) -> Callable[..., DistillReport]:
    """Let one run at a time write into an output folder: the processes of one launch."""

    @wraps(distill)
    def held(
        teacher: str, dataset: DatasetSource, training_arguments: ASKDTrainingArguments, **options: Any
    ) -> DistillReport:
        with held_folder(Path(str(training_arguments.output_dir)), training_arguments.distributed_state):
            return distill(teacher, dataset, training_arguments, **options)

    return held


@_holding_its_folder
def distill(
    teacher: str | os.PathLike,
    dataset: DatasetSource,
    training_arguments: ASKDTrainingArguments,
    *,
    dataset_config: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
    limit: int | None = None,
    streaming: bool = False,
    eval_dataset: DatasetSource | None = None,
    eval_dataset_config: str | None = None,
    eval_split: str | None = None,
    eval_limit: int | None = None,
    student: str | None = None,
    decoder_layers: int | None = None,
    encoder_layers: int | None = None,
    language: str | None = None,
    task: str = "transcribe",
    text_case: str = "as_is",
    timestamp_probability: float = 0.2,
    prompt_probability: float = 0.2,
    joined_probability: float = 0.0,
    lora_rank: int = 0,
    teacher_dtype: str = "float32",
    trust_remote_code: bool = False,
    on_bad_audio: str = "skip",
    num_proc: int | None = None,
    teacher_cache: str | os.PathLike | None = None,
    encoder_cache: str | os.PathLike | None = None,
    cache_dtype: str = "float16",
    callbacks: Sequence[TrainerCallback] = (),
) -> DistillReport:
    r"""Train a student with ASKD, and write it as a Hub-ready folder into `training_arguments.output_dir`.

    Evaluation runs every epoch unless `training_arguments.eval_strategy` says otherwise.

    Args:
        teacher (`str` or `os.PathLike`): Name on the Hub or folder of a Whisper.
        dataset (`DatasetSource`): Training data, as for [`load_speech_dataset`].
        training_arguments (`ASKDTrainingArguments`): Settings of the training.
        dataset_config, split, audio_column, text_column, limit, streaming (*optional*):
            As for [`load_speech_dataset`]; the columns also apply to the evaluation data.
        eval_dataset (`DatasetSource`, *optional*): Data for WER during training; with just `eval_split`, a split of
            `dataset`.
        eval_dataset_config, eval_split, eval_limit (*optional*): As for [`load_speech_dataset`].
        student (`str`, *optional*): Folder of a student to start from; by default one is built from the teacher.
        decoder_layers (`int`, *optional*): Decoder layers of a newly built student; 4 by default.
        encoder_layers (`int`, *optional*): Encoder layers of a newly built student; all by default.
        language (`str`, *optional*): Code or English name; a multilingual teacher needs it if the rows have no
            `language`.
        task (`str`, *optional*, defaults to `"transcribe"`): `transcribe` or `translate`.
        text_case (`str`, *optional*, defaults to `"as_is"`): `"sentence"` writes texts in capitals as sentences.
        timestamp_probability, prompt_probability (`float`, *optional*, defaults to 0.2): As for [`SpeechCollator`].
        joined_probability (`float`, *optional*, defaults to 0.0): Share of the rows that [`join_rows`] joins with
            others of the same speaker, up to the window.
        lora_rank (`int`, *optional*, defaults to 0): Train LoRA adapters of this rank, merged at the end; 0 trains
            all weights.
        teacher_dtype (`str`, *optional*, defaults to `"float32"`): Precision of the teacher.
        trust_remote_code (`bool`, *optional*, defaults to `False`): As for [`load_checkpoint`], for teacher and
            student.
        on_bad_audio (`str`, *optional*, defaults to `"skip"`): `"stop"` makes audio that is empty or cannot be decoded
            an error.
        num_proc (`int`, *optional*): Processes that check the rows; by default this one does.
        teacher_cache (`str` or `os.PathLike`, *optional*): Folder for the teacher's last decoder states: the teacher
            runs once for a row, whatever the epoch, the settings and the process, and never for a row that is there.
            With an `encoder_weight`, its encoder's states over the speech as well.
        encoder_cache (`str` or `os.PathLike`, *optional*): Folder for the output of the student's frozen encoder.
        cache_dtype (`str`, *optional*, defaults to `"float16"`): What both are kept in; in float32 a training is the
            one without caches.
        callbacks (`Sequence[TrainerCallback]`, *optional*): More callbacks of the Trainer.

    Returns:
        `DistillReport`

    Raises:
        InputError: before the first step, for a model, data or a setting that cannot be used, or for an output folder
            that another run is using; later, for a loss that is not finite and a checkpoint that cannot be written.
        Stopped: after SIGINT or SIGTERM, at a step, with a checkpoint.
    """
    language = language_code(language)
    checkpoint = _checkpoint(training_arguments)
    _settle(training_arguments, streaming=streaming, measured=eval_dataset is not None or eval_split is not None)
    _check_layers(student, decoder_layers, encoder_layers)
    if text_case not in TEXT_CASES:
        raise InputError(f"text_case={text_case!r} is not one of {', '.join(TEXT_CASES)}")
    check_probabilities(joined_probability=joined_probability)
    if joined_probability and streaming:
        raise InputError("--joined_probability needs all rows at once: drop it, or drop --streaming")
    numbers = {"decoder_layers": decoder_layers, "encoder_layers": encoder_layers, "num_proc": num_proc}
    check_positive(**{name: number for name, number in numbers.items() if number is not None})
    if not 0 <= lora_rank <= MOST_RANKS:
        raise InputError(f"lora_rank={lora_rank} must be from 0, which trains all weights, to {MOST_RANKS}")
    if teacher_dtype not in DTYPES:
        raise InputError(f"there is no dtype {teacher_dtype!r}; choose one of {', '.join(DTYPES)}")
    cache_settings = CacheSettings(teacher_cache, encoder_cache, cache_dtype)
    cache_settings.check(training_arguments)
    # Before anything is drawn: adapters start at random, and the Trainer sets its seed only after they are made.
    set_seed(training_arguments.seed)
    with training_arguments.main_process_first():
        # Weights that nothing is built from wait for a row that the cache lacks.
        if teacher_cache is not None and student is not None and not trust_remote_code:
            teacher_model, teacher_processor = outline(teacher)
        else:
            teacher_model, teacher_processor = load_checkpoint(teacher, "cpu", "float32", trust_remote_code)
        model, processor = _student(
            teacher_model,
            teacher_processor,
            student,
            decoder_layers or DECODER_LAYERS,
            encoder_layers,
            trust_remote_code,
        )
    teacher_model.to(dtype=DTYPES[teacher_dtype])  # type: ignore[call-arg]
    collator = training_collator(
        model,
        processor,
        language,
        task,
        timestamp_probability=timestamp_probability,
        prompt_probability=prompt_probability,
        seed=training_arguments.seed,
    )
    language = collator.language
    if language and known_languages(model.generation_config):
        model.generation_config.language = language  # type: ignore[attr-defined]
        model.generation_config.task = task  # type: ignore[attr-defined]

    check = RowCheck.for_training(processor, model.config.max_target_positions, language, task)

    def load(
        source: DatasetSource, config: str | None, split: str | None, limit: int | None, streaming: bool
    ) -> UsableRows:
        with training_arguments.main_process_first():
            rows = load_speech_dataset(
                source,
                dataset_config=config,
                split=split,
                audio_column=audio_column,
                text_column=text_column,
                streaming=streaming,
                limit=limit,
            )
        _check_language(model, rows, language, source)
        if text_case == "sentence":
            rows = with_sentence_case(rows)
        else:
            warn_of_capitals(rows)
        # Without a barrier between the processes, which would time out before hours of audio are checked: they wait
        # for each other at the cache.
        return usable_rows(rows, check, on_bad_audio, num_proc)

    usable = load(dataset, dataset_config, split, limit, streaming)
    rows: Any = usable.dataset
    seconds = usable.seconds
    if isinstance(rows, IterableDataset):
        # A Trainer shuffles rows that it can count, but takes a stream in order.
        rows = rows.shuffle(seed=training_arguments.seed, buffer_size=SHUFFLED_ROWS)
    elif joined_probability:
        encoder = LabelEncoder(processor.tokenizer, language, task)
        window, most_tokens = processor.feature_extractor.chunk_length, model.config.max_target_positions
        rows, seconds = join_rows(usable, encoder, window, most_tokens, joined_probability, training_arguments.seed)
    eval_rows = None
    if eval_dataset is not None:
        eval_rows = load(eval_dataset, eval_dataset_config, eval_split, eval_limit, False).dataset
    elif eval_split is not None:
        eval_rows = load(dataset, dataset_config, eval_split, eval_limit, False).dataset
    card = ModelCardCallback(
        teacher_model,
        datasets=_names(dataset),
        language=language,
        preparation={
            "text_case": text_case,
            "joined_probability": joined_probability,
            "timestamp_probability": timestamp_probability,
            "prompt_probability": prompt_probability,
        },
    )
    stop = StopAtSignal()
    trained = _with_lora(model, lora_rank, str(training_arguments.output_dir)) if lora_rank else model
    caches = cache_settings.open(teacher, teacher_dtype, teacher_model, trained, processor, trust_remote_code)
    trainer = ASKDTrainer(
        model=trained,
        teacher_model=None if caches.teacher else teacher_model,
        caches=caches,
        args=training_arguments,
        train_dataset=rows,
        train_seconds=seconds,
        eval_dataset=eval_rows,
        data_collator=collator,
        compute_metrics=training_metrics(processor, language) if eval_rows is not None else None,
        processing_class=processor,
        teacher_processing_class=teacher_processor,
        callbacks=[card, stop, *callbacks],
    )
    del teacher_model  # the caches may let go of it
    tell_before(caches, rows, cutting(collator, training_arguments), training_arguments.distributed_state)
    show_training_bar(trainer)
    with stop.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    folder, url, told = Path(str(training_arguments.output_dir)), None, told_after(caches)
    if trainer.is_world_process_zero():
        url = _write_student(trainer, processor, card, folder)
    return DistillReport(folder, trainer, url, told)


def _checkpoint(arguments: ASKDTrainingArguments) -> str | None:
    """The checkpoint to resume from; none for a new run, which must not mix its checkpoints with others."""
    asked = str(arguments.resume_from_checkpoint or "")
    folder = Path(str(arguments.output_dir))
    if asked.lower() in ("", "false", "none"):
        if checkpoints(folder):
            raise InputError(
                f"{folder} has checkpoints of another run: choose another --output_dir, remove them, or resume from "
                "them with --resume_from_checkpoint last"
            )
        return None
    if asked.lower() in ("last", "true"):
        return str(last_whole_checkpoint(folder, (STATE_FILE,)))
    check_checkpoint(Path(asked), (STATE_FILE,))
    return asked


def _settle(arguments: ASKDTrainingArguments, streaming: bool, measured: bool) -> None:
    """Set what follows from the data, and refuse what contradicts it."""
    if arguments.eval_strategy != IntervalStrategy.NO and not measured:
        strategy = IntervalStrategy(arguments.eval_strategy).value
        raise InputError(f"--eval_strategy {strategy} needs --eval_dataset or --eval_split")
    if measured:
        arguments.predict_with_generate = True
        if arguments.eval_strategy == IntervalStrategy.NO:
            arguments.eval_strategy = IntervalStrategy.EPOCH
    if streaming:
        if arguments.max_steps <= 0:
            raise InputError("--streaming needs --max_steps: the length of a stream is unknown")
        # Each process reads the stream and takes its own batches: batches of one process that sends them to the
        # others would have to be equally long.
        accelerator: Any = arguments.accelerator_config
        if accelerator.dispatch_batches is None:
            accelerator.dispatch_batches = False
    arguments.remove_unused_columns = False  # the collator reads the raw columns
    if arguments.device.type == "cpu":
        arguments.dataloader_pin_memory = False  # there is nothing to pin it for, and torch would warn


def _check_layers(student: str | None, decoder_layers: int | None, encoder_layers: int | None) -> None:
    for name, layers in (("decoder_layers", decoder_layers), ("encoder_layers", encoder_layers)):
        if student is not None and layers is not None:
            raise InputError(
                f"--{name} is only for a newly built student, and {student} already has its layers: drop one of them"
            )


def _student(
    teacher: WhisperForConditionalGeneration,
    teacher_processor: WhisperProcessor,
    folder: str | None,
    decoder_layers: int,
    encoder_layers: int | None,
    trust_remote_code: bool,
) -> tuple[FastWhisperForConditionalGeneration, WhisperProcessor]:
    """The student in full precision, and its processor."""
    if folder is not None:
        return load_whisper(
            folder, FastWhisperForConditionalGeneration, torch.float32, trust_remote_code=trust_remote_code
        )
    try:
        student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers, encoder_layers)
    except ValueError as error:
        raise InputError(str(error)) from error
    return student, teacher_processor


def _check_language(
    model: WhisperForConditionalGeneration, rows: SpeechDataset, language: str | None, source: DatasetSource
) -> None:
    """Refuse rows without a language for a model whose prompt starts with one.

    Without it the labels start without a language, while `generate` starts with the one that it detects.
    """
    if language is not None or not known_languages(model.generation_config):
        return
    columns = rows.column_names or list(next(iter(rows)))
    if "language" not in columns:
        raise InputError(
            f"the teacher is multilingual and {source if isinstance(source, str) else 'the dataset'} has no column "
            "'language': set --language, or label the data with fastwhisper label, which writes "
            "the language of each row"
        )


def _with_lora(student: WhisperForConditionalGeneration, rank: int, output: str) -> PeftModel:
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    # Checkpoints and their cards record it, and are passed on: no path of this machine.
    name = str(student.name_or_path)
    if os.path.isabs(name):
        student.name_or_path = student.config.name_or_path = os.path.relpath(name, output)
        # PEFT looks for the base from where the program runs, to see whether its vocabulary grew. It did not.
        warnings.filterwarnings("ignore", message="Could not find a config file in")
    return get_peft_model(student, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))  # type: ignore


def _names(dataset: DatasetSource) -> list[str]:
    return [os.fspath(dataset)] if isinstance(dataset, str | os.PathLike) else []


def _write_student(
    trainer: ASKDTrainer, processor: WhisperProcessor, card: ModelCardCallback, folder: Path
) -> str | None:
    """Write the student with its card, each file as a whole; returns the address of the commit if it is pushed."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    staging = folder / STAGING / "student"
    with written_whole("the student", folder):
        export_folder(model, processor, staging)
        card.write(staging)
        # A folder without config.json is no model yet.
        move_files(staging, folder, last="config.json")
    shutil.rmtree(folder / STAGING)
    settings = trainer.args
    if not settings.push_to_hub:
        return None
    # Not trainer.push_to_hub, which would save an adapter over the merged model.
    trainer._finish_current_push()
    return upload_folder_to_hub(folder, trainer.hub_model_id, revision=settings.hub_revision, token=settings.hub_token)
