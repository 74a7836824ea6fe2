"""`fastwhisper transcribe`: the text of audio files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .arguments import Verb, given
from .shared_arguments import DeviceArguments, SpeechArguments, TrustArguments

if TYPE_CHECKING:
    from ..transcription.transcripts import Transcript


@dataclass
class ModelArguments:
    """Model."""

    model: str = field(metadata={"help": "name on the Hub or folder of the model"})
    engine: str = field(
        default="transformers",
        metadata={
            "help": "transformers, or ctranslate2 for a folder of fastwhisper export --to ctranslate2",
            "metavar": "ENGINE",
        },
    )


@dataclass
class DecodingArguments:
    """Decoding."""

    word_timestamps: bool = field(default=False, metadata={"help": "add word times, in json and vtt"})
    batch_size: int = field(default=8, metadata={"help": "short files decoded together"})
    num_beams: int = field(default=1, metadata={"help": "beams; 1 is greedy"})
    seed: int = field(default=0, metadata={"help": "seed for sampling, used if the model repeats itself or is unsure"})


@dataclass
class OutputArguments:
    """Output."""

    format: list[str] = field(
        default_factory=lambda: ["txt"],
        metadata={"help": "txt (default), srt, vtt, json, or several of them", "metavar": "FORMAT ..."},
    )
    output: str | None = field(
        default=None,
        metadata={"help": "folder for the transcripts; without it they are printed", "metavar": "FOLDER"},
    )


VERB = Verb(
    "fastwhisper transcribe",
    "Transcribe audio files, folders of them, or standard input (-).\n\n"
    "A file that cannot be read is reported on standard error and the rest are transcribed; the exit code is then 1,\n"
    "or 2 if none could be read.",
    "fastwhisper transcribe talk.flac interviews --model openai/whisper-small --format srt json --output texts",
    [ModelArguments, SpeechArguments, DecodingArguments, DeviceArguments, TrustArguments, OutputArguments],
    ("files", "audio files, folders (searched recursively), or - for standard input; put them before the flags"),
)


def run(
    files: Sequence[str],
    model: ModelArguments,
    speech: SpeechArguments,
    decoding: DecodingArguments,
    device: DeviceArguments,
    trust: TrustArguments,
    output: OutputArguments,
) -> int:
    """Transcribe; without an output folder, print each transcript as soon as it is done."""
    import sys
    from pathlib import Path

    from ..errors import InputError, check_seed
    from ..progress import quiet_transformers
    from ..transcription.transcribe_files import transcribe_files
    from .console import show_results

    formats = _formats(output.format)
    several = len(files) > 1 or (len(files) == 1 and Path(files[0]).is_dir())
    if not files:
        raise InputError("no audio files given; see fastwhisper transcribe --help")
    check_seed(decoding.seed)
    if output.output is None:
        _check_printable(formats, several)
    quiet_transformers()
    results = transcribe_files(
        files,
        **given(model),
        **given(speech),
        **given(decoding),
        **given(device),
        **given(trust),
        formats=formats,
        output=output.output,
        standard_input=sys.stdin.buffer,
        show_progress=True,
    )

    def show_one(name: str, transcript: "Transcript") -> None:
        if output.output is None:
            _show_transcript(name, files, transcript, formats[0], labelled=several)

    return show_results("transcribe", results, show_one)


def _formats(given: Sequence[str]) -> list[str]:
    """The formats, separated by spaces or commas, each once."""
    from ..errors import InputError
    from ..transcription.subtitles import WRITERS

    formats = list(dict.fromkeys(kind for item in given for kind in item.split(",")))
    for kind in formats:
        if kind not in WRITERS:
            raise InputError(
                f"there is no format {kind!r}; the formats are {', '.join(WRITERS)} (files go before the flags)"
            )
    return formats


def _check_printable(formats: list[str], several: bool) -> None:
    from ..errors import InputError

    if len(formats) > 1:
        raise InputError("several formats need --output FOLDER")
    if several and formats[0] in ("srt", "vtt"):
        raise InputError(f"several files in {formats[0]} need --output FOLDER")


def _show_transcript(name: str, files: Sequence[str], transcript: "Transcript", kind: str, labelled: bool) -> None:
    from ..transcription.recordings import public_name
    from ..transcription.subtitles import WRITERS
    from .console import show

    # JSON itself says which file it belongs to.
    label = f"{name}: " if labelled and kind == "txt" else ""
    show(label + WRITERS[kind](public_name(name, files), transcript))


def main(argv: Sequence[str]) -> int | None:
    return VERB.run(argv, run)
