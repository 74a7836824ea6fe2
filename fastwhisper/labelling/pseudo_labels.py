"""Adds a teacher's transcription to each row of a dataset: batched, resumable, on any number of processes."""

import json
import os
from collections import Counter
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

from ..data.audio import audio_path
from ..data.filtering import check_on_bad_audio, log_drops, no_rows_left, usable_rows
from ..data.label_encoding import TIMESTAMPED_COLUMNS, plain_text, spaced
from ..data.loading import SpeechDataset
from ..data.row_checks import Drop, RowCheck
from ..data.stored_audio import Clip, store_audio
from ..data.timestamps import timestamp_token
from ..errors import InputError
from ..evaluation.metrics import word_error_rate
from ..evaluation.normalizers import text_normalizer
from ..files import held_folder, write_whole
from ..modeling.waveforms import SAMPLING_RATE
from ..progress import progress_bar
from ..transcription.decoding import GenerationOptions, check_prompt, generate_transcripts
from ..transcription.transcripts import Transcript
from .label_parts import METADATA_NAME, LabelParts

# At the end the processes wait for the slowest, which may take longer than a collective's ten minutes.
WAIT = timedelta(days=7)


@dataclass(frozen=True)
class LabelReport:
    """What was written.

    Args:
        metadata (`Path`): the table; `load_speech_dataset` reads its folder.
        labelled (`int`): rows that the teacher transcribed.
        kept (`int`): rows in the table; the others disagreed with their reference.
        dropped (`Counter[str]`): rows without usable audio, by reason.
        cache (`str`, *optional*): what was computed for the cache of the teacher's states, and its size.
    """

    metadata: Path
    labelled: int
    kept: int
    dropped: Counter[str]
    cache: str | None = None


@dataclass(frozen=True)
class LabelSettings:
    """What the labels depend on, and so what a resumed run must share with the one before.

    Args:
        options (`GenerationOptions`): language, task, timestamps, batch size.
        source (`dict[str, Any]`): names of model and dataset.
    """

    options: GenerationOptions
    source: dict[str, Any] = field(default_factory=dict)


def this_process() -> PartialState:
    """This process among those of the launcher; without an accelerator they communicate through gloo."""
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=WAIT)


def label_dataset(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    dataset: SpeechDataset,
    output: Path,
    settings: LabelSettings,
    wer_filter: float | None = None,
    on_bad_audio: str = "skip",
    num_proc: int | None = None,
) -> LabelReport | None:
    r"""Transcribe every row, and write `metadata.jsonl` with `file_name`, `text`, `timestamped_text`, `reference` (the
    row's original text without timestamps), `duration` in seconds, `language` (given or detected), and the row's other
    columns.

    A killed run resumes when it is run again; the table is the same as from one run. On several processes each batch
    goes to one of them, and the first one writes the table. Rows whose audio is empty or cannot be decoded are left
    out; a warning names and counts them at the end.

    Args:
        model (`WhisperForConditionalGeneration`): the teacher, moved to the device of this process.
        processor (`WhisperProcessor`): its processor.
        dataset (`Dataset` or `IterableDataset`): rows with `audio`, and `text` where there is a reference.
        output (`Path`): a new folder, or that of a run to resume. Audio from memory is written to its `audio`.
        settings (`LabelSettings`): what a resumed run must share.
        wer_filter (`float`, *optional*): drop rows whose label and reference, both normalised, differ by more than
            this WER; rows without a reference are kept.
        on_bad_audio (`str`, *optional*, defaults to `"skip"`): `"stop"` makes audio that is empty or cannot be decoded
            an error: in a `Dataset` before anything is written, in a stream when it is reached.
        num_proc (`int`, *optional*): processes that look for bad audio beforehand.

    Returns:
        `LabelReport`, or `None` on every process but the first.

    Raises:
        InputError: for an output folder of something else or of another run in progress, if no rows are left, and
            with `"stop"` for bad audio; it names the row and the audio.
    """
    check_prompt(model.generation_config, settings.options.language, settings.options.task)
    check_on_bad_audio(on_bad_audio)
    if on_bad_audio == "stop" and isinstance(dataset, Dataset):
        usable_rows(dataset, RowCheck(), on_bad_audio, num_proc)
    recorded = {**settings.source, **asdict(settings.options), "temperatures": list(settings.options.temperatures)}
    if isinstance(dataset, Dataset):
        recorded["rows"] = len(dataset)
    state, parts = this_process(), LabelParts(output)
    parts.check(recorded)
    with held_folder(output, state):
        # Once more: what another run has done since.
        parts.check(recorded)
        state.wait_for_everyone()
        if state.is_main_process:
            parts.begin(recorded)
        state.wait_for_everyone()
        _label_batches(model.to(state.device), processor, dataset, parts, settings.options, state, on_bad_audio)
        state.wait_for_everyone()
        return _merge(parts, processor, settings.options, wer_filter) if state.is_main_process else None


