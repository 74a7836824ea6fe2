"""Records a training run for its model card."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    SchedulerType,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..errors import InputError
from .card import write_card
from .curves import plot_curves
from .export import complete_hub_folder
from .fastwhisper_card import ASKD_SETTINGS
from .folder_records import CURVES_FILE, RUN_FILE, public_name, read_run, write_record

logger = logging.getLogger(__name__)

VERSIONS = ("fastwhisper", "transformers", "torch", "datasets", "accelerate", "peft")


class ModelCardCallback(TrainerCallback):
    r"""Records a run of any Trainer for its model card, and makes every checkpoint ready for the Hub.

    Args:
        teacher (`PreTrainedModel`, *optional*): The teacher; its name and size are recorded, the model is not kept.
        datasets (`Sequence[str]`, *optional*): Names of the training data, on the Hub or of local folders.
        language (`str`, *optional*): Language of the training data.
        teacher_license (`str`, *optional*):
            Licence of the teacher, for example `apache-2.0`; by default the one named by the teacher's card, if it can
            be read.
        limits (`Sequence[str]`, *optional*): Sentences for the card's section on limits.
        preparation (`Mapping[str, Any]`, *optional*): How the rows were prepared: `text_case`, `joined_probability`,
            `timestamp_probability`, `prompt_probability`.
    """

    def __init__(
        self,
        teacher: PreTrainedModel | None = None,
        datasets: Sequence[str] = (),
        language: str | None = None,
        teacher_license: str | None = None,
        limits: Sequence[str] = (),
        preparation: Mapping[str, Any] | None = None,
    ) -> None:
        self.record: dict[str, Any] = {
            "teacher": _teacher_record(teacher, teacher_license),
            "datasets": [public_name(name) for name in datasets],
            "language": language,
            "limits": list(limits),
            "preparation": dict(preparation or {}),
            "versions": {name: version for name in VERSIONS if (version := _version(name))},
        }
        self.log_history: list[dict[str, Any]] = []
        self._completed_step: int | None = None

    def write(self, folder: str | os.PathLike) -> Path | None:
        """Write the record and the curves of the run into a folder, and the card if the folder holds a model.

        Returns:
            The path of the card, or None if the folder has no `config.json`.

        Raises:
            InputError: if the folder's README.md was written by hand.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        known = {name: value for name, value in self.record.items() if value}
        write_record(folder / RUN_FILE, {**read_run(folder), **known})
        plot_curves(self.log_history, folder / CURVES_FILE)
        return write_card(folder) if (folder / "config.json").is_file() else None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._completed_step = None
        self._note(args, state)

    def complete_checkpoint(
        self, args: TrainingArguments, state: TrainerState, folder: Path, processing_class=None
    ) -> None:
        """Make a checkpoint a folder ready for the Hub while it is not in its place yet: there it is then whole."""
        self._note(args, state)
        self._completed_step = state.global_step
        if state.is_world_process_zero:
            self._complete(folder, processing_class)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, processing_class=None, **kwargs
    ) -> None:
        # A Trainer pushes a checkpoint before it reports that it was saved: then all is done.
        if state.global_step != self._completed_step:
            folder = _output(args) / f"checkpoint-{state.global_step}"
            self.complete_checkpoint(args, state, folder, processing_class)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, processing_class=None, **kwargs
    ) -> None:
        """Complete what is about to be pushed: a checkpoint or the output folder."""
        self._note(args, state)
        self.on_save(args, state, control, processing_class)
        if state.is_world_process_zero:
            self._complete(_output(args), processing_class)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._note(args, state)
        if state.is_world_process_zero:
            self._try_write(_output(args))

    def _complete(self, folder: Path, processing_class) -> None:
        # A LoRA checkpoint holds only an adapter, without a config.json.
        if not (folder / "config.json").is_file():
            return
        try:
            # Just a feature extractor or a tokenizer, which a Trainer also accepts, is not enough.
            complete_hub_folder(folder, processing_class if isinstance(processing_class, ProcessorMixin) else None)
        except InputError as error:
            logger.warning("%s is not ready for the Hub: %s", folder.name, error)
        self._try_write(folder)

    def _try_write(self, folder: Path) -> None:
        try:
            self.write(folder)
        except InputError as error:
            # No reason to stop training: `fastwhisper card` can write the card later.
            logger.warning("no model card: %s", error)

    def _note(self, args: TrainingArguments, state: TrainerState) -> None:
        self.log_history = state.log_history
        settings = vars(args)
        if settings.keys() >= ASKD_SETTINGS.keys():
            self.record["askd"] = {name: settings[name] for name in ASKD_SETTINGS}
        self.record["training"] = {
            "steps": state.global_step,
            "epochs": None if state.epoch is None else round(state.epoch, 2),
            "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "learning_rate": args.learning_rate,
            "lr_scheduler_type": str(SchedulerType(args.lr_scheduler_type).value),
            "warmup_steps": args.get_warmup_steps(state.max_steps),
            "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
            "seed": args.seed,
            "seconds": next((row["train_runtime"] for row in state.log_history if "train_runtime" in row), None),
        }


def _output(args: TrainingArguments) -> Path:
    return Path(args.output_dir or ".")


def _teacher_record(teacher: PreTrainedModel | None, teacher_license: str | None) -> dict[str, Any]:
    if teacher is None:
        return {"license": teacher_license}
    name = teacher.config._name_or_path
    return {
        "name": public_name(name) if name else None,
        "parameters": teacher.num_parameters(),
        "license": teacher_license or _license_in_card(name),
    }


def _license_in_card(name: str) -> str | None:
    """The licence named by the card of a Hub repository or a local folder; None if no card can be read."""
    if not name or (os.path.isdir(name) and not os.path.isfile(os.path.join(name, "README.md"))):
        return None
    path = os.path.join(name, "README.md") if os.path.isdir(name) else name
    try:
        named = ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
    except (EntryNotFoundError, OSError, ValueError, yaml.YAMLError):
        return None
    return named if isinstance(named, str) else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


__all__ = ["ModelCardCallback"]
