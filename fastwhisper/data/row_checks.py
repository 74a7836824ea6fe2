"""Why a row cannot be trained on, labelled or measured."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import WhisperProcessor

from ..errors import InputError
from .audio import decoded_duration, describe_audio
from .label_encoding import LabelEncoder, prepared_labels

# Resampling may add a sample to audio that fills its window exactly.
WINDOW_TOLERANCE_SECONDS = 0.01
# A frame of Whisper's encoder; resampling may leave nothing of anything shorter.
SHORTEST_SECONDS = 0.02

NO_TEXT = "without text"
BAD_AUDIO = "bad audio"
EMPTY_AUDIO = "empty audio"
SHORT_AUDIO = f"audio under {SHORTEST_SECONDS:g} s"
NO_LANGUAGE = "without language"
UNKNOWN_LANGUAGE = "unknown language"
UNKNOWN_TIMESTAMPS = "unknown timestamps"


@dataclass(frozen=True)
class Drop:
    """Why a row is left out.

    Args:
        reason (`str`): what it is counted under.
        detail (`str`, *optional*): what is wrong with this row, if the reason does not say it all; names the audio.
    """

    reason: str
    detail: str | None = None

    @property
    def is_bad_audio(self) -> bool:
        """Whether the row has no usable audio."""
        return self.reason in (BAD_AUDIO, EMPTY_AUDIO, SHORT_AUDIO)


@dataclass(frozen=True)
class Verdict:
    """What a check found out about a row.

    Args:
        drop (`Drop`, *optional*): why the row is left out; `None` if it is usable.
        seconds (`float`, *optional*): length of its audio, where that was decoded.
    """

    drop: Drop | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RowCheck:
    """What a row must have: audio that can be decoded to its end, and whatever else is required.

    Args:
        needs_text (`bool`, *optional*, defaults to `False`): Rows without `text` are unusable.
        window (`float`, *optional*): Longest audio, in seconds.
        encoder (`LabelEncoder`, *optional*): Makes the labels, if they matter.
        max_target_positions (`int`, *optional*, defaults to 448): Most label tokens that the decoder takes.
    """

    needs_text: bool = False
    window: float | None = None
    encoder: LabelEncoder | None = None
    max_target_positions: int = 448

    @classmethod
    def for_training(
        cls,
        processor: WhisperProcessor,
        max_target_positions: int = 448,
        language: str | None = None,
        task: str | None = None,
    ) -> "RowCheck":
        """A check for what `SpeechCollator` can take; arguments as there."""
        encoder = LabelEncoder(processor.tokenizer, language, task)
        return cls(True, float(processor.feature_extractor.chunk_length), encoder, max_target_positions)

    def __call__(self, row: Mapping[str, Any]) -> Drop | None:
        """Why the row is unusable; `None` if it is usable."""
        return self.verdict(row).drop

    def verdict(self, row: Mapping[str, Any]) -> Verdict:
        """As the call, with the length of the audio that was decoded for it."""
        drop = self._text_drop(row)
        if drop is not None:
            return Verdict(drop)
        heard = self._hear(row)
        return heard if heard.drop is not None else Verdict(self._label_drop(row), heard.seconds)

    def fingerprint(self) -> str:
        """A key that changes whenever the check could decide differently."""
        settings: list[Any] = [self.needs_text, self.window, self.max_target_positions]
        if self.encoder is not None:
            tokenizer = self.encoder.tokenizer
            prompt = self.encoder.start_tokens(self.encoder.row_language({}), timestamps=False)
            settings += [
                self.encoder.given_language,
                prompt,
                tokenizer.eos_token_id,
                sorted(tokenizer.get_vocab().items()),
            ]
        return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()

    def _text_drop(self, row: Mapping[str, Any]) -> Drop | None:
        prepared = self.encoder is not None and prepared_labels(row) is not None
        missing = self.needs_text and not prepared and not isinstance(row.get("text"), str)
        return Drop(NO_TEXT) if missing else None

    def _label_drop(self, row: Mapping[str, Any]) -> Drop | None:
        if self.encoder is None:
            return None
        labels = prepared_labels(row)
        if labels is not None:
            length = len(labels)
        else:
            try:
                language = self.encoder.row_language(row)
                self.encoder.start_tokens(language, timestamps=False)
            except InputError as error:
                return Drop(UNKNOWN_LANGUAGE, str(error))
            # If no row names its language, none is learnt; if others do, this one would teach the model to name none.
            if language is None and "language" in row and self.encoder.names_language:
                return Drop(NO_LANGUAGE)
            try:
                length = self.encoder.longest(row)
            except InputError as error:
                return Drop(UNKNOWN_TIMESTAMPS, str(error))
        return Drop(f"over {self.max_target_positions} label tokens") if length > self.max_target_positions else None

    def _hear(self, row: Mapping[str, Any]) -> Verdict:
        if self.encoder is not None and row.get("input_features") is not None:
            return Verdict()
        audio: Any = row.get("audio")
        try:
            seconds = decoded_duration(audio)
        except InputError as error:
            return Verdict(Drop(BAD_AUDIO, str(error)))
        drop = None
        if seconds == 0:
            drop = Drop(EMPTY_AUDIO, f"{describe_audio(audio)} is empty: it has no samples")
        elif seconds < SHORTEST_SECONDS:
            drop = Drop(SHORT_AUDIO, f"{describe_audio(audio)} is only {1000 * seconds:.3g} ms long")
        elif self.window is not None and seconds > self.window + WINDOW_TOLERANCE_SECONDS:
            drop = Drop(f"audio over {self.window:g} s")
        return Verdict(drop, seconds)