def _label_batches(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    dataset: SpeechDataset,
    parts: LabelParts,
    options: GenerationOptions,
    state: PartialState,
    on_bad_audio: str,
) -> None:
    """Transcribe the unfinished batches of this process. A batch includes its rows with bad audio: which rows
    are in it must not depend on anything that may change from one run to the next."""
    finished = parts.finished()

    def mine(batch: int) -> bool:
        return batch % state.num_processes == state.process_index and batch not in finished

    total = None
    if isinstance(dataset, Dataset):
        total = sum(map(mine, range(-(-len(dataset) // options.batch_size))))
    with progress_bar(state.is_main_process) as bar:
        task = bar.add_task("labelling batches", total=total)
        for batch, rows in _batches(dataset, options.batch_size, mine):
            clips, drops = _load_rows(rows, batch * options.batch_size, on_bad_audio)
            transcripts = generate_transcripts(model, processor, list(clips.values()), options) if clips else []
            labelled = []
            for (index, clip), transcript in zip(clips.items(), transcripts, strict=True):
                row = rows[index - batch * options.batch_size]
                labelled.append(_labelled_row(row, _audio_file(row, clip, parts.folder, index), transcript, options))
            parts.append(state.process_index, batch, labelled, drops)
            bar.advance(task)


def _batches(
    dataset: SpeechDataset, batch_size: int, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The wanted batches with their numbers, which do not depend on which ones are wanted."""
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


def _load_rows(rows: list[dict[str, Any]], first: int, on_bad_audio: str) -> tuple[dict[int, Clip], dict[int, Drop]]:
    """The clips of the rows, and why the others have none, by their index in the dataset."""
    clips, drops, check = {}, {}, RowCheck()
    for index, row in enumerate(rows, first):
        drop = check(row)
        if drop is None:
            clips[index] = store_audio(row["audio"])
        elif on_bad_audio == "stop":
            raise InputError(f"row {index}: {drop.detail}")
        else:
            drops[index] = drop
    return clips, drops


def _audio_file(row: Mapping[str, Any], clip: Clip, folder: Path, index: int) -> str:
    """The audio's path relative to the output folder: its own file or, for audio from memory, a new one there."""
    path = audio_path(row["audio"])
    if path is not None:
        return _seen_from(folder, path)
    name = f"audio/{index:08d}.flac"
    (folder / "audio").mkdir(exist_ok=True)
    beside = folder / f"{name}.part"
    soundfile.write(beside, np.clip(clip[:], -1.0, 1.0), SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    os.replace(beside, folder / name)
    return name


def _seen_from(folder: Path, path: str) -> str:
    try:
        # From where the folder is itself: `..` leads out of that, not out of a link to it.
        return Path(os.path.relpath(os.path.abspath(path), os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive of Windows
        return os.path.abspath(path)


def _labelled_row(
    row: Mapping[str, Any], file: str, transcript: Transcript, options: GenerationOptions
) -> dict[str, Any]:
    labelled: dict[str, Any] = {"file_name": file, "text": transcript.text}
    if options.timestamps:
        labelled["timestamped_text"] = timestamped(transcript)
    reference = row.get("text")
    labelled["reference"] = plain_text(reference, transcript.language) if isinstance(reference, str) else None
    labelled["duration"] = round(transcript.duration, 3)
    if transcript.language is not None:
        labelled["language"] = transcript.language
    others = row.keys() - labelled.keys() - {"audio", *TIMESTAMPED_COLUMNS}
    return {**labelled, **{name: row[name] for name in row if name in others and _is_plain(row[name])}}


def timestamped(transcript: Transcript) -> str:
    """The segments with Whisper's timestamp tokens, for example `<|0.00|> Hello.<|1.20|>`."""
    return "".join(
        f"{timestamp_token(segment.start)}{spaced(segment.text, transcript.language)}{timestamp_token(segment.end)}"
        for segment in transcript.segments
    )


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

    rows, drops = list(parts.rows()), parts.drops()
    kept = [row for row in rows if agrees(row)]
    if not rows:
        raise no_rows_left(drops) if drops else InputError("the dataset has no rows")
    log_drops(drops, len(rows) + len(drops))
    if not kept:
        raise InputError(
            f"no rows left: all {len(rows)} labels differ from their reference by more than {wer_filter:.0%}"
        )
    metadata = parts.folder / METADATA_NAME
    write_whole(metadata, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return LabelReport(metadata, len(rows), len(kept), Counter(drop.reason for drop in drops.values()))
