"""The caches of an ASKD training: the teacher's states and the frozen encoder's output, each computed once a row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import WhisperFeatureExtractor

from ..data.collator import SpeechCollator
from ..data.row_store import RowStore, content_key
from ..data.stored_states import StoredStates, extractor_key, weights_key
from ..errors import InputError
from ..transcription.teacher_states import TeacherStates
from .askd_loss import Predictions
from .askd_teachers import encoder_is_frozen, frozen_encoder_weights, whisper_of
from .cached_rows import CachedRows, Found

Encode = Callable[[dict[str, Any]], torch.Tensor]


@dataclass
class ASKDCaches:
    r"""What an [`ASKDTrainer`] reads in place of running models, and keeps where it had to run them.

    Args:
        teacher (`TeacherStates`, *optional*): in place of a `teacher_model`.
        encoder (`StoredStates`, *optional*): the output of the student's encoder, by [`encoder_states`].

    Attributes:
        computed (`dict[str, int]`): rows that this process ran the `teacher` and the `encoder` for.
        damaged (`int`): entries that this process found damaged, and computed again.
    """

    teacher: TeacherStates | None = None
    encoder: StoredStates | None = None
    computed: dict[str, int] = field(default_factory=lambda: {"teacher": 0, "encoder": 0})
    damaged: int = 0

    def __post_init__(self) -> None:
        self._rows: CachedRows | None = None
        self._projection: torch.Tensor | None = None
        self._teacher_is_wanted = True

    def __bool__(self) -> bool:
        return self.teacher is not None or self.encoder is not None

    def check(self, student: nn.Module, collate: Any) -> None:
        """Check that a student and a collator can be trained with these caches.

        Raises:
            InputError: for an encoder that is trained, or hears otherwise every time; for another collator.
        """
        if not isinstance(collate, SpeechCollator):
            raise InputError("the caches know rows by what SpeechCollator makes of them: give data_collator= one")
        if self.encoder is None:
            return
        config = whisper_of(student).config
        augmented = config.apply_spec_augment and (config.mask_time_prob > 0 or config.mask_feature_prob > 0)
        if not encoder_is_frozen(student):
            raise InputError("the encoder's output changes while it is trained: no encoder_cache without a frozen one")
        if augmented:
            raise InputError(
                "SpecAugment masks the student's audio anew every time, so that there is nothing to keep: leave out "
                "encoder_cache, or set apply_spec_augment in the student's config.json to false"
            )
        if collate.processor.feature_extractor.dither:
            raise InputError("dither adds noise to the audio anew every time: leave out encoder_cache, or set it to 0")

    def rows(self, collate: SpeechCollator, positions: int) -> CachedRows:
        """The collator of the training batches."""
        self._rows = CachedRows(collate, self.teacher.stored if self.teacher else None, self.encoder, positions)
        self._rows.want_teacher(self._teacher_is_wanted)
        return self._rows

    def want_teacher(self, wanted: bool) -> None:
        """Whether the teacher's states are read from now on; where not, what is loaded of it goes."""
        self._teacher_is_wanted = wanted
        if self._rows is not None:
            self._rows.want_teacher(wanted)
        if self.teacher is not None and not wanted:
            self.teacher.teacher.let_go()
            self._projection = None

    def teacher_predictions(
        self, cached: dict[str, Any], inputs: dict[str, Any], targets: torch.Tensor
    ) -> Predictions:
        """What the teacher predicts for the target tokens of a batch; it runs for the rows that are not kept.

        Args:
            cached (`dict`): what `CachedRows` found.
            inputs (`dict`): `input_features` `(batch, mel, frames)`, where a row lacks, and `decoder_input_ids`.
            targets (`torch.Tensor`): `(batch, tokens)`, true where the label is not masked.
        """
        teacher = self.teacher
        assert teacher is not None
        self._count(cached)
        found = Found(**cached["teacher"])

        def compute(missing: torch.Tensor, keys: list[str]) -> torch.Tensor:
            self.computed["teacher"] += len(keys)
            heard, ids = inputs["input_features"][missing], inputs["decoder_input_ids"][missing]
            return teacher.compute(keys, heard, ids, targets[missing])

        if self._projection is None:
            self._projection = teacher.teacher.output_layer.to(targets.device, torch.float32)
        return Predictions(_completed(found, targets.device, compute).float(), self._projection)

    def encoder_output(self, cached: dict[str, Any], inputs: dict[str, Any], encode: Encode) -> torch.Tensor:
        """Output of the frozen encoder, `(batch, positions, hidden)`; it runs for the rows that are not kept."""
        stored = self.encoder
        assert stored is not None
        self._count(cached)
        found = Found(**cached["encoder"])
        device = inputs["decoder_input_ids"].device

        def compute(missing: torch.Tensor, keys: list[str]) -> torch.Tensor:
            self.computed["encoder"] += len(keys)
            # What is kept must not depend on the precision of a training.
            with torch.autocast(device.type, enabled=False):
                output = encode({"input_features": inputs["input_features"][missing]})
            return torch.cat([stored.write(key, row) for key, row in zip(keys, output, strict=True)])

        return _completed(found, device, compute).float().unflatten(0, (len(found.keys), -1))

    def _count(self, cached: dict[str, Any]) -> None:
        self.damaged += cached.pop("damaged", 0)


def encoder_states(
    student: nn.Module, store: RowStore, extractor: WhisperFeatureExtractor, dtype: torch.dtype
) -> StoredStates:
    """Where the output of a student's frozen encoder is kept, in a precision."""
    config = whisper_of(student).config
    settings = f"{config.encoder_attention_heads} {config.activation_function} {config.scale_embedding}"
    weights = weights_key(frozen_encoder_weights(student))
    made_by = content_key("encoder", weights, settings, extractor_key(extractor))
    return StoredStates(store, made_by, config.d_model, dtype)


def _completed(
    found: Found, device: torch.device, compute: Callable[[torch.Tensor, list[str]], torch.Tensor]
) -> torch.Tensor:
    """The states of all rows, one after another, `(positions, hidden)`: those found, and the others computed."""
    states = found.states.to(device)
    if all(found.present):
        return states
    present = torch.tensor(found.present, device=device)
    computed = compute(~present, [key for key, there in zip(found.keys, found.present, strict=True) if not there])
    is_found = present.repeat_interleave(torch.tensor(found.lengths, device=device))
    whole = computed.new_empty(len(is_found), computed.shape[1])
    whole[is_found] = states
    whole[~is_found] = computed
    return whole
