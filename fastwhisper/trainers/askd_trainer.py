"""The ASKD trainer: `Seq2SeqTrainer` with a loss that leans on the teacher less and less, then on its own past."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, ProcessorMixin, Seq2SeqTrainer, TrainerCallback

from ..errors import InputError
from ..hub_cards.hub_trainer import HubTrainerMixin
from .askd_arguments import ASKDTrainingArguments
from .askd_caches import ASKDCaches
from .askd_checks import check_encoder_settings, check_models, check_true_length
from .askd_inputs import cast, encode_frozen, student_inputs, teacher_inputs, with_decoder_inputs
from .askd_log import LossLog
from .askd_loss import LossSums, LossWeights, Predictions, askd_loss
from .askd_schedule import gap_weight, self_weight_at, teacher_weight_at
from .askd_teachers import (
    SelfTeacher,
    check_teacher,
    encoder_is_frozen,
    predict,
    predict_with_states,
    shares_encoder,
    whisper_of,
)
from .cached_rows import CACHED
from .encoder_distance import AUDIO_FRAMES, EncoderDistance, give_encoder_its_rate
from .finite_steps import ROW_NAMES, FiniteSteps, NamedRows
from .true_length_rows import DrawnRows, TrueLengthSampler, cutting, grouped
from .whole_checkpoints import WholeCheckpointsMixin

STATE_FILE = "askd_state.json"
SELF_TEACHER_FILE = "self_teacher.safetensors"


class ASKDTrainer(WholeCheckpointsMixin, HubTrainerMixin, Seq2SeqTrainer):
    r"""Trains a Whisper student with adaptive self-knowledge distillation; see [`ASKDSettings`] for the loss.

    The loss is normalised by the target tokens of the whole batch: it is the same for 1 process x 8 samples,
    accumulation 8 x 1 and 2 processes x 4. Logged beside `loss`: `ce`, `teacher_kl`, `self_kl` (nats per target
    token), `teacher_weight`, `self_weight`, with which they recombine to `loss`; with the schedule `gap` also `gap`,
    with an `encoder_weight` also `encoder_mse`, which it weighs in `loss`.
    `push_to_hub` uploads a complete folder with a card and nothing private, see [`HubTrainerMixin`].

    Args:
        model (`PreTrainedModel` or `PeftModel`): the student.
        teacher_model (`PreTrainedModel`, *optional*): needed unless `teacher_weight` is 0. It runs in evaluation mode
            without gradient, no longer than its weight is above 0, and then leaves the accelerator.
        args (`ASKDTrainingArguments`): all settings.
        teacher_processing_class (`ProcessorMixin`, *optional*): the teacher's processor; where it is given, sampling
            rate and vocabulary are compared with those of `processing_class`.
        caches (`ASKDCaches`, *optional*): what is read in place of running the teacher or a frozen encoder; then a
            `SpeechCollator` makes the batches of training, and a cache of the teacher stands for `teacher_model`.
        train_seconds (`Sequence[float | None]`, *optional*): length of each training row's audio, as [`usable_rows`]
            found it; where it is not known, files' headers and prepared features are read before training at true
            length.
        kwargs: as for `Seq2SeqTrainer`. Batches are dicts of `input_features` (batch, mel, frames), `labels`
            (batch, tokens; -100 masked), optionally `decoder_input_ids`, `decoder_attention_mask`, `attention_mask`.
            With `true_length` or `encoder_weight`, `data_collator` is a [`SpeechCollator`].

    Raises:
        InputError: for a teacher that does not fit the student, a missing teacher, a student whose output layer is
            adapted by PEFT, label smoothing, several GPUs in one process, what shards or compiles the models, and
            settings of true length, of the encoder and of caches that contradict the models.
    """

    # `compute_loss` divides by the tokens of the whole accumulated batch itself.
    loss_is_scaled_for_ga = True
    needed_files = (STATE_FILE,)

    args: ASKDTrainingArguments
    model: nn.Module
    teacher_model: Any
    self_teacher: Any

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        teacher_model: PreTrainedModel | None = None,
        args: ASKDTrainingArguments | None = None,
        *,
        teacher_processing_class: ProcessorMixin | None = None,
        caches: ASKDCaches | None = None,
        train_seconds: Sequence[float | None] | None = None,
        **kwargs,
    ) -> None:
        if model is None or not isinstance(args, ASKDTrainingArguments):
            raise InputError("ASKDTrainer needs model= and args=ASKDTrainingArguments(...)")
        self._caches = caches or ASKDCaches()
        check_models(model, teacher_model, args, self._caches.teacher is not None)
        if args.freeze_encoder:
            whisper_of(model).freeze_encoder()
        check_true_length(model, args, kwargs.get("data_collator"))
        self.teacher_model = teacher_model
        self._encoder_is_frozen = encoder_is_frozen(model)
        self._encoder_is_shared = False
        taught_by = self._caches.teacher.teacher if self._caches.teacher else teacher_model
        check_encoder_settings(model, taught_by.config if taught_by is not None else None, args)
        if taught_by is not None:
            processor = kwargs.get("processing_class")
            check_teacher(whisper_of(model).config, taught_by.config, processor, teacher_processing_class)
        if self._caches:
            self._caches.check(model, kwargs.get("data_collator"))
        self._caches.compare_encoders(args.encoder_weight > 0.0)
        if teacher_model is not None:
            self._encoder_is_shared = not args.true_length and shares_encoder(model, teacher_model)
            teacher_model.eval().requires_grad_(False)
        if args.cuts_rows:
            args.remove_unused_columns = False  # the collator reads the raw columns
        if args.true_length:
            whisper_of(model).config.true_length = True
            whisper_of(model).config.true_length_margin = args.true_length_margin
        self._train_seconds = train_seconds
        self._sampler: TrueLengthSampler | None = None
        super().__init__(model=model, args=args, **kwargs)
        # Whatever the student's forward accepts, the Trainer must count the target tokens of a step.
        self.model_accepts_loss_kwargs = True
        self._forget()
        self.add_callback(_StepEvents(self))
        self._finite_steps = FiniteSteps(self.accelerator)
        self.add_callback(self._finite_steps)

    def train(self, *args, **kwargs):
        """As `Trainer.train`; every call starts its curriculum anew, unless it resumes from a checkpoint."""
        self._forget()
        result = super().train(*args, **kwargs)
        self._finite_steps.check_weights(self.model, self.state)
        return result

    # ---- the rows ----

    def get_train_dataloader(self):
        """As `Trainer.get_train_dataloader`, at the rows' true lengths where that is asked for.

        The batches name their rows, unless one process sends them to others.
        """
        collate: Any = self.data_collator
        rows: Any = self.train_dataset
        is_stream = isinstance(rows, IterableDataset)
        sent = self.args.accelerator_config.dispatch_batches  # type: ignore[union-attr]
        each_its_own = not (sent or sent is None and is_stream)
        if self._caches and not each_its_own:
            raise InputError("the caches need batches that each process makes itself: set dispatch_batches to false")
        heard = cutting(collate, self.args)
        self.data_collator = self._caches.rows(heard) if self._caches else heard
        if each_its_own:
            self.data_collator = NamedRows(self.data_collator)
        if self.args.true_length and not is_stream:
            self._sampler = grouped(rows, self._train_seconds, collate, self.args)
            self.train_dataset = DrawnRows(rows)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator, self.train_dataset = collate, rows

    def _get_train_sampler(self, train_dataset=None):
        return self._sampler if isinstance(train_dataset, DrawnRows) else super()._get_train_sampler(train_dataset)

    def _get_num_items_in_batch(self, batch_samples, device):
        if self._encoder_distance is not None and batch_samples:
            self._encoder_distance.begin_step(batch_samples, self._total)
        return super()._get_num_items_in_batch(batch_samples, device)

    def _total(self, count: torch.Tensor) -> torch.Tensor:
        """A count of all processes, where they share one normalisation."""
        return self.accelerator.reduce(count) if self.args.average_tokens_across_devices else count

    def create_optimizer(self, *args, **kwargs):
        """As `Trainer.create_optimizer`, with the encoder's own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new and self.args.encoder_learning_rate is not None:
            give_encoder_its_rate(optimizer, whisper_of(self.model).model.encoder, self.args.encoder_learning_rate)
        return optimizer

    def _forget(self) -> None:
        self.self_teacher = None
        self.weights = LossWeights(0.0, 0.0)
        self._weights_step = -1
        self._loss_log = LossLog(self.args.device)
        weight = self.args.encoder_weight
        self._encoder_distance = EncoderDistance(weight, self.args.device) if weight > 0.0 else None
        self._teacher_released = self.teacher_model is None and self._caches.teacher is None
        self._caches.want_teacher(self.args.teacher_weight > 0.0)
        self._running_ce: list[float] | None = None
        if self.teacher_model is not None:
            self._teacher_parts().to(self.args.device)

    # ---- the loss of a micro-batch ----

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The ASKD loss in training; in evaluation the student's own cross-entropy."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs)
        self._set_weights()
        inputs = dict(inputs)
        rows = inputs.pop(ROW_NAMES, [])
        tokens = inputs["labels"].ne(-100).sum() if num_items_in_batch is None else num_items_in_batch
        with self.accelerator.autocast():
            sums = self._loss_sums(model, inputs)
        self._loss_log.add(sums, tokens)
        loss = sums.loss / tokens
        if self._encoder_distance is not None:
            loss = loss + self._encoder_distance.term()
        self._finite_steps.note(loss, rows)
        if self.args.average_tokens_across_devices:
            # DistributedDataParallel averages the gradients of the processes, whose sum is wanted.
            loss = loss * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def _loss_sums(self, model: nn.Module, inputs: dict[str, Any]) -> LossSums:
        inputs = dict(inputs)
        labels, cached = inputs.pop("labels"), inputs.pop(CACHED, {})
        audio_frames = inputs.pop(AUDIO_FRAMES, None)
        inputs = with_decoder_inputs(inputs, labels, whisper_of(self.model).config)
        targets = labels.ne(-100)
        heard = self._student_hears(inputs, cached)
        teacher, its_states = self._ask_teacher(inputs, heard, targets, cached)
        self_teacher = self._ask_self_teacher(inputs, heard, targets)
        student, states = predict_with_states(model, self.model, heard, targets)
        if self._encoder_distance is not None and its_states is not None:
            self._encoder_distance.measure(states, its_states, audio_frames)
        return askd_loss(student, labels[targets], self.weights, teacher, self_teacher, self.args.loss_chunk_size)

    def _student_hears(self, inputs: dict[str, Any], cached: dict[str, Any]) -> dict[str, Any]:
        """The student's inputs: features, or what its frozen encoder made of them."""
        heard = student_inputs(inputs, self.args.true_length)
        encode = partial(encode_frozen, whisper_of(self.model))
        if "encoder" in cached:
            heard["encoder_outputs"] = self._caches.encoder_output(cached, heard, encode)
        elif self._encoder_is_frozen:
            heard["encoder_outputs"] = encode(heard)
        else:
            heard["input_features"] = heard["input_features"].clone()  # SpecAugment masks it in place
        return heard

    @torch.no_grad()
    def _ask_teacher(
        self, inputs: dict[str, Any], heard: dict[str, Any], targets: torch.Tensor, cached: dict[str, Any]
    ) -> tuple[Predictions | None, torch.Tensor | None]:
        """What the teacher predicts while it has a weight, and its encoder's states while their distance has one."""
        predicts, compares = self.weights.teacher_weight > 0.0, self._encoder_distance is not None
        if not predicts and not compares:
            return None, None
        if self._caches.teacher is not None:
            return self._caches.ask_teacher(cached, self._teacher_hears(inputs), targets, predicts)
        hears = cast(heard if self._encoder_is_shared else self._teacher_hears(inputs), self.teacher_model.dtype)
        if predicts:
            teacher, states = predict_with_states(self.teacher_model, self.teacher_model, hears, targets)
            return teacher, states if compares else None
        only = {name: hears[name] for name in ("input_features", "true_length") if name in hears}
        return None, self.teacher_model.model.encoder(**only).last_hidden_state

    def _teacher_hears(self, inputs: dict[str, Any]) -> dict[str, Any]:
        window = 2 * whisper_of(self.model).config.max_source_positions if self.args.cuts_rows else None
        return teacher_inputs(inputs, self.teacher_model, window)

    @torch.no_grad()
    def _ask_self_teacher(
        self, inputs: dict[str, Any], heard: dict[str, Any], targets: torch.Tensor
    ) -> Predictions | None:
        """What the self-teacher predicts from what the student hears, while it has a weight."""
        if self.weights.self_weight == 0.0:
            return None
        return predict(self.self_teacher.model, self.self_teacher.model, heard, targets)

    # ---- the curriculum ----

    def _set_weights(self) -> None:
        """Weights and self-teacher of the step under way."""
        if self._weights_step == self.state.global_step:
            return
        self._weights_step = self.state.global_step
        args = self.args
        progress = self.state.global_step / max(self.state.max_steps, args.max_steps, 1)
        bound = teacher_weight_at(progress, args.schedule, args.mode, args.teacher_weight, args.teacher_decay_end)
        teacher_weight = bound
        if args.schedule == "gap" and self._running_ce is not None:
            # At 0 it stays there: the averages move only while the teacher runs.
            teacher_weight = gap_weight(bound, args.teacher_weight, *self._running_ce)
        if teacher_weight == 0.0 and not self._teacher_released:
            self._teacher_released = True
            self._caches.want_teacher(False)
            if self.teacher_model is not None:
                self._teacher_parts(at_the_end=True).to("cpu")
        self_weight = self_weight_at(
            progress, args.schedule, args.mode, args.self_weight, args.teacher_decay_end, teacher_weight
        )
        if self_weight > 0.0 and self.self_teacher is None:
            self.self_teacher = SelfTeacher(self.model)
        self.weights = LossWeights(teacher_weight, self_weight, args.temperature, args.token_gate)

    def _teacher_parts(self, at_the_end: bool = False) -> nn.Module:
        """What of the teacher runs while it has a weight, or what of that no longer runs without one.

        The student's encoder may serve both; for the distance of the two encoders the teacher's runs to the end.
        """
        if self._encoder_is_shared or at_the_end and self._encoder_distance is not None:
            return nn.ModuleList([self.teacher_model.model.decoder, self.teacher_model.get_output_embeddings()])
        return self.teacher_model

    def _end_step(self) -> None:
        step = self._loss_log.end_step(self.weights)
        if self._encoder_distance is not None:
            self._encoder_distance.end_step()
        if self.args.schedule == "gap" and self.weights.teacher_weight > 0.0:
            ce, _, _, teacher_ce = self._across_processes(step).tolist()
            decay = self.args.gap_decay if self._running_ce is not None else 0.0
            before = self._running_ce or [0.0, 0.0]
            self._running_ce = [
                decay * old + (1.0 - decay) * new for old, new in zip(before, (ce, teacher_ce), strict=True)
            ]
        if self.self_teacher is not None and self.args.self_teacher == "ema":
            self.self_teacher.follow(self.model, self.args.ema_decay)

    def _begin_epoch(self) -> None:
        if self._sampler is not None:
            # accelerate does not find it behind the batches that a resumed run skips.
            self._sampler.set_epoch(int(self.state.epoch))
        # Resuming within an epoch begins it again: only a whole number of epochs is a real beginning.
        if self.self_teacher is not None and self.args.self_teacher == "snapshot" and self.state.epoch % 1.0 == 0.0:
            self.self_teacher.follow(self.model, 0.0)

    # ---- log and checkpoints ----

    def _across_processes(self, sums: torch.Tensor) -> torch.Tensor:
        """Per-token sums of all processes; their mean where each process divides by its own tokens."""
        reduction = "sum" if self.args.average_tokens_across_devices else "mean"
        return self.accelerator.reduce(sums.clone(), reduction)

    def log(self, logs, start_time=None):
        """As `Trainer.log`, with the parts of the loss."""
        if "loss" in logs:
            logs.update(self._loss_log.take(self._across_processes))
            if self._encoder_distance is not None:
                logs.update(self._encoder_distance.take(self._across_processes))
            if self._running_ce is not None:
                logs["gap"] = self._running_ce[0] - self._running_ce[1]
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial):
        self._finite_steps.check_weights(self.model, self.state)
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            folder = Path(output_dir)
            (folder / STATE_FILE).write_text(json.dumps({"running_ce": self._running_ce}))
            if self.self_teacher is not None:
                self.self_teacher.save(folder / SELF_TEACHER_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        self._running_ce = json.loads((folder / STATE_FILE).read_text())["running_ce"]
        if (folder / SELF_TEACHER_FILE).is_file():
            self.self_teacher = SelfTeacher(self.model)
            self.self_teacher.load(folder / SELF_TEACHER_FILE)


class _StepEvents(TrainerCallback):
    """Tells the trainer where steps end and epochs begin."""

    def __init__(self, trainer: ASKDTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._trainer._begin_epoch()

    def on_step_end(self, args, state, control, **kwargs):
        self._trainer._end_step()
