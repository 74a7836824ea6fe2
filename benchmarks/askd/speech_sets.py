"""The clips that models are measured on, and what an encoder makes of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper.data.audio import load_audio
from fastwhisper.data.languages import language_code
from fastwhisper.data.row_store import RowStore
from fastwhisper.data.stored_states import StoredStates, heard_key
from fastwhisper.data.true_length_features import sample_frames
from fastwhisper.modeling.true_length_whisper import TrueLengthEncoderOutput
from fastwhisper.trainers.askd_caches import encoder_states
from fastwhisper.trainers.cached_rows import encoder_key
from fastwhisper.transcription.recording_features import context_features
from fastwhisper.transcription.true_length import context_of, is_true_length, stacked


@dataclass(frozen=True)
class Clip:
    """A clip to be measured on.

    Args:
        audio: what `load_audio` reads.
        heard (`str`): the key of its content.
        samples (`int`): its length at 16 kHz.
        text (`str`): what is said, not normalised.
        language (`str`, *optional*): its code.
    """

    audio: Any
    heard: str
    samples: int
    text: str
    language: str | None

    @classmethod
    def of_row(cls, row: dict[str, Any], language: str | None) -> "Clip":
        samples = len(load_audio(row["audio"]))
        code = language_code(language or row.get("language"))
        return cls(row["audio"], heard_key(row), samples, row.get("text") or "", code)

    @classmethod
    def of_samples(cls, samples: np.ndarray, language: str | None) -> "Clip":
        audio = {"array": samples, "sampling_rate": 16_000}
        return cls(audio, heard_key({"audio": audio}), len(samples), "", language)


class Ear:
    """What a model's encoder makes of clips. Of a frozen encoder it is kept, and computed once for all cells.

    Args:
        model (`WhisperForConditionalGeneration`): in evaluation mode.
        processor (`WhisperProcessor`): its processor.
        store (`RowStore`, *optional*): where the states are kept, in float16, as in training.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, processor: WhisperProcessor, store: RowStore | None = None
    ) -> None:
        self.model, self.processor = model, processor
        self._stored: StoredStates | None = None
        if store is not None:
            self._stored = encoder_states(model, store, processor.feature_extractor, torch.float16)

    def batches(self, clips: Sequence[Clip], batch_size: int) -> Iterator[tuple[list[int], Any]]:
        """Batches of clips of one language and like length: their indices, and the output of the encoder."""

        def order(index: int) -> tuple[str, int]:
            return (str(clips[index].language), self.context(clips[index]))

        batch: list[int] = []
        for index in sorted(range(len(clips)), key=order):
            if batch and (len(batch) == batch_size or clips[batch[0]].language != clips[index].language):
                yield batch, self.encoded([clips[other] for other in batch])
                batch = []
            batch.append(index)
        if batch:
            yield batch, self.encoded([clips[other] for other in batch])

    @torch.no_grad()
    def encoded(self, clips: Sequence[Clip]) -> TrueLengthEncoderOutput:
        """The output of the encoder `(batch, positions, hidden)`, each clip in its own context."""
        contexts = [self.context(clip) for clip in clips]
        found: list[torch.Tensor | None] = [self._read(*pair) for pair in zip(clips, contexts, strict=True)]
        missing = [index for index, states in enumerate(found) if states is None]
        if missing:
            computed = self._compute([clips[index] for index in missing], [contexts[index] for index in missing])
            for index, states in zip(missing, computed, strict=True):
                kept = states[: contexts[index] // 2]
                if self._stored is not None:
                    key = encoder_key(self._stored, clips[index].heard, contexts[index] // 2)
                    kept = self._stored.write(key, kept)
                found[index] = kept
        rows = [states.to(self.model.device, torch.float32) for states in found if states is not None]
        lengths = [len(row) for row in rows]
        positions = torch.tensor(lengths, device=self.model.device) if len(set(lengths)) > 1 else None
        return TrueLengthEncoderOutput(pad_sequence(rows, batch_first=True), positions=positions)

    def context(self, clip: Clip) -> int:
        """Feature frames that the model is given of a clip."""
        return context_of(self.model, sample_frames(clip.samples, self.processor.feature_extractor))

    def _read(self, clip: Clip, context: int) -> torch.Tensor | None:
        if self._stored is None:
            return None
        return self._stored.read(encoder_key(self._stored, clip.heard, context // 2), context // 2)

    def _compute(self, clips: Sequence[Clip], contexts: list[int]) -> torch.Tensor:
        extractor = self.processor.feature_extractor
        heard = (load_audio(clip.audio) for clip in clips)
        features = stacked([context_features(one, extractor, each) for one, each in zip(heard, contexts, strict=True)])
        own: dict[str, Any] = {"context_frames": contexts} if is_true_length(self.model) else {}
        return self.model.model.encoder(features.to(self.model.device), **own).last_hidden_state
