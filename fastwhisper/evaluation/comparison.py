"""One model measured, or several side by side on the same audio: error rates, speed, memory."""

import json
import platform
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from datasets import Dataset, IterableDataset
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from .. import __version__
from ..data.filtering import usable_rows
from ..data.label_encoding import plain_text
from ..data.languages import language_code
from ..data.row_checks import RowCheck
from ..data.stored_audio import Clip, store_audio
from ..errors import InputError
from ..files import write_whole
from ..modeling.waveforms import SAMPLING_RATE
from ..progress import progress_bar
from ..transcription.decoding import (
    GenerationOptions,
    check_prompt,
    generate_transcripts,
    spoken_language,
)
from ..transcription.true_length import is_true_length
from .measurement import ForwardClock, Timing, hardware, parameter_count, peak_memory
from .metrics import character_error_rate, count_errors, word_error_rate
from .normalizers import normalizer_name, text_normalizer
from .public_records import make_public
from .saved_weights import weights_sha256

Contestant: TypeAlias = tuple[str, WhisperForConditionalGeneration, WhisperProcessor]


@dataclass(frozen=True)
class ComparisonSettings:
    """How models are compared.

    Args:
        generation (`GenerationOptions`): language, task, beams, batch size and seed, the same for every model.
        repeats (`int`, *optional*, defaults to 1): runs of each batch by each model; the median time counts.
        dataset (`dict`, *optional*): `name`, `config` and `split` of the data, for the report.
        folders (`dict`, *optional*):
            By model name, the folder that it was loaded from, if any: the report identifies the measured weights by a
            checksum, so that a model card never shows another model's results.
        command (`str`, *optional*): for the report; by default the command line of this process.
        show_progress (`bool`, *optional*, defaults to `True`): show a progress bar on standard error.
        on_bad_audio (`str`, *optional*, defaults to `"skip"`): what to do with rows whose audio is empty or cannot be
            decoded; `"stop"` makes them an error.
        num_proc (`int`, *optional*): processes that look for such rows beforehand; by default this one does.
    """

    generation: GenerationOptions = field(default_factory=GenerationOptions)
    repeats: int = 1
    dataset: dict[str, str | None] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    command: str | None = None
    show_progress: bool = True
    on_bad_audio: str = "skip"
    num_proc: int | None = None


@dataclass
class _Run:
    """What one model has done so far; `batches` holds the median timing of each batch."""

    hypotheses: list[str] = field(default_factory=list)
    batches: list[Timing] = field(default_factory=list)

    def seconds(self, part: str) -> float:
        return sum(getattr(timing, part) for timing in self.batches)


@dataclass
class _Rows:
    """References and seconds of audio of the rows so far, and the batch with the most audio."""

    references: list[str] = field(default_factory=list)
    seconds: float = 0.0
    longest: list[Clip] = field(default_factory=list)

    def add(self, clips: list[Clip], references: list[str]) -> None:
        self.references += references
        self.seconds += _samples(clips) / SAMPLING_RATE
        if _samples(clips) > _samples(self.longest):
            self.longest = clips


