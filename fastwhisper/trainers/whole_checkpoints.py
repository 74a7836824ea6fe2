"""Checkpoints that are whole or not there: written beside their place, renamed when all is on the disk."""

import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError, safe_open
from transformers import Trainer

from ..errors import InputError
from ..evaluation.saved_weights import weight_files
from ..files import put_in_place, sync
from ..hub_cards.callback import ModelCardCallback

logger = logging.getLogger(__name__)

STAGING = ".unfinished"  # in the output folder: the checkpoint that is being written
STATE = "trainer_state.json"
RESUMED_FROM = ("optimizer.pt", "scheduler.pt", STATE)
# How torch and the system say that a file could not be written; torch's is a RuntimeError among many.
NOT_WRITTEN = re.compile(r"PytorchStreamWriter|inline_container|iostream error|I/O error")


class WholeCheckpointsMixin(Trainer):
    r"""Makes each checkpoint of a Trainer appear as a whole, and go as a whole; name it before the Trainer's class.

    A checkpoint is written into the folder `.unfinished` of the output folder by all processes, completed for the Hub
    by a [`ModelCardCallback`], and renamed by one process on each disk. So a run that is killed at any moment leaves
    none that cannot be resumed from.

    Raises:
        InputError: if a checkpoint cannot be written or resumed from.
    """

    needed_files: tuple[str, ...] = ()  # what a checkpoint has beside a Trainer's own
    _staging: Path | None = None

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As `Trainer.train`; `True` is the last whole checkpoint of the output folder."""
        run = Path(str(self.args.output_dir))
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_whole_checkpoint(run, self.needed_files))
        elif resume_from_checkpoint:
            check_checkpoint(Path(resume_from_checkpoint), self.needed_files)
        self._clear(run / STAGING)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except UnpicklingError as error:
            raise InputError(
                f"{resume_from_checkpoint} cannot be resumed from: a file holds more than tensors and numbers, which "
                "is not loaded, since it may be code"
            ) from error

    def _run_epoch(self, *args, **kwargs):
        # A Trainer that goes on from its last step, within an epoch, would take one more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial):
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        run = Path(self._get_output_dir(trial))
        place = run / f"checkpoint-{self.state.global_step}"
        self._clear(run / STAGING)
        self._staging = run / STAGING
        try:
            with written_whole(f"the checkpoint of step {self.state.global_step}", run):
                super()._save_checkpoint(model, trial)
                self._complete(self._staging / place.name, place)
        finally:
            self._staging = None
        self._put_in_place(run / STAGING / place.name, place)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(place))
        if self.args.should_save:
            self._rotate(run, place)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # A checkpoint that is being written has not its name yet: it is pushed when it has.
        if self._staging is None:
            super()._push_from_checkpoint(checkpoint_folder)

    def _clear(self, staging: Path) -> None:
        """Remove what a killed run left, before any process writes."""
        if self.args.local_process_index == 0:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _complete(self, staged: Path, place: Path) -> None:
        """Add what the checkpoint lacks under its new name, and have it all on the disk."""
        best = place.with_name(f"checkpoint-{self.state.best_global_step}")
        if best == place or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        if self.args.should_save:
            self.state.save_to_json(str(staged / STATE))
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, ModelCardCallback):
                    callback.complete_checkpoint(self.args, self.state, staged, self.processing_class)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            sync(staged)

    def _put_in_place(self, staged: Path, place: Path) -> None:
        if self.args.should_save:
            put_in_place(staged, place)
        self.accelerator.wait_for_everyone()
        # The random states of the processes on another machine, where it has a disk of its own.
        if self.args.local_process_index == 0 and staged.is_dir():
            put_in_place(staged, place)
        self.accelerator.wait_for_everyone()

    def _rotate(self, run: Path, newest: Path) -> None:
        """Remove the oldest checkpoints over `save_total_limit`, neither the newest nor the best."""
        kept = {str(newest), str(self.state.best_model_checkpoint)}
        surplus = len(checkpoints(run)) - (self.args.save_total_limit or len(checkpoints(run)))
        # By age, as one may have gone on from an earlier step than the last.
        old = sorted(checkpoints(run), key=lambda path: path.stat().st_mtime_ns)
        for path in [path for path in old if str(path) not in kept][: max(surplus, 0)]:
            # Out of sight first: what a kill leaves of it is not a checkpoint.
            (run / STAGING).mkdir(exist_ok=True)
            path.rename(run / STAGING / path.name)
        shutil.rmtree(run / STAGING, ignore_errors=True)


@contextmanager
def written_whole(what: str, run: Path) -> Iterator[None]:
    """What is written into `.unfinished` of an output folder: after an error nothing of it is left.

    Raises:
        InputError: if the disk does not take it.
    """
    try:
        yield
    except BaseException as error:
        shutil.rmtree(run / STAGING, ignore_errors=True)
        if not isinstance(error, OSError) and not NOT_WRITTEN.search(str(error)):
            raise
        last = checkpoints(run)
        way_out = f"go on from {last[-1].name} with --resume_from_checkpoint last" if last else "run it again"
        reason = "torch could not write a file" if isinstance(error, RuntimeError) else str(error).splitlines()[0]
        raise InputError(f"{what} could not be written into {run} ({reason}): make room, then {way_out}") from error


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of an output folder by their steps, torn ones of other Trainers among them."""
    found = [path for path in run.glob("checkpoint-*") if path.name[11:].isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def last_whole_checkpoint(run: Path, needed: Sequence[str] = ()) -> Path:
    """The last checkpoint of an output folder that can be resumed from; a warning names those that are passed over.

    Raises:
        InputError: if there is none.
    """
    passed: list[str] = []
    for path in reversed(checkpoints(run)):
        lack = what_it_lacks(path, needed)
        if lack is None:
            if passed:
                logger.warning("going on from %s; passed over: %s", path.name, "; ".join(passed))
            return path
        passed.append(f"{path.name} {lack}")
    torn = f" that is whole: {'; '.join(passed)}" if passed else ""
    raise InputError(f"there is no checkpoint in {run} to resume from{torn}")


def check_checkpoint(folder: Path, needed: Sequence[str] = ()) -> None:
    """Check that a run can go on from a checkpoint.

    Raises:
        InputError: if it cannot; it names the file.
    """
    lack = what_it_lacks(folder, needed)
    if lack is not None:
        raise InputError(f"{folder} is not a checkpoint that a run can resume from: it {lack}")


def what_it_lacks(folder: Path, needed: Sequence[str] = ()) -> str | None:
    """What is wrong with a checkpoint, such as `has no optimizer.pt`; `None` where it is whole."""
    # DeepSpeed has files of its own for the optimizer.
    names = [STATE] if (folder / "latest").is_file() else [*RESUMED_FROM, *needed]
    for name in names:
        if not (folder / name).is_file():
            return f"has no {name}"
    if not weight_files(folder):
        return "has no weights"
    if not any(folder.glob("rng_state*.pth")):
        return "has no rng_state.pth"
    for path in sorted(folder.iterdir()):
        if _is_torn(path) or path.name == STATE and not _has_step(path):
            return f"has a torn {path.name}"
    missing = _missing_shard(folder)
    return f"has no {missing}" if missing else None


def _is_torn(path: Path) -> bool:
    """Whether a file ends too early, from what its format says of its end."""
    if path.suffix in (".pt", ".pth"):
        return not zipfile.is_zipfile(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return False
        except SafetensorError:
            return True
    if path.suffix == ".json":
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return True
    return False


def _has_step(path: Path) -> bool:
    state = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(state, dict) and isinstance(state.get("global_step"), int)


def _missing_shard(folder: Path) -> str | None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return None
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return next((name for name in sorted(shards) if not (folder / name).is_file()), None)
