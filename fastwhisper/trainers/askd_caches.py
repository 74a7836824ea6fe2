"""The caches of an ASKD training: the teacher's states and the frozen encoder's output, each computed once a row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperFeatureExtractor

from ..data.collator import SpeechCollator
from ..data.row_store import RowStore, content_key
from ..data.stored_states import StoredStates, extractor_key, weights_key
from ..errors import InputError
from ..modeling.true_length_whisper import TrueLengthEncoderOutput
from ..transcription.teacher_states import TeacherStates
from .askd_loss import Predictions
from .askd_teachers import encoder_is_frozen, frozen_encoder_weights, whisper_of
from .cached_rows import CachedRows, Found

_HEARD = ("input_features", "context_frames")

Encode = Callable[[dict[str, Any]], Any]
# Of some rows of a batch (which ones, their keys and lengths) their states, one after another.
Compute = Callable[[torch.Tensor, list[str], list[int]], torch.Tensor]


@dataclass
class ASKDCaches:
    r"""What an [`ASKDTrainer`] reads in place of running models, and keeps where it had to run them.

    Args:
        teacher (`TeacherStates`, *optional*): in place of a `teacher_model`.
        encoder (`StoredStates`, *optional*): the output of the student's encoder, by [`encoder_states`].

    Attributes:
        computed (`dict[str, int]`): rows that this process ran the `teacher` and the `encoder` for.
        damaged (`dict[str, int]`): those of them whose entry was damaged.
        reads_teacher (`bool`): whether the training needs the teacher's decoder states.
        compares_encoders (`bool`): whether it needs the teacher's encoder states; their rows are counted as those of
            the `teacher_encoder`.
    """

    teacher: TeacherStates | None = None
    encoder: StoredStates | None = None
    computed: dict[str, int] = field(default_factory=lambda: {"teacher": 0, "encoder": 0})
    damaged: dict[str, int] = field(default_factory=lambda: {"teacher": 0, "encoder": 0})

    def __post_init__(self) -> None:
        self._rows: CachedRows | None = None
        self._projection: torch.Tensor | None = None
        self.reads_teacher = self.teacher is not None
        self.compares_encoders = False

    def __bool__(self) -> bool:
        return self.teacher is not None or self.encoder is not None

    def check(self, student: nn.Module, collate: Any) -> None:
        """Check that a student and a collator can be trained with these caches.

        Raises:
            InputError: for an encoder that is trained, or hears otherwise every time; for another collator.
        """
        if not isinstance(collate, SpeechCollator):
            raise InputError("the caches know rows by what SpeechCollator makes of them: give data_collator= one")
        if self.encoder is not None and not encoder_is_frozen(student):
            raise InputError("encoder_cache needs a frozen encoder: the output of one in training changes")
        if self.encoder is not None:
            check_same_every_time(student, collate.processor.feature_extractor)

    def stored(self) -> dict[str, StoredStates]:
        """Those that there are, by name."""
        found: dict[str, StoredStates | None] = {"encoder": self.encoder}
        if self.teacher is not None:
            found = {"teacher": self.teacher.stored, **found}
            found["teacher_encoder"] = self.teacher.encoder if self.compares_encoders else None
        return {name: stored for name, stored in found.items() if stored is not None}

    def compare_encoders(self, wanted: bool) -> None:
        """Whether the teacher's encoder states are read as well, where there is a cache of the teacher."""
        self.compares_encoders = wanted and self.teacher is not None
        if self.compares_encoders:
            for counted in (self.computed, self.damaged):
                counted.setdefault("teacher_encoder", 0)

    def rows(self, collate: SpeechCollator) -> CachedRows:
        """The collator of the training batches."""
        stored = self.stored()
        self._rows = CachedRows(collate, *(stored.get(name) for name in ("teacher", "encoder", "teacher_encoder")))
        self._rows.want_teacher(self.reads_teacher)
        return self._rows

    def want_teacher(self, wanted: bool) -> None:
        """Whether the teacher's decoder states are read from now on; where not, what is loaded of it goes, unless its
        encoder may yet run."""
        self.reads_teacher = wanted and self.teacher is not None
        if self._rows is not None:
            self._rows.want_teacher(self.reads_teacher)
        if not self.reads_teacher:
            self._projection = None
            if not self.compares_encoders:
                self.let_teacher_go()

    def let_teacher_go(self) -> None:
        """Free what is loaded of the teacher; it is loaded again where a row lacks."""
        if self.teacher is not None:
            self.teacher.teacher.let_go()

    def ask_teacher(
        self, cached: dict[str, Any], inputs: dict[str, Any], targets: torch.Tensor, predicts: bool
    ) -> tuple[Predictions | None, torch.Tensor | None]:
        """What the teacher predicts for the target tokens of a batch, and its encoder's states over the speech.

        Its encoder runs once, for the rows of which either is not kept.

        Args:
            cached (`dict`): what `CachedRows` found.
            inputs (`dict`): `input_features` `(batch, mel, frames)`, where a row lacks, and `decoder_input_ids`.
            targets (`torch.Tensor`): `(batch, tokens)`, true where the label is not masked.
            predicts (`bool`): whether its predictions are needed.

        Returns:
            `tuple[Predictions | None, torch.Tensor | None]`: the second `(batch, positions, hidden)`, zeros behind the
            speech of a row; `None` where encoders are not compared.
        """
        teacher = self.teacher
        assert teacher is not None
        asked = {"teacher": predicts, "teacher_encoder": self.compares_encoders}
        found = {name: Found(**cached[name]) for name, wanted in asked.items() if wanted}
        lacks = [not all(row) for row in zip(*(one.present for one in found.values()), strict=True)]
        runs = torch.tensor(lacks, device=targets.device)
        encoded = teacher.teacher.encode(inputs["input_features"][runs]) if any(lacks) else None

        def decode(missing: torch.Tensor, keys: list[str], _: list[int]) -> torch.Tensor:
            ids = inputs["decoder_input_ids"][missing]
            return teacher.compute(keys, encoded[missing[runs]], ids, targets[missing])  # type: ignore[index]

        def keep(missing: torch.Tensor, keys: list[str], lengths: list[int]) -> torch.Tensor:
            rows = zip(encoded[missing[runs]], lengths, strict=True)  # type: ignore[index]
            return teacher.encoder.write_all(keys, (row[:length] for row, length in rows))

        predictions = states = None
        if predicts:
            if self._projection is None:
                self._projection = teacher.teacher.output_layer.to(targets.device, torch.float32)
            last = self._completed("teacher", found["teacher"], targets.device, decode)
            predictions = Predictions(last, self._projection)
        if self.compares_encoders:
            rows = self._completed("teacher_encoder", found["teacher_encoder"], targets.device, keep)
            states = pad_sequence(list(rows.split(found["teacher_encoder"].lengths)), batch_first=True)
        return predictions, states

    def encoder_output(
        self, cached: dict[str, Any], inputs: dict[str, Any], encode: Encode
    ) -> TrueLengthEncoderOutput:
        """Output of the frozen encoder, each row in its context; it runs for the rows that are not kept.

        Args:
            cached (`dict`): what `CachedRows` found.
            inputs (`dict`): `input_features` `(batch, mel, frames)`, where a row lacks, and at true length
                `context_frames` `(batch,)`.
            encode (`Callable`): takes the two of some rows; its result begins with `(rows, positions, hidden)`.
        """
        stored = self.encoder
        assert stored is not None
        found = Found(**cached["encoder"])
        device = inputs["decoder_input_ids"].device

        def compute(missing: torch.Tensor, keys: list[str], lengths: list[int]) -> torch.Tensor:
            heard = {name: inputs[name][missing] for name in _HEARD if name in inputs}
            output = encode(heard)[0]
            return stored.write_all(keys, (row[:length] for row, length in zip(output, lengths, strict=True)))

        rows = self._completed("encoder", found, device, compute).split(found.lengths)
        positions = torch.tensor(found.lengths, device=device) if len(set(found.lengths)) > 1 else None
        return TrueLengthEncoderOutput(pad_sequence(list(rows), batch_first=True), positions=positions)

    def _completed(self, name: str, found: Found, device: torch.device, compute: Compute) -> torch.Tensor:
        """The states of all rows, one after another, `(positions, hidden)`: those found, and the others computed."""
        self.damaged[name] += found.damaged
        states = found.states.to(device)
        if all(found.present):
            return states.float()
        present = torch.tensor(found.present, device=device)
        lacking = [row for row, there in enumerate(found.present) if not there]
        self.computed[name] += len(lacking)
        # What is kept must not depend on the precision of a training, nor can autocast on a CPU join float16.
        with torch.autocast(device.type, enabled=False):
            computed = compute(~present, [found.keys[row] for row in lacking], [found.lengths[row] for row in lacking])
        is_found = present.repeat_interleave(torch.tensor(found.lengths, device=device))
        whole = computed.new_empty(len(is_found), computed.shape[1])
        whole[is_found] = states
        whole[~is_found] = computed
        return whole.float()


def check_same_every_time(student: nn.Module, extractor: WhisperFeatureExtractor) -> None:
    """Check that a student's encoder hears a row in the same way every time.

    Raises:
        InputError: if it does not.
    """
    config = whisper_of(student).config
    if config.apply_spec_augment and (config.mask_time_prob > 0 or config.mask_feature_prob > 0):
        raise InputError(
            "SpecAugment masks the student's audio anew every time, so that no output of its encoder can be kept: "
            "leave out encoder_cache, or set apply_spec_augment in the student's config.json to false"
        )
    if extractor.dither:
        raise InputError("dither adds noise to the audio anew every time: leave out encoder_cache, or set it to 0")


def encoder_states(
    student: nn.Module, store: RowStore, extractor: WhisperFeatureExtractor, dtype: torch.dtype
) -> StoredStates:
    """Where the output of a student's frozen encoder is kept, in a precision."""
    config = whisper_of(student).config
    settings = f"{config.encoder_attention_heads} {config.activation_function} {config.scale_embedding}"
    weights = weights_key(frozen_encoder_weights(student))
    made_by = content_key("encoder", weights, settings, extractor_key(extractor))
    return StoredStates(store, made_by, config.d_model, dtype)
