"""`fastwhisper.transcribe_files`: turn files and folders into text, subtitles and JSON."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from transformers import WhisperProcessor

from ..data.audio import SAMPLING_RATE
from ..data.stored_audio import store_audio
from ..errors import InputError
from ..files import check_writable, write_whole
from ..progress import progress_bar, set_aside
from .ctranslate2_whisper import AnyWhisper
from .decoding import GenerationOptions, check_prompt, decode_windows, window_seconds
from .recordings import Recording, find_recordings, output_paths, public_name
from .subtitles import WRITERS
from .token_kinds import TokenKinds
from .transcribe import Checkpoint, load_pair
from .transcripts import Transcript, Transcription, Window


def transcribe_files(
    files: Sequence[str | os.PathLike],
    model: Checkpoint,
    *,
    output: str | os.PathLike | None = None,
    formats: Sequence[str] = ("txt",),
    language: str | None = None,
    task: str = "transcribe",
    word_timestamps: bool = False,
    batch_size: int = 8,
    num_beams: int = 1,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    engine: str = "transformers",
    standard_input: BinaryIO | None = None,
    show_progress: bool = False,
) -> Iterator[tuple[str, Transcript | InputError]]:
    r"""Transcribe files, and all audio files in folders: short ones in batches, others one at a time.

    Each is written when it is done. One that cannot be read does not stop the others: its error takes the place of its
    transcript.

    Args:
        files (`Sequence[str]`): Audio files and folders; `-` for `standard_input`.
        model (`str`, `os.PathLike` or pair): As for [`transcribe`].
        output (`str` or `os.PathLike`, *optional*): Folder for the transcripts; without it nothing is written.
        formats (`Sequence[str]`, *optional*, defaults to `("txt",)`): `txt`, `srt`, `vtt`, `json`; in all but `txt`
            segments have times.
        language, task, word_timestamps, num_beams, seed, device, dtype, trust_remote_code, engine (*optional*):
            As for [`transcribe`].
        batch_size (`int`, *optional*, defaults to 8): Recordings decoded together, if each fits a window.
        standard_input (`BinaryIO`, *optional*): Read for the file `-`.
        show_progress (`bool`, *optional*, defaults to `False`): Show a progress bar on standard error.

    Yields:
        `tuple[str, Transcript | InputError]`: name and transcript of each recording, or what is wrong with it.

    Raises:
        InputError: for a model, a format, an option or a folder that cannot be used.
    """
    options = GenerationOptions(
        language=language,
        task=task,
        timestamps=list(formats) != ["txt"],
        word_timestamps=word_timestamps,
        num_beams=num_beams,
        batch_size=batch_size,
        seed=seed,
    )
    for kind in formats:
        if kind not in WRITERS:
            raise InputError(f"there is no format {kind!r}; the formats are {', '.join(WRITERS)}")
    recordings, problems = find_recordings([os.fspath(file) for file in files], standard_input)
    paths = {} if output is None else output_paths(recordings, Path(output), formats)
    yield from problems
    if not recordings:
        return
    whisper, processor = load_pair(model, device, dtype, trust_remote_code, engine)
    check_prompt(whisper.generation_config, language, task)
    for path in (path for targets in paths.values() for path in targets):
        check_writable(path)
    with progress_bar(show_progress) as progress:
        bar = progress.add_task("transcribe", total=sum(recording.duration for recording in recordings))

        def advance(seconds: float) -> None:
            progress.advance(bar, seconds)

        for recording, result in _transcribe(whisper, processor, recordings, options, advance):
            if isinstance(result, Transcript):
                for kind, path in zip(formats, paths.get(recording, ()), strict=False):
                    write_whole(path, WRITERS[kind](public_name(recording.name, files), result))
            with set_aside(progress):
                yield recording.name, result


def _transcribe(
    model: AnyWhisper,
    processor: WhisperProcessor,
    recordings: Sequence[Recording],
    options: GenerationOptions,
    advance: Callable[[float], None],
) -> Iterator[tuple[Recording, Transcript | InputError]]:
    """Transcripts in the order of the recordings, except those that cannot be read, which come before their batch."""
    kinds = TokenKinds(processor.tokenizer)
    for batch in _batches(recordings, window_seconds(model, processor), options.batch_size):
        clips, readable = [], []
        for recording in batch:
            try:
                clips.append(store_audio(recording.source))
                readable.append(recording)
            except InputError as error:
                advance(recording.duration)
                yield recording, error
        windows: list[list[Window]] = [[] for _ in clips]
        for index, window in decode_windows(model, processor, clips, options):
            advance(window.end - (windows[index][-1].end if windows[index] else 0.0))
            windows[index].append(window)
        for recording, clip, found in zip(readable, clips, windows, strict=True):
            yield recording, Transcription(found, kinds, len(clip) / SAMPLING_RATE).transcript


def _batches(recordings: Sequence[Recording], window: float, size: int) -> Iterator[list[Recording]]:
    batch: list[Recording] = []
    for recording in recordings:
        long = recording.duration > window
        if batch and (long or len(batch) == size):
            yield batch
            batch = []
        if long:
            yield [recording]
        else:
            batch.append(recording)
    if batch:
        yield batch
