"""What a transcription is: text, segments, words, all times in seconds from the start of the audio."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Word:
    """A word with its punctuation, without surrounding space; `start` and `end` in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A phrase as the model cut it; `start` and `end` in seconds, `words` empty unless asked for."""

    text: str
    start: float
    end: float
    words: list[Word] = field(default_factory=list)


@dataclass(frozen=True)
class Transcript:
    """The transcription of one clip.

    Args:
        text (`str`): the whole text, without surrounding space.
        duration (`float`): length of the audio in seconds.
        segments (`list[Segment]`): in order, none overlapping; without timestamps one over the whole clip.
        language (`str`, *optional*): code of the language that was given or detected.
    """

    text: str
    duration: float
    segments: list[Segment]
    language: str | None = None


def in_order(segments: Iterable[Segment], duration: float) -> Iterator[Segment]:
    """Segments and their words, moved where needed so that none overlaps, runs backwards or leaves the audio."""
    position = spoken = 0.0
    for segment in segments:
        start, position = _clamped(segment.start, segment.end, position, duration)
        words = []
        for word in segment.words:
            word_start, spoken = _clamped(word.start, word.end, spoken, duration)
            words.append(Word(word.text, word_start, spoken))
        yield replace(segment, start=start, end=position, words=words)


def _clamped(start: float, end: float, earliest: float, latest: float) -> tuple[float, float]:
    start = min(max(round(start, 3), earliest), latest)
    return start, min(max(round(end, 3), start), latest)
