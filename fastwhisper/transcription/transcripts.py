"""The parts of a transcription: text, segments, words; all times in seconds from the start of the audio."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .token_kinds import TokenKinds


@dataclass(frozen=True)
class Word:
    """A word with its punctuation, without surrounding space; `start` and `end` in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A phrase as cut by the model; `start` and `end` in seconds, `words` empty unless requested."""

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
        segments (`list[Segment]`): in order, without overlap; without timestamps, one for the whole clip.
        language (`str`, *optional*): code of the language that was given or detected.
    """

    text: str
    duration: float
    segments: list[Segment]
    language: str | None = None


@dataclass(frozen=True)
class Window:
    """What a window of a clip says.

    Args:
        tokens (`list[int]`): ids of text and times.
        segments (`list[Segment]`): times in seconds from the start of the clip; they may overlap those of others.
        language (`str`, *optional*): code of the language that was given or detected.
        end (`float`): seconds of the clip that are done.
    """

    tokens: list[int]
    segments: list[Segment]
    language: str | None
    end: float


class Transcription:
    """The transcription of a recording, decoded while it is read.

    Segments are available as soon as the window of audio that they end in is decoded, and can be read again. The
    language is known after the first window; the text needs all of them.

    Args:
        windows (`Iterable[Window]`): in order; read once, one at a time.
        kinds (`TokenKinds`): of the tokenizer that the windows were decoded with.
        duration (`float`): length of the recording in seconds.
    """

    def __init__(self, windows: Iterable[Window], kinds: TokenKinds, duration: float) -> None:
        self.duration = duration
        self._windows = iter(windows)
        self._kinds = kinds
        self._decoded: list[Window] = []
        self._segments: list[Segment] = []
        self._coming = in_order(self._decode(), duration)

    @property
    def segments(self) -> Iterator[Segment]:
        """The segments in order, each with its words if requested."""
        position = 0
        while position < len(self._segments) or self._next_segment():
            yield self._segments[position]
            position += 1

    @property
    def language(self) -> str | None:
        """Code of the language that was given or detected."""
        if not self._decoded:
            self._next_segment()
        return self._decoded[0].language

    @property
    def text(self) -> str:
        """The whole text, without surrounding space."""
        while self._next_segment():
            pass
        return self._kinds.text(token for window in self._decoded for token in window.tokens)

    @property
    def transcript(self) -> Transcript:
        """The complete transcript, for `subtitles.WRITERS` and for JSON."""
        return Transcript(self.text, self.duration, list(self.segments), self.language)

    def _decode(self) -> Iterator[Segment]:
        for window in self._windows:
            self._decoded.append(window)
            yield from window.segments

    def _next_segment(self) -> bool:
        segment = next(self._coming, None)
        if segment is not None:
            self._segments.append(segment)
        return segment is not None


def in_order(segments: Iterable[Segment], duration: float) -> Iterator[Segment]:
    """Segments and their words, shifted if needed so that none overlaps, runs backwards or leaves the audio."""
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
