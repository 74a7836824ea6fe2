"""Transcripts as plain text, SubRip, WebVTT and JSON."""

import html
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .transcripts import Transcript, Word


@dataclass(frozen=True)
class Cue:
    """A subtitle on one line; `start` and `end` in milliseconds, `start` before `end`."""

    start: int
    end: int
    text: str
    words: list[Word]


def cues(transcript: Transcript) -> list[Cue]:
    """The segments with text, each at least a millisecond long and none starting before the previous one ends."""
    found, position = [], 0
    for segment in transcript.segments:
        # Players take a blank line as the end of a cue.
        text = " ".join(segment.text.split())
        if text:
            start = max(round(1000 * segment.start), position)
            position = max(round(1000 * segment.end), start + 1)
            found.append(Cue(start, position, text, segment.words))
    return found


def to_txt(name: str, transcript: Transcript) -> str:
    """The text on one line."""
    return f"{transcript.text}\n"


def to_srt(name: str, transcript: Transcript) -> str:
    """SubRip: numbered cues, commas before milliseconds."""
    blocks = []
    for number, cue in enumerate(cues(transcript), 1):
        # The arrow stands for a time range and cannot be escaped in SubRip.
        text = cue.text.replace("-->", "->")
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(name: str, transcript: Transcript) -> str:
    """WebVTT; words with times are marked with their start, which players use to highlight them."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_marked(cue)}\n")
    return "\n".join(blocks)


def to_json(name: str, transcript: Transcript) -> str:
    """One JSON object on one line: file, language, duration, text, segments with their words; times in seconds."""
    return json.dumps({"file": name, **asdict(transcript)}, ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[str, Transcript], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "json": to_json,
}


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _marked(cue: Cue) -> str:
    """The escaped text of a cue with a timestamp before each word that starts within it, in ascending order."""
    parts, position, latest = [], 0, cue.start
    for word in cue.words:
        found = cue.text.find(word.text, position)
        if found < 0:
            continue  # half a letter, which the text of the whole segment shows differently
        start = round(1000 * word.start)
        parts.append(html.escape(cue.text[position:found], quote=False))
        if latest < start < cue.end:
            parts.append(f"<{_clock(start, '.')}>")
            latest = start
        parts.append(html.escape(word.text, quote=False))
        position = found + len(word.text)
    return "".join(parts) + html.escape(cue.text[position:], quote=False)
