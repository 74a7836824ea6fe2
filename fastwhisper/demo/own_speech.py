"""The demo on any Whisper and one's own speech: the same training, measurement and folder."""

from collections.abc import Callable
from pathlib import Path

from datasets import Dataset

from ..data.audio import load_audio
from ..data.filtering import usable_rows
from ..data.languages import language_code
from ..data.loading import load_speech_dataset
from ..data.row_checks import RowCheck
from ..data.text_case import in_capitals
from ..errors import InputError, check_positive
from ..hub_cards.folder_records import RUN_FILE, public_name, read_run, write_record
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..trainers.askd_arguments import ASKDTrainingArguments
from ..trainers.distill import distill
from ..transcription.checkpoints import display_name, load_checkpoint
from ..transcription.decoding import check_prompt, spoken_language
from ..transcription.training_collator import training_collator
from .estimate import row_costs
from .recipes import (
    BATCH_SIZE,
    ENCODER_LEARNING_RATE,
    FULL_LENGTH_PROBABILITY,
    JOINED_PROBABILITY,
    LEARNING_RATE,
    Recipe,
    recipe_for,
)
from .results import DemoReport, measure
from .run import new_folder
from .speech import write_recording
from .splits import MOST_HELD_OUT, Parts, split_rows

RECORDING_CLIPS = 12


def run_on_own_speech(
    output: str,
    teacher: str,
    dataset: str,
    *,
    dataset_config: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    language: str | None = None,
    minutes: float = 30.0,
    steps: int | None = None,
    decoder_layers: int = 2,
    held_out_clips: int = MOST_HELD_OUT,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> DemoReport:
    """Train a student of a Whisper on a dataset at true length, and measure both on speakers held out of it.

    Args:
        output (`str`): Output folder; it must be empty or new.
        teacher (`str`): Name on the Hub or folder of a Whisper.
        dataset (`str`): Name on the Hub or folder, as for [`load_speech_dataset`]; split by its column `speaker`.
        dataset_config, split, limit (*optional*): As for [`load_speech_dataset`].
        language (`str`, *optional*): Code or English name of what is spoken; a multilingual teacher needs it.
        minutes (`float`, *optional*, defaults to 30): Time for the training.
        steps (`int`, *optional*): Training steps, in place of those that fit the time.
        decoder_layers (`int`, *optional*, defaults to 2): Decoder layers of the student.
        held_out_clips (`int`, *optional*, defaults to 100): Most clips to measure on.
        seed (`int`, *optional*, defaults to 0): Of the split and of the training.
        tell (`Callable`, *optional*): Is told in a line each what is planned.

    Raises:
        InputError: before anything is written, for an output folder, a model, data or a number that cannot be used.
    """
    folder = new_folder(output)
    check_positive(decoder_layers=decoder_layers, held_out_clips=held_out_clips)
    if steps is not None:
        check_positive(steps=steps)
    if not 0.0 < minutes < float("inf"):
        raise InputError(f"minutes={minutes} must be above 0, and a number")
    model, processor = load_checkpoint(teacher, "cpu", "float32")
    language = language_code(language)
    check_prompt(model.generation_config, language, "transcribe")
    if spoken_language(model.generation_config, language) is None:
        raise InputError(f"{teacher} is multilingual: say what is spoken with --language, for example --language en")
    try:
        student = FastWhisperForConditionalGeneration.from_teacher(model, decoder_layers)
    except ValueError as error:
        raise InputError(str(error)) from error
    rows = load_speech_dataset(dataset, dataset_config=dataset_config, split=split, limit=limit)
    check = RowCheck.for_training(processor, model.config.max_target_positions, language, "transcribe")
    parts = split_rows(usable_rows(rows, check).dataset, seed, held_out_clips)
    arguments = _arguments(folder / "student", seed)
    collate = training_collator(
        model, processor, language, "transcribe", timestamp_probability=0.0, prompt_probability=0.0, seed=seed
    )
    # The lengths of the training rows alone; these were decoded before, and are read from the cache.
    seconds = [length or 0.0 for length in usable_rows(parts.training, check).seconds or []]
    costs = row_costs(
        model, student, collate, [parts.training[row] for row in _ordinary(seconds, BATCH_SIZE)], arguments.device
    )
    recipe = recipe_for(seconds, processor.feature_extractor.chunk_length, costs, 60.0 * minutes)
    for line in _plan(parts, recipe, steps):
        tell(line)
    del student, model
    steps = steps or recipe.steps
    folder.mkdir(parents=True, exist_ok=True)
    distill(
        teacher,
        parts.training,
        _arguments(folder / "student", seed, steps, costs.bfloat16),
        eval_dataset=parts.validation,
        decoder_layers=decoder_layers,
        language=language,
        text_case="sentence" if _mostly_in_capitals(parts.training) else "as_is",
        joined_probability=JOINED_PROBABILITY,
        teacher_cache=folder / "teacher_states",
        teacher_dtype="bfloat16" if costs.bfloat16 else "float32",
    )
    _name_dataset(folder / "student", dataset)
    clips = [load_audio(row["audio"]) for row in parts.held_out.take(min(RECORDING_CLIPS, len(parts.held_out)))]
    recording = write_recording(folder / "recording.wav", clips)
    return measure(
        folder,
        folder / "student",
        teacher,
        parts.held_out,
        recording,
        language=language,
        dataset_name=f"{display_name(dataset)}, held out",
    )


def _name_dataset(student: Path, dataset: str) -> None:
    """Record the name of the training data, which was given to `distill` as rows."""
    write_record(student / RUN_FILE, {**read_run(student), "datasets": [public_name(dataset)]})


def _arguments(folder: Path, seed: int, steps: int = 1, bfloat16: bool = False) -> ASKDTrainingArguments:
    return ASKDTrainingArguments(
        output_dir=str(folder),
        true_length=True,
        full_length_probability=FULL_LENGTH_PROBABILITY,
        max_steps=steps,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        encoder_learning_rate=ENCODER_LEARNING_RATE,
        warmup_steps=min(30, steps // 10),
        lr_scheduler_type="cosine",
        logging_steps=max(1, steps // 60),
        eval_strategy="steps",
        eval_steps=max(1, steps // 3),
        predict_with_generate=True,
        save_strategy="no",
        report_to="none",
        bf16=bfloat16,
        seed=seed,
    )


def _ordinary(seconds: list[float], count: int) -> list[int]:
    """Rows around the median length."""
    order = sorted(range(len(seconds)), key=seconds.__getitem__)
    start = max(0, (len(order) - count) // 2)
    return order[start : start + count]


def _plan(parts: Parts, recipe: Recipe, steps: int | None) -> list[str]:
    who = "drawn at random" if parts.held_out_speakers is None else f"of {parts.held_out_speakers} other speakers"
    trained = f"{len(parts.training)} clips to train on, {len(parts.held_out)} {who} to measure on"
    if steps is not None:
        return [trained, f"{steps} steps of {BATCH_SIZE} rows"]
    return [
        trained,
        f"{recipe.steps} steps of {BATCH_SIZE} rows, {recipe.epochs:.1f} epochs, about "
        f"{recipe.seconds / 60:.0f} minutes on this machine",
    ]


def _mostly_in_capitals(rows: Dataset) -> bool:
    texts = rows["text"][:]
    return 2 * sum(map(in_capitals, texts)) > len(texts)
