"""From rows of audio and text to the batches that Whisper is trained on."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperProcessor

from ..errors import InputError, check_probabilities
from ..modeling.true_length_whisper import context_frames
from ..modeling.waveforms import SAMPLING_RATE
from .audio import describe_audio, load_audio
from .label_encoding import LabelEncoder, prepared_labels
from .row_checks import WINDOW_TOLERANCE_SECONDS
from .true_length_features import clip_frames, features_at_context

IGNORED = -100
FULL_LENGTH = "full_length"  # of a row: whether it is heard in a whole window


@dataclass
class SpeechCollator:
    r"""Collates rows with `audio` and `text` into `input_features`, `labels` and, with prompts, `decoder_input_ids`.

    Labels are what `WhisperTokenizer` makes of the text, without the first start token, which is only an input:
    language, task and `<|notimestamps|>` are learnt, as in OpenAI's Whisper. Rows that already hold
    `input_features` or `labels` (and `decoder_input_ids`) are only padded. SpecAugment is left to the model.

    Whether a row gets its timestamps or its prompt depends only on the seed and the row: any order, any number of
    processes and a resumed run draw the same. So does whether it is heard in a whole window, unless the row says so
    itself, as `full_length`.

    Args:
        processor (`WhisperProcessor`):
            Its window, mel bins and tokenizer.
        language (`str`, *optional*):
            What `language_code` understands, for all rows; by default each row's own `language`, then the
            tokenizer's setting.
        task (`str`, *optional*):
            `transcribe` or `translate`; the tokenizer's own setting by default.
        timestamp_probability (`float`, *optional*, defaults to 0.0):
            Share of the rows with timestamps, in `timestamped_text`, `whisper_transcript` or `text`, that are trained
            with them.
        prompt_probability (`float`, *optional*, defaults to 0.0):
            Share of the rows with `previous_text` that get it as their prompt, at most half of the decoder long.
        max_target_positions (`int`, *optional*, defaults to 448):
            Longest input of the decoder, in tokens.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.
        pad_token_id (`int`, *optional*):
            The model's; by default the tokenizer's, or its end of text if it has none.
        hears (`bool`, *optional*, defaults to `True`):
            Whether batches have `input_features`; without, no audio is read.
        true_length (`bool`, *optional*, defaults to `False`):
            Features of the rows' own lengths, for training; at evaluation the model cuts those of a window itself.
        true_length_margin (`float`, *optional*, defaults to 0.5):
            Seconds of silence behind a row; the sum is rounded up to a second.
        full_length_probability (`float`, *optional*, defaults to 0.25):
            Share of the rows that are heard in a whole window all the same.
    """

    processor: WhisperProcessor
    language: str | None = None
    task: str | None = None
    timestamp_probability: float = 0.0
    prompt_probability: float = 0.0
    max_target_positions: int = 448
    seed: int = 0
    pad_token_id: int | None = None
    hears: bool = True
    true_length: bool = False
    true_length_margin: float = 0.5
    full_length_probability: float = 0.25

    def __post_init__(self) -> None:
        check_probabilities(
            timestamp_probability=self.timestamp_probability,
            prompt_probability=self.prompt_probability,
            full_length_probability=self.full_length_probability,
        )
        tokenizer = self.processor.tokenizer
        own = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._pad = own if self.pad_token_id is None else self.pad_token_id
        self._encoder = LabelEncoder(tokenizer, self.language, self.task)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows.

        Returns:
            `dict[str, torch.Tensor]`: `input_features` (batch, mel, frames) float32; `labels` (batch, tokens) int64,
            padding and prompt -100; where prompts are used `decoder_input_ids` (batch, tokens) int64; at true length
            `context_frames` and `audio_frames` (batch,) int64, see [`features_at_context`].

        Raises:
            InputError: for audio that cannot be read, is empty or longer than the window, or labels over the decoder's
                limit; the message names the file.
        """
        sequences = [self.decoder_sequences(row) for row in rows]
        batch = {
            **(self._features(rows) if self.hears else {}),
            "labels": pad_sequence([labels for _, labels in sequences], batch_first=True, padding_value=IGNORED),
        }
        if self.prompt_probability > 0 or any(row.get("decoder_input_ids") is not None for row in rows):
            inputs = [inputs for inputs, _ in sequences]
            batch["decoder_input_ids"] = pad_sequence(inputs, batch_first=True, padding_value=self._pad)
        return batch

    def _features(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        if not self.true_length:
            return {"input_features": self._input_features(rows)}
        clips = [self._clip(row) for row in rows]
        full_length = [self._is_full_length(row) for row in rows]
        return features_at_context(clips, full_length, self.true_length_margin, self.processor.feature_extractor)

    def contexts(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Mel frames with which each row is heard."""
        window = self.processor.feature_extractor.nb_max_frames
        if not self.true_length:
            return [window] * len(rows)
        return [
            window
            if self._is_full_length(row)
            else context_frames(self.audio_frames(row), self.true_length_margin, window)
            for row in rows
        ]

    def audio_frames(self, row: Mapping[str, Any]) -> int:
        """Mel frames of audio of a row."""
        return clip_frames(self._clip(row), self.processor.feature_extractor)

    def _clip(self, row: Mapping[str, Any]) -> np.ndarray | torch.Tensor:
        return self._samples(row) if row.get("input_features") is None else _prepared_features(row)

    def _is_full_length(self, row: Mapping[str, Any]) -> bool:
        if row.get(FULL_LENGTH) is not None:
            return bool(row[FULL_LENGTH])
        prepared = row.get("audio") is None and row.get("input_features") is not None
        content = _prepared_features(row).numpy().tobytes() if prepared else b""
        return self._draws(row, b"full length" + content).random() < self.full_length_probability

    def _input_features(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Log-mel features (batch, mel, frames) of the processor's window."""
        features: dict[int, torch.Tensor] = {}
        samples: dict[int, np.ndarray] = {}
        for index, row in enumerate(rows):
            if row.get("input_features") is None:
                samples[index] = self._samples(row)
            else:
                features[index] = _prepared_features(row)
        if samples:
            extracted = self.processor.feature_extractor(
                list(samples.values()), sampling_rate=SAMPLING_RATE, return_tensors="pt"
            ).input_features
            features.update(zip(samples, extracted, strict=True))
        return torch.stack([features[index] for index in range(len(rows))])

    def _samples(self, row: Mapping[str, Any]) -> np.ndarray:
        samples = load_audio(row["audio"])
        window = self.processor.feature_extractor.chunk_length
        seconds = samples.size / SAMPLING_RATE
        if seconds > window + WINDOW_TOLERANCE_SECONDS:
            raise InputError(
                f"{describe_audio(row['audio'])} is {seconds:.1f} s long but the window only {window} s; "
                "drop_unusable_rows leaves such rows out"
            )
        return samples

    def decoder_sequences(self, row: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoder input ids and labels of a row, of equal length."""
        prepared = prepared_labels(row)
        if prepared is None:
            inputs, labels = self._encode(row)
        else:
            labels = prepared
            inputs = row.get("decoder_input_ids") or self._shifted(labels)
        if len(labels) > self.max_target_positions:
            raise InputError(
                f"{_describe_row(row)} has {len(labels)} label tokens but the decoder takes only "
                f"{self.max_target_positions}; drop_unusable_rows leaves such rows out"
            )
        return torch.tensor(inputs), torch.tensor(labels)

    def _encode(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        if not isinstance(row.get("text"), str):
            raise InputError(f"{_describe_row(row)} has no text; drop_unusable_rows leaves such rows out")
        draws = self._draws(row)
        timestamps = draws.random() < self.timestamp_probability
        prompted = draws.random() < self.prompt_probability
        tokens = self._encoder.tokens(row, timestamps)
        prompt: list[int] = []
        if prompted and isinstance(row.get("previous_text"), str):
            room = self.max_target_positions + 1 - len(tokens)
            prompt = self._encoder.prompt(row["previous_text"], min(self.max_target_positions // 2, room))
        # The prompt is context: neither it nor the start token after it is learnt.
        return [*prompt, *tokens[:-1]], [*[IGNORED] * len(prompt), *tokens[1:]]

    def _shifted(self, labels: list[int]) -> list[int]:
        """Decoder input ids for labels, as Whisper derives them."""
        start = self.processor.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
        return [start, *(self._pad if label == IGNORED else label for label in labels[:-1])]

    def _draws(self, row: Mapping[str, Any], purpose: bytes = b"") -> random.Random:
        digest = hashlib.blake2b(f"{self.seed}\n{row.get('text')}\n{row.get('previous_text')}\n".encode())
        digest.update(_fingerprint(row.get("audio")))
        digest.update(purpose)
        return random.Random(digest.digest())


def _prepared_features(row: Mapping[str, Any]) -> torch.Tensor:
    return torch.as_tensor(np.asarray(row["input_features"], dtype=np.float32))


def _fingerprint(audio: Any) -> bytes:
    """A key that tells rows with the same text apart, and does not depend on where the dataset is stored."""
    if isinstance(audio, Mapping):
        if audio.get("path"):
            return PurePath(audio["path"]).name.encode()
        if audio.get("bytes"):
            return audio["bytes"]
        return np.asarray(audio.get("array", ()), dtype=np.float32).tobytes()
    if isinstance(audio, str | PurePath):
        return PurePath(audio).name.encode()
    return audio if isinstance(audio, bytes) else b""


def _describe_row(row: Mapping[str, Any]) -> str:
    audio = describe_audio(row["audio"]) if row.get("audio") is not None else "a row"
    return f"{audio} ({row['text'][:40]!r})" if row.get("text") else audio
