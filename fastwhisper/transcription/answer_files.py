"""Questions to a FastSLM about files and folders, and transcripts of them."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import Progress

from ..errors import InputError
from ..files import check_writable, write_whole
from ..modeling.waveforms import SAMPLING_RATE
from ..progress import progress_bar, set_aside
from .recordings import Recording, find_recordings, output_paths
from .speech_answers import (
    Answer,
    AnswerOptions,
    FastSLM,
    answer,
    load_fastslm_pair,
    question_prompt,
    transcription_prompt,
)


def ask_files(
    files: Sequence[str | os.PathLike], question: str, *, model: str | os.PathLike | FastSLM, **settings: Any
) -> Iterator[tuple[str, Answer | InputError]]:
    """Ask one question about each file, and about each audio file below folders: see [`answer_files`].

    Args:
        files (`Sequence[str]`): Audio files and folders; `-` for `standard_input`.
        question (`str`): What to ask.
        model, settings: As for [`answer_files`].
    """
    return answer_files(files, lambda pair: question_prompt(pair[1], question), model=model, **settings)


def transcribe_files_with_fastslm(
    files: Sequence[str | os.PathLike],
    *,
    model: str | os.PathLike | FastSLM,
    language: str | None = None,
    **settings: Any,
) -> Iterator[tuple[str, Answer | InputError]]:
    """Transcribe each file, and each audio file below folders: see [`answer_files`].

    Args:
        files (`Sequence[str]`): Audio files and folders; `-` for `standard_input`.
        language (`str`, *optional*): Code or name of the language.
        model, settings: As for [`answer_files`].
    """
    return answer_files(files, lambda pair: transcription_prompt(pair[1], language), model=model, **settings)


def answer_files(
    files: Sequence[str | os.PathLike],
    write_prompt: Callable[[FastSLM], str],
    *,
    model: str | os.PathLike | FastSLM,
    output: str | os.PathLike | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    standard_input: BinaryIO | None = None,
    show_progress: bool = False,
    **options: Any,
) -> Iterator[tuple[str, Answer | InputError]]:
    """Answer one prompt for each of several recordings, in memory that does not grow with their length.

    Each answer is written when it is done. A recording that cannot be read or does not fit ends nothing: its error
    stands in the place of its answer.

    Args:
        files (`Sequence[str]`): Audio files and folders; `-` for `standard_input`.
        write_prompt (`Callable`): From the model and its processor to a prompt with one placeholder.
        model (`str`, `os.PathLike` or `tuple[FastSLMForCausalLM, FastSLMProcessor]`): As for [`ask`].
        output (`str` or `os.PathLike`, *optional*): Folder for the answers as text; without it nothing is written.
        device, dtype, trust_remote_code (*optional*): As for [`ask`].
        standard_input (`BinaryIO`, *optional*): Read for the file `-`.
        show_progress (`bool`, *optional*, defaults to `False`): Progress bars on standard error.
        options: Fields of [`AnswerOptions`].

    Yields:
        `tuple[str, Answer | InputError]`: name and answer of each recording, or what is wrong with it.

    Raises:
        InputError: for a model, an option or a folder that cannot be used.
    """
    recordings, problems = find_recordings([os.fspath(file) for file in files], standard_input)
    paths = {} if output is None else output_paths(recordings, Path(output), ["txt"])
    yield from problems
    if not recordings:
        return
    pair, how = load_fastslm_pair(model, device, dtype, trust_remote_code), AnswerOptions(**options)
    how.check(pair[0])
    prompt = write_prompt(pair)
    for targets in paths.values():
        check_writable(targets[0])
    for recording in recordings:
        with progress_bar(show_progress) as progress:
            try:
                result: Answer | InputError = _answer(pair, recording, prompt, how, progress)
            except InputError as error:
                result = error
            if isinstance(result, Answer) and paths:
                write_whole(paths[recording][0], f"{result.text}\n")
            with set_aside(progress):
                yield recording.name, result


def _answer(pair: FastSLM, recording: Recording, prompt: str, options: AnswerOptions, progress: Progress) -> Answer:
    windows = pair[1].num_windows(math.ceil(recording.duration * SAMPLING_RATE))
    heard = progress.add_task(f"{recording.name}: {windows} windows", total=windows)
    answered = None if options.long_form is None else progress.add_task("answered", total=windows)

    def show_answered(done: int, total: int) -> None:
        if answered is not None:
            progress.update(answered, completed=done, total=total)

    return answer(pair, recording.source, prompt, options, lambda count: progress.advance(heard, count), show_answered)
