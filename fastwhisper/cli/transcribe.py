"""`fastwhisper transcribe`: the text of audio files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .arguments import run_parsed

if TYPE_CHECKING:
    from ..transcription.transcripts import Transcript

DESCRIPTION = "Write the text of audio files, of folders of them, and of standard input (-)."
FILES = ("files", "audio files, folders (with all below them), or - for standard input; put them before the flags")


@dataclass
class TranscribeArguments:
    """With which model, into what."""

    model: str = field(metadata={"help": "name or folder of the model"})
    format: list[str] = field(
        default_factory=lambda: ["txt"], metadata={"help": "txt, srt, vtt, json, or several of them (default: txt)"}
    )
    output: str | None = field(
        default=None, metadata={"help": "folder for the transcripts; without it they go to standard output"}
    )
    word_timestamps: bool = field(default=False, metadata={"help": "times of words, in json and vtt"})
    language: str | None = field(
        default=None, metadata={"help": "code or English name; by default the model's own, else as heard"}
    )
    task: str = field(default="transcribe", metadata={"help": "transcribe, or translate (into English)"})
    batch_size: int = field(default=8, metadata={"help": "short files that are decoded together"})
    num_beams: int = field(default=1, metadata={"help": "beams; 1 is greedy"})
    device: str | None = field(default=None, metadata={"help": "cpu or cuda; CUDA where there is one"})
    dtype: str | None = field(
        default=None, metadata={"help": "float32, float16 or bfloat16; float32 on the CPU, float16 on CUDA"}
    )
    seed: int = field(default=0, metadata={"help": "fixes the sampling where the model repeats itself or is unsure"})


def transcribe(files: Sequence[str], arguments: TranscribeArguments) -> "list[Transcript]":
    """Transcribe, write or print, and return the transcripts in the order of the files.

    All files are checked before the model is loaded. With `arguments.output` each is written when it is ready.

    Raises:
        InputError: for a file, a model or an option that cannot be used.
    """
    import sys
    from pathlib import Path

    from ..errors import InputError
    from ..files import check_writable, write_whole
    from ..progress import progress_bar, quiet_transformers
    from ..transcription.checkpoints import load_checkpoint
    from ..transcription.decoding import GenerationOptions, check_prompt
    from ..transcription.recordings import find_recordings, output_paths, transcribe_recordings
    from ..transcription.subtitles import WRITERS

    formats = _formats(arguments.format, list(WRITERS))
    if not files:
        raise InputError("no audio file is given; see fastwhisper transcribe --help")
    for name, number in (("batch_size", arguments.batch_size), ("num_beams", arguments.num_beams)):
        if number < 1:
            raise InputError(f"--{name} must be 1 or more, not {number}")
    quiet_transformers()
    recordings = find_recordings(files, sys.stdin.buffer)
    paths = output_paths(recordings, Path(arguments.output), formats) if arguments.output else {}
    if not arguments.output:
        _check_printable(formats, len(recordings))
    model, processor = load_checkpoint(arguments.model, arguments.device, arguments.dtype)
    check_prompt(model.generation_config, arguments.language, arguments.task)
    for path in [path for targets in paths.values() for path in targets]:
        check_writable(path)
    options = GenerationOptions(
        language=arguments.language,
        task=arguments.task,
        timestamps=formats != ["txt"],
        word_timestamps=arguments.word_timestamps,
        num_beams=arguments.num_beams,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )
    finished = []
    with progress_bar() as progress:
        bar = progress.add_task("transcribe", total=sum(recording.duration for recording in recordings))
        for recording, transcript in transcribe_recordings(model, processor, recordings, options):
            if paths:
                for kind, path in zip(formats, paths[recording], strict=True):
                    write_whole(path, WRITERS[kind](recording.name, transcript))
            finished.append((recording, transcript))
            progress.advance(bar, recording.duration)
    if not arguments.output:
        for recording, transcript in finished:
            # Which text is whose: json says it itself.
            label = f"{recording.name}: " if len(finished) > 1 and formats == ["txt"] else ""
            print(label + WRITERS[formats[0]](recording.name, transcript), end="")
    return [transcript for _, transcript in finished]


def _formats(given: Sequence[str], known: list[str]) -> list[str]:
    """The formats, separated by spaces or commas, each once."""
    from ..errors import InputError

    formats = list(dict.fromkeys(kind for item in given for kind in item.split(",")))
    for kind in formats:
        if kind not in known:
            raise InputError(
                f"there is no format {kind!r}; the formats are {', '.join(known)} (files go before flags)"
            )
    return formats


def _check_printable(formats: list[str], files: int) -> None:
    from ..errors import InputError

    if len(formats) > 1:
        raise InputError("several formats need --output, a folder for them")
    if files > 1 and formats[0] in ("srt", "vtt"):
        raise InputError(f"several files in {formats[0]} need --output, a folder for them")


def main(argv: Sequence[str]) -> None:
    run_parsed("fastwhisper transcribe", DESCRIPTION, argv, TranscribeArguments, transcribe, positional=FILES)