def compare_models(
    models: Sequence[Contestant],
    dataset: Dataset | IterableDataset,
    settings: ComparisonSettings | None = None,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Measure models on every usable row of a dataset, each batch by every model before the next batch.

    Rows without text or with bad audio are left out beforehand; the report counts them by reason.

    The models warm up on the first batch, without timing, and take turns going first. Decoding of audio files
    is not timed; computing features is.

    Args:
        models (`Sequence[tuple[str, WhisperForConditionalGeneration, WhisperProcessor]]`):
            Name, model and processor; `speed_ratio` is the time of the second over that of the first.
        dataset (`Dataset` or `IterableDataset`): columns `audio` (anything that `load_audio` reads) and `text`.
        settings (`ComparisonSettings`, *optional*): generation, repeats, names for the report.
        predictions (`Path`, *optional*): JSON Lines file for the reference and hypotheses of each row.

    Returns:
        `dict`: the report, ready for JSON; rates are fractions, times seconds, sizes bytes.

    Raises:
        InputError: if no rows are left, for a language that a model does not know, or for bad audio with
            `"stop"`; the message names the file.
    """
    settings = settings or ComparisonSettings()
    options = settings.generation
    names = [name for name, _, _ in models]
    if len(set(names)) < len(names):
        raise InputError(f"models to compare need different names, not {', '.join(names)}")
    for _, model, _ in models:
        check_prompt(model.generation_config, options.language, options.task)
    usable = usable_rows(dataset, RowCheck(needs_text=True), settings.on_bad_audio, settings.num_proc)
    runs, rows = [_Run() for _ in models], _Rows()
    total = len(usable.dataset) if isinstance(usable.dataset, Dataset) else None
    with progress_bar(settings.show_progress) as progress:
        bar = progress.add_task("evaluate", total=total)
        for clips, references in _batches(usable.dataset, settings.generation):
            if not rows.references:
                for _, model, processor in models:
                    generate_transcripts(model, processor, clips, options)
            _run_batch(models, runs, clips, settings, first=len(runs[0].batches))
            rows.add(clips, references)
            progress.advance(bar, len(clips))
        if not rows.references:
            raise InputError("the dataset has no rows to evaluate on")
        memory = [_memory(contestant, rows.longest, options) for contestant in models]
    language = _language(models, options)
    if predictions is not None:
        _write_predictions(predictions, names, rows.references, runs)
    return _report(models, runs, rows, memory, language, settings, usable.dropped)


def _batches(dataset: Dataset | IterableDataset, options: GenerationOptions) -> Iterator[tuple[list[Clip], list[str]]]:
    clips: list[Clip] = []
    references: list[str] = []
    language = language_code(options.language)
    for row in dataset:
        clips.append(store_audio(row["audio"]))
        references.append(plain_text(row["text"], language))
        if len(clips) == options.batch_size:
            yield clips, references
            clips, references = [], []
    if clips:
        yield clips, references


def _run_batch(
    models: Sequence[Contestant], runs: list[_Run], clips: list[Clip], settings: ComparisonSettings, first: int
) -> None:
    """Each model once per repeat; the first one changes with every batch and repeat, as caches favour the second."""
    timings: list[list[Timing]] = [[] for _ in models]
    texts: list[list[str]] = [[] for _ in models]
    for repeat in range(settings.repeats):
        for turn in range(len(models)):
            index = (turn + first + repeat) % len(models)
            _, model, processor = models[index]
            with ForwardClock(model) as clock:
                transcripts = generate_transcripts(model, processor, clips, settings.generation)
            timings[index].append(clock.timing)
            texts[index] = [transcript.text for transcript in transcripts]
    for run, batch_timings, batch_texts in zip(runs, timings, texts, strict=True):
        run.batches.append(sorted(batch_timings, key=lambda timing: timing.total)[(len(batch_timings) - 1) // 2])
        run.hypotheses += batch_texts


def _memory(contestant: Contestant, clips: list[Clip], options: GenerationOptions) -> int:
    _, model, processor = contestant
    return peak_memory(model, lambda: generate_transcripts(model, processor, clips, options))


def _language(models: Sequence[Contestant], options: GenerationOptions) -> str | None:
    """The language that all models write, `None` if one of them detects it."""
    languages = {spoken_language(model.generation_config, options.language) for _, model, _ in models}
    return languages.pop() if len(languages) == 1 else None


def _report(
    models: Sequence[Contestant],
    runs: list[_Run],
    rows: _Rows,
    memory: list[int],
    language: str | None,
    settings: ComparisonSettings,
    dropped: Counter[str],
) -> dict[str, Any]:
    options = settings.generation
    english = "en" if options.task == "translate" else language
    tokenizers = [processor.tokenizer for _, _, processor in models]
    tokenizer = next((each for each in tokenizers if each.english_spelling_normalizer), None)
    normalize = text_normalizer(english, tokenizer)
    references = [normalize(reference) for reference in rows.references]
    device = models[0][1].device
    seconds = [run.seconds("total") for run in runs]
    return {
        "command": make_public(settings.command if settings.command is not None else " ".join(sys.argv)),
        "seed": options.seed,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "fastwhisper": __version__,
        },
        "hardware": hardware(device),
        "settings": {
            "batch_size": options.batch_size,
            "num_beams": options.num_beams,
            "dtype": str(models[0][1].dtype).removeprefix("torch."),
            "language": options.language,
            "task": options.task,
            "normalizer": normalizer_name(english, tokenizer),
            "repeats": settings.repeats,
        },
        "dataset": {
            "name": settings.dataset.get("name"),
            "config": settings.dataset.get("config"),
            "split": settings.dataset.get("split"),
            "rows": len(references),
            "dropped": dict(dropped),
            "empty_references": references.count(""),
            "audio_seconds": rows.seconds,
            "language": language,
        },
        "models": [
            {
                "name": name,
                **_origin(settings.folders.get(name)),
                "role": _role(name, model, models, settings.folders),
                "parameters": parameter_count(model),
                "true_length": is_true_length(model),
                **_rates(references, [normalize(hypothesis) for hypothesis in run.hypotheses]),
                **_speed(run, rows.seconds),
                "peak_memory_bytes": peak,
            }
            for (name, model, _), run, peak in zip(models, runs, memory, strict=True)
        ],
        "speed_ratio": seconds[1] / seconds[0] if len(seconds) == 2 else None,
        "speed_ratio_median": _median_ratio(runs) if len(runs) == 2 else None,
    }


def _rates(references: list[str], hypotheses: list[str]) -> dict[str, Any]:
    counts = count_errors(references, hypotheses)
    return {
        "wer": word_error_rate(references, hypotheses),
        "cer": character_error_rate(references, hypotheses),
        **{name: count for name, count in asdict(counts).items() if name != "hits"},
        "words": counts.words,
    }


def _speed(run: _Run, audio_seconds: float) -> dict[str, float]:
    seconds = run.seconds("total")
    return {
        "real_time_factor": seconds / audio_seconds,
        "speed": audio_seconds / seconds,
        "seconds": seconds,
        "encoder_seconds": run.seconds("encoder"),
        "decoder_seconds": run.seconds("decoder"),
    }


def _median_ratio(runs: list[_Run]) -> float:
    """Time of the second model over that of the first, the median over batches: a hiccup in one counts little."""
    pairs = zip(runs[0].batches, runs[1].batches, strict=True)
    return statistics.median(second.total / first.total for first, second in pairs)


def _origin(folder: Path | None) -> dict[str, str | None]:
    """The folder's own name and the checksum of its weights."""
    if folder is None:
        return {"folder": None, "weights_sha256": None}
    return {"folder": folder.resolve().name, "weights_sha256": weights_sha256(folder)}


def _role(
    name: str,
    model: WhisperForConditionalGeneration,
    models: Sequence[Contestant],
    folders: dict[str, Path],
) -> str:
    """`student` by its own record; `teacher` if a student in the comparison recorded its name and number of layers, or
    only its number of layers, if the student was built from a teacher without a name.
    """
    if _recorded_layers(model) is not None:
        return "student"
    own = folders[name].resolve().name if name in folders else name
    layers = (model.config.decoder_layers, model.config.encoder_layers)
    students = [other for _, other, _ in models if _recorded_layers(other) == layers]
    recorded = [getattr(student.config, "teacher", None) for student in students]
    return "teacher" if any(teacher in (None, own) for teacher in recorded) else "model"


def _recorded_layers(model: WhisperForConditionalGeneration) -> tuple[int, int] | None:
    decoder_layers = getattr(model.config, "teacher_decoder_layers", None)
    return None if decoder_layers is None else (decoder_layers, model.config.teacher_encoder_layers)


def _write_predictions(path: Path, names: list[str], references: list[str], runs: list[_Run]) -> None:
    lines = []
    for index, reference in enumerate(references):
        hypotheses = {name: run.hypotheses[index] for name, run in zip(names, runs, strict=True)}
        lines.append(json.dumps({"row": index, "reference": reference, "hypotheses": hypotheses}, ensure_ascii=False))
    write_whole(path, "".join(f"{line}\n" for line in lines))


def _samples(clips: list[Clip]) -> int:
    return sum(len(clip) for clip in clips)
