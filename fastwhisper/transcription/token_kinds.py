"""Which token ids of a Whisper are text, which are times, and which control the decoder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from transformers import GenerationConfig, LogitsProcessor, WhisperTimeStampLogitsProcessor, WhisperTokenizer

from ..data.timestamps import RESOLUTION

_TIME = re.compile(r"<\|\d+\.\d\d\|>")
_CONTROL = re.compile(r"<\|.*\|>")
# Tokenizers of 2022 end at <|notimestamps|>; their models still have time tokens from 0 to 30 s after it.
_DEFAULT_TIMES = 1501


class TokenKinds:
    """Text, time and control tokens of a tokenizer.

    Tokens added by a fine-tune come after the last time token and are text, unless they were added as special.

    Args:
        tokenizer (`WhisperTokenizer`): not changed.
    """

    def __init__(self, tokenizer: WhisperTokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        times = [token_id for token_id, token in added.items() if _TIME.fullmatch(token.content)]
        self.end_of_text: int = tokenizer.eos_token_id
        self.no_timestamps = int(tokenizer.convert_tokens_to_ids("<|notimestamps|>"))  # type: ignore[arg-type]
        self.first_time = min(times) if times else self.no_timestamps + 1
        self.end_of_times = max(times) + 1 if times else self.first_time + _DEFAULT_TIMES
        controls = {
            token_id for token_id, token in added.items() if token.special or _CONTROL.fullmatch(token.content)
        }
        self._silent = controls.union(tokenizer.all_special_ids, range(self.first_time, self.end_of_times))

    def is_time(self, token: int) -> bool:
        return self.first_time <= token < self.end_of_times

    def is_text(self, token: int) -> bool:
        return token not in self._silent

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without surrounding space."""
        return self._tokenizer.decode([token for token in tokens if self.is_text(token)]).strip()


class TimestampRules(LogitsProcessor):
    """The rules that Whisper's time tokens follow, also for vocabularies with added tokens after the times.

    transformers' rules take every id from the first time token on as a time: an added word would end a segment, and
    no time could follow it. With the added tokens moved to the front, all ids keep their order and times come last.

    Args:
        config (`GenerationConfig`): of the model, for its `max_initial_timestamp_index`.
        kinds (`TokenKinds`): where text and times are.
        vocabulary (`int`): number of ids that the model scores.
        begin (`int`): position of the first generated token.
    """

    def __init__(self, config: GenerationConfig, kinds: TokenKinds, vocabulary: int, begin: int) -> None:
        self._added = max(0, vocabulary - kinds.end_of_times)
        self._vocabulary = vocabulary
        turned = GenerationConfig(
            eos_token_id=kinds.end_of_text + self._added,
            no_timestamps_token_id=kinds.no_timestamps + self._added,
            max_initial_timestamp_index=getattr(config, "max_initial_timestamp_index", None),
        )
        self._rules = WhisperTimeStampLogitsProcessor(turned, begin_index=begin)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        ids = (input_ids + self._added) % self._vocabulary
        return self._rules(ids, scores.roll(self._added, dims=-1)).roll(-self._added, dims=-1)


@dataclass
class Piece:
    """A segment as the model wrote it.

    Args:
        start (`float`), end (`float`): in seconds from the start of the window, later of the recording.
        tokens (`list[int]`): ids, those of its times included.
        text_tokens (`list[int]`): ids of its text.
        times (`list[float]`): if wanted, when each text token begins and when the last one ends.
    """

    start: float
    end: float
    tokens: list[int]
    text_tokens: list[int]
    times: list[float] = field(default_factory=list)

    def delay(self, seconds: float) -> None:
        """Shift all times."""
        self.start += seconds
        self.end += seconds
        self.times = [time + seconds for time in self.times]


def pieces(tokens: list[int], kinds: TokenKinds, frames: int) -> tuple[list[Piece], int]:
    """Segments of a window, and where the next window begins.

    Two times in a row end a segment and start the next. What follows the last such pair is unfinished and is
    decoded again in the next window; a single time at the end says that nothing follows.

    Args:
        tokens (`list[int]`): what was generated in the window, without the end of text.
        kinds (`TokenKinds`): which of them are times.
        frames (`int`): feature frames of audio in the window, 10 ms each.

    Returns:
        `tuple[list[Piece], int]`: the segments, and the frames to move on by.

    Source: `WhisperGenerationMixin._retrieve_segment`, after `transcribe.py` of openai-whisper.
    """
    times = [kinds.is_time(token) for token in tokens]

    def seconds(position: int) -> float:
        return (tokens[position] - kinds.first_time) * RESOLUTION

    def piece(start: float, end: float, part: list[int]) -> Piece:
        return Piece(start, end, part, [token for token in part if kinds.is_text(token)])

    cuts = [position for position in range(1, len(tokens)) if times[position - 1] and times[position]]
    if not cuts:
        last = max((position for position, is_time in enumerate(times) if is_time), default=None)
        end = frames // 2 * RESOLUTION if last is None or tokens[last] == kinds.first_time else seconds(last)
        return [piece(0.0, end, tokens)], frames
    if times[-2:] == [False, True]:
        bounds, moved = [0, *cuts, len(tokens)], frames
    else:
        bounds, moved = [0, *cuts], 2 * (tokens[cuts[-1] - 1] - kinds.first_time)
    found = [
        piece(seconds(start), seconds(end - 1), tokens[start:end])
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]
    # A model that is bad at times may end a segment at 0, so that the window would not move, or after the window.
    return found, min(moved, frames) or frames
