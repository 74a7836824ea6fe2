"""A teacher's transcription beside each row of a dataset: batched, resumable, on any number of processes."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.audio import SAMPLING_RATE, audio_path, load_audio
from ..data.filtering import drop_unusable_rows
from ..data.label_encoding import TIMESTAMPED_COLUMNS, spaced
from ..data.loading import SpeechDataset
from ..errors import InputError
from ..evaluation.metrics import word_error_rate
from ..evaluation.normalizers import text_normalizer
from ..files import write_whole
from ..progress import progress_bar
from ..transcription.decoding import GenerationOptions, check_prompt, generate_transcripts
from ..transcription.transcripts import Transcript
from .label_parts import METADATA_NAME, LabelParts

# The processes wait for the slowest at the end, which may take longer than a collective's ten minutes.
WAIT = timedelta(days=7)


@dataclass(frozen=True)
class LabelReport:
    """What was written.

    Args:
        metadata (`Path`): the table, which `load_speech_dataset` reads by its folder.
        labelled (`int`): rows that the teacher transcribed.
        kept (`int`): rows in the table; the others disagreed with their reference.
    """

    metadata: Path
    labelled: int
    kept: int


@dataclass(frozen=True)
class LabelSettings:
    """What the labels depend on, and so what a resumed run must have in common with the one before.

    Args:
        options (`GenerationOptions`): language, task, timestamps, batch size.
        source (`dict[str, Any]`): names of model and dataset.
    """

    options: GenerationOptions
    source: dict[str, Any] = field(default_factory=dict)


def this_process() -> PartialState:
    """This process among those of the launcher; they talk through gloo where there is no accelerator."""
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=WAIT)


def label_dataset(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    dataset: SpeechDataset,
    output: Path,
    settings: LabelSettings,
    wer_filter: float | None = None,
) -> LabelReport | None:
    r"""Transcribe every row, and write `metadata.jsonl` with `file_name`, `text`, `timestamped_text`, `reference` (the
    row's former text), `duration` in seconds, `language` where it was heard, and the row's other columns.

    Run again after it was killed, it goes on; the table is the same as from one run. On several processes each batch
    goes to one of them, and the first one writes the table.

    Args:
        model (`WhisperForConditionalGeneration`): the teacher, moved to the device of this process.
        processor (`WhisperProcessor`): its processor.
        dataset (`Dataset` or `IterableDataset`): rows with `audio`, and `text` where there is a reference.
        output (`Path`): a new folder, or that of the run to go on with. Audio from memory is written to its `audio`.
        settings (`LabelSettings`): what a resumed run must have in common.
        wer_filter (`float`, *optional*): drop rows whose label and reference, both normalised, disagree by more than
            this WER; rows without a reference are kept.

    Returns:
        `LabelReport`, or `None` on every process but the first.

    Raises:
        InputError: for audio that cannot be read, for an output folder of something else, and where no rows are left.
    """
    check_prompt(model.generation_config, settings.options.language, settings.options.task)
    dataset = drop_unusable_rows(dataset, processor, training=False)
    recorded = {**settings.source, **asdict(settings.options), "temperatures": list(settings.options.temperatures)}
    if isinstance(dataset, Dataset):
        recorded["rows"] = len(dataset)
    state, parts = this_process(), LabelParts(output)
    parts.check(recorded)
    state.wait_for_everyone()
    if state.is_main_process:
        parts.begin(recorded)
    state.wait_for_everyone()
    _label_batches(model.to(state.device), processor, dataset, parts, settings.options, state)
    state.wait_for_everyone()
    return _merge(parts, processor, settings.options, wer_filter) if state.is_main_process else None


def _label_batches(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    dataset: SpeechDataset,
    parts: LabelParts,
    options: GenerationOptions,
    state: PartialState,
) -> None:
    """Transcribe the batches of this process that are not done."""
    finished = parts.finished()

    def mine(batch: int) -> bool:
        return batch % state.num_processes == state.process_index and batch not in finished

    total = None
    if isinstance(dataset, Dataset):
        total = sum(map(mine, range(-(-len(dataset) // options.batch_size))))
    with progress_bar(state.is_main_process) as bar:
        task = bar.add_task("labelling batches", total=total)
        for batch, rows in _batches(dataset, options.batch_size, mine):
            first = batch * options.batch_size
            clips = [_load_row(row, first + offset) for offset, row in enumerate(rows)]
            transcripts = generate_transcripts(model, processor, clips, options)
            files = [
                _audio_file(row, clip, parts.folder, first + offset)
                for offset, (row, clip) in enumerate(zip(rows, clips, strict=True))
            ]
            labelled = [
                _labelled_row(row, file, transcript, options)
                for row, file, transcript in zip(rows, files, transcripts, strict=True)
            ]
            parts.append(state.process_index, batch, labelled)
            bar.advance(task)


def _batches(
    dataset: SpeechDataset, batch_size: int, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The wanted batches with their numbers, which do not depend on what is wanted."""
    if isinstance(dataset, Dataset):
        for batch in range(-(-len(dataset) // batch_size)):
            if wanted(batch):
                first = batch * batch_size
                yield batch, [dataset[index] for index in range(first, min(first + batch_size, len(dataset)))]
        return
    rows, batch = iter(dataset), 0
    while content := list(islice(rows, batch_size)):
        if wanted(batch):
            yield batch, content
        batch += 1


def _load_row(row: Mapping[str, Any], index: int) -> np.ndarray:
    try:
        return load_audio(row["audio"])
    except InputError as error:
        raise InputError(f"row {index}: {error}") from error


def _audio_file(row: Mapping[str, Any], clip: np.ndarray, folder: Path, index: int) -> str:
    """Where the row's audio lies: its own file, or one that is written into the folder for audio from memory."""
    path = audio_path(row["audio"])
    if path is not None:
        return os.path.abspath(path)
    name = f"audio/{index:08d}.flac"
    (folder / "audio").mkdir(exist_ok=True)
    beside = folder / f"{name}.part"
    soundfile.write(beside, np.clip(clip, -1.0, 1.0), SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    os.replace(beside, folder / name)
    return name


def _labelled_row(
    row: Mapping[str, Any], file: str, transcript: Transcript, options: GenerationOptions
) -> dict[str, Any]:
    labelled: dict[str, Any] = {"file_name": file, "text": transcript.text}
    if options.timestamps:
        labelled["timestamped_text"] = timestamped(transcript)
    labelled["reference"] = row.get("text")
    labelled["duration"] = round(transcript.duration, 3)
    if options.language is None and transcript.language is not None:
        labelled["language"] = transcript.language
    others = row.keys() - labelled.keys() - {"audio", *TIMESTAMPED_COLUMNS}
    return {**labelled, **{name: row[name] for name in row if name in others and _is_plain(row[name])}}


def timestamped(transcript: Transcript) -> str:
    """The segments with Whisper's timestamp tokens, such as `<|0.00|> Hello.<|1.20|>`."""
    return "".join(
        f"{_stamp(segment.start)}{spaced(segment.text, transcript.language)}{_stamp(segment.end)}"
        for segment in transcript.segments
    )


def _stamp(seconds: float) -> str:
    return f"<|{round(seconds / 0.02) * 0.02:.2f}|>"


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold the value; nested audio, images and arrays stay out of the table."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _merge(
    parts: LabelParts, processor: WhisperProcessor, options: GenerationOptions, wer_filter: float | None
) -> LabelReport:
    """Write the table of the rows that agree with their reference."""

    @cache
    def normalizer(language: str | None) -> Callable[[str], str]:
        return text_normalizer("en" if options.task == "translate" else language, processor.tokenizer)

    def agrees(row: dict[str, Any]) -> bool:
        if wer_filter is None or not row["reference"]:
            return True
        normalize = normalizer(options.language or row.get("language"))
        return word_error_rate([normalize(row["reference"])], [normalize(row["text"])]) <= wer_filter

    rows = list(parts.rows())
    kept = [row for row in rows if agrees(row)]
    if not rows:
        raise InputError("the dataset has no rows")
    if not kept:
        raise InputError(
            f"no rows left: all {len(rows)} labels disagree with their reference by over {wer_filter:.0%}"
        )
    metadata = parts.folder / METADATA_NAME
    write_whole(metadata, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return LabelReport(metadata, len(rows), len(kept))
