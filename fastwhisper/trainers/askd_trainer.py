"""The ASKD trainer: `Seq2SeqTrainer` with a loss that leans on the teacher less and less, then on its own past."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, ProcessorMixin, Seq2SeqTrainer, TrainerCallback
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from ..errors import InputError
from ..hub_cards.hub_trainer import HubTrainerMixin
from .askd_arguments import ASKDTrainingArguments, check_way_of_running
from .askd_caches import ASKDCaches
from .askd_log import LossLog
from .askd_loss import LossSums, LossWeights, askd_loss
from .askd_schedule import gap_weight, self_weight_at, teacher_weight_at
from .askd_teachers import (
    SelfTeacher,
    check_teacher,
    encoder_is_frozen,
    is_compiled,
    predict,
    shares_encoder,
    whisper_of,
)
from .cached_rows import CACHED
from .finite_steps import ROW_NAMES, FiniteSteps, NamedRows
from .whole_checkpoints import WholeCheckpointsMixin

STATE_FILE = "askd_state.json"
SELF_TEACHER_FILE = "self_teacher.safetensors"


class ASKDTrainer(WholeCheckpointsMixin, HubTrainerMixin, Seq2SeqTrainer):
    r"""Trains a Whisper student with adaptive self-knowledge distillation; see [`ASKDSettings`] for the loss.

    The loss is normalised by the target tokens of the whole batch: it is the same for 1 process x 8 samples,
    accumulation 8 x 1 and 2 processes x 4. Logged beside `loss`: `ce`, `teacher_kl`, `self_kl` (nats per target
    token), `teacher_weight`, `self_weight`, with which they recombine to `loss`; with the schedule `gap` also `gap`.
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
        kwargs: as for `Seq2SeqTrainer`. Batches are dicts of `input_features` (batch, mel, frames), `labels`
            (batch, tokens; -100 masked), optionally `decoder_input_ids`, `decoder_attention_mask`, `attention_mask`.

    Raises:
        InputError: for a teacher that does not fit the student, a missing teacher, a student whose output layer is
            adapted by PEFT, label smoothing, several GPUs in one process, what shards or compiles the models, and
            caches that do not hold for this student or its batches.
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
        **kwargs,
    ) -> None:
        if model is None or not isinstance(args, ASKDTrainingArguments):
            raise InputError("ASKDTrainer needs model= and args=ASKDTrainingArguments(...)")
        self._caches = caches or ASKDCaches()
        _check_arguments(model, teacher_model, self._caches, args)
        if args.freeze_encoder:
            whisper_of(model).freeze_encoder()
        self.teacher_model = teacher_model
        self._encoder_is_frozen = encoder_is_frozen(model)
        self._encoder_is_shared = False
        taught_by = self._caches.teacher.teacher if self._caches.teacher else teacher_model
        if taught_by is not None:
            processor = kwargs.get("processing_class")
            check_teacher(whisper_of(model).config, taught_by.config, processor, teacher_processing_class)
        if self._caches:
            self._caches.check(model, kwargs.get("data_collator"))
        if teacher_model is not None:
            self._encoder_is_shared = shares_encoder(model, teacher_model)
            teacher_model.eval().requires_grad_(False)
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

    def get_train_dataloader(self):
        """As `Trainer.get_train_dataloader`; the batches name their rows, unless one process sends them to others."""
        sent = self.args.accelerator_config.dispatch_batches  # type: ignore[union-attr]
        if sent or sent is None and isinstance(self.train_dataset, IterableDataset):
            if self._caches:
                raise InputError(
                    "the caches need batches that each process makes itself: set dispatch_batches to false"
                )
            return super().get_train_dataloader()
        collate: Any = self.data_collator
        positions = whisper_of(self.model).config.max_source_positions
        self.data_collator = NamedRows(self._caches.rows(collate, positions) if self._caches else collate)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def _forget(self) -> None:
        self.self_teacher = None
        self.weights = LossWeights(0.0, 0.0)
        self._weights_step = -1
        self._loss_log = LossLog(self.args.device)
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
        self._finite_steps.note(loss, rows)
        if self.args.average_tokens_across_devices:
            # DistributedDataParallel averages the gradients of the processes, whose sum is wanted.
            loss = loss * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def _loss_sums(self, model: nn.Module, inputs: dict[str, Any]) -> LossSums:
        labels, cached = inputs.pop("labels"), inputs.pop(CACHED, {})
        config = whisper_of(self.model).config
        if labels.shape[1] > config.max_target_positions:
            raise ValueError(
                f"labels of {labels.shape[1]} tokens do not fit the decoder's {config.max_target_positions} positions"
            )
        if "decoder_input_ids" not in inputs:
            pad, start = config.pad_token_id, config.decoder_start_token_id
            inputs["decoder_input_ids"] = shift_tokens_right(labels, pad, start)  # type: ignore[arg-type]
        targets = labels.ne(-100)
        heard = dict(inputs)
        if "encoder" in cached:
            inputs["encoder_outputs"] = (self._caches.encoder_output(cached, inputs, self._encode),)
        elif self._encoder_is_frozen:
            inputs["encoder_outputs"] = (self._encode(inputs),)
        else:
            heard["input_features"] = inputs["input_features"].clone()  # SpecAugment masks the student's in place
        teacher = self_teacher = None
        with torch.no_grad():
            if self.weights.teacher_weight > 0.0 and self._caches.teacher:
                teacher = self._caches.teacher_predictions(cached, heard, targets)
            elif self.weights.teacher_weight > 0.0:
                its_inputs = _cast(inputs if self._encoder_is_shared else heard, self.teacher_model.dtype)
                teacher = predict(self.teacher_model, self.teacher_model, its_inputs, targets)
            if self.weights.self_weight > 0.0:
                its_inputs = inputs if self._encoder_is_frozen else heard
                self_teacher = predict(self.self_teacher.model, self.self_teacher.model, its_inputs, targets)
        student = predict(model, self.model, inputs, targets)
        return askd_loss(student, labels[targets], self.weights, teacher, self_teacher, self.args.loss_chunk_size)

    @torch.no_grad()
    def _encode(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Output of the frozen encoder, `(batch, frames, hidden)`, without dropout, after SpecAugment."""
        whisper = whisper_of(self.model).model
        features = whisper._mask_input_features(inputs["input_features"].clone(), inputs.get("attention_mask"))
        return whisper.encoder.eval()(features).last_hidden_state

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
                self._teacher_parts().to("cpu")
        self_weight = self_weight_at(
            progress, args.schedule, args.mode, args.self_weight, args.teacher_decay_end, teacher_weight
        )
        if self_weight > 0.0 and self.self_teacher is None:
            self.self_teacher = SelfTeacher(self.model)
        self.weights = LossWeights(teacher_weight, self_weight, args.temperature, args.token_gate)

    def _teacher_parts(self) -> nn.Module:
        """What of the teacher is run: without its encoder where the student's serves both."""
        if not self._encoder_is_shared:
            return self.teacher_model
        return nn.ModuleList([self.teacher_model.model.decoder, self.teacher_model.get_output_embeddings()])

    def _end_step(self) -> None:
        step = self._loss_log.end_step(self.weights)
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


def _check_arguments(
    model: nn.Module, teacher_model: PreTrainedModel | None, caches: ASKDCaches, args: ASKDTrainingArguments
) -> None:
    if teacher_model is not None and caches.teacher:
        raise InputError("give teacher_model or a cache of the teacher's states, which runs the teacher itself")
    if args.teacher_weight > 0.0 and teacher_model is None and not caches.teacher:
        raise InputError(f"teacher_weight={args.teacher_weight} needs a teacher_model; set it to 0 to go without")
    if args.label_smoothing_factor:
        raise InputError("label_smoothing_factor is not part of the ASKD loss: set it to 0")
    check_way_of_running(args)
    for name, checked in (("student", model), ("teacher", teacher_model)):
        if checked is not None and is_compiled(checked):
            raise InputError(f"ASKD is not tested with a compiled {name}: give the model as it was before compile()")
    if args.n_gpu > 1:
        raise InputError(f"{args.n_gpu} GPUs in one process: start with `accelerate launch`, one process a GPU")
    if not isinstance(whisper_of(model).get_output_embeddings(), nn.Linear):
        raise InputError("the student's output layer proj_out must be a plain layer: leave it out of the adapters")


def _cast(inputs: dict, dtype: torch.dtype) -> dict:
    """The inputs with floating tensors in `dtype`, for a teacher held in half precision."""
    cast = {name: value.to(dtype) if name == "input_features" else value for name, value in inputs.items()}
    if "encoder_outputs" in cast:
        cast["encoder_outputs"] = (cast["encoder_outputs"][0].to(dtype),)
    return cast
