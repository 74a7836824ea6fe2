"""Trainers that push what `fastwhisper push` pushes: a complete folder with its card, and nothing private."""

import logging
import os
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from ..errors import InputError
from .card import write_card
from .folder_records import RUN_FILE, read_run, write_record
from .push import hub_errors, stage, upload_staged

logger = logging.getLogger(__name__)


class HubTrainerMixin(Trainer):
    r"""Makes a Trainer's pushes complete and keeps private data out of them; list it before the Trainer's class.

    `Trainer` uploads its output folder as it is, with `training_args.bin` and absolute paths. Here, each push uploads
    what [`stage`] gathers: weights, code, processor files and this package's card, never an optimiser's state.

    Raises:
        InputError: for a `hub_strategy` that uploads optimiser states.
        PushError: if the Hub refuses the repository or cannot be reached.
    """

    hub_model_id: Any
    push_in_progress: Any

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository if it does not exist.

        Raises:
            InputError: for a `hub_strategy` that uploads optimiser states.
            PushError: if the Hub refuses or cannot be reached.
        """
        strategy = HubStrategy(self.args.hub_strategy)
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise InputError(
                f"hub_strategy={strategy.value!r} would upload optimiser states: choose 'every_save' "
                "or 'end', and resume from the checkpoints on this machine"
            )
        if not self.is_world_process_zero():
            return
        name = self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name
        private = self.args.hub_private_repo if private is None else private
        with hub_errors(name):
            repo = HfApi().create_repo(name, token=token or self.args.hub_token, private=private, exist_ok=True)
        self.hub_model_id, self.push_in_progress = repo.repo_id, None

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> CommitInfo | Future | None:
        """Save the model and upload it with processor, code and card in one commit.

        Args:
            commit_message (`str`, *optional*): First line of the commit.
            blocking (`bool`, *optional*, defaults to `True`): Wait for the upload.
            token (`str`, *optional*): By default from `args`, `hf auth login` or the variable HF_TOKEN.
            revision (`str`, *optional*): Branch; by default from `args`.
            private (`bool`, *optional*): Make a new repository private.
            card (*optional*): What else to put in the card, as for `create_model_card`.

        Returns:
            The commit, or its future with `blocking=False`; `None` on all processes but the first.

        Raises:
            InputError: if a file contains a secret or a local path; nothing was uploaded.
            PushError: if the Hub refuses or cannot be reached.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        # After the model is saved, unlike in Trainer: the callback completes the folder.
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        self._finish_current_push()
        push = self._start_push(Path(str(self.args.output_dir)), commit_message, token, revision)
        return push.result() if blocking else push

    def create_model_card(  # type: ignore[override]
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write this package's card into the output folder; one written by hand, or an adapter's, is left alone.

        Args:
            language, license, tags, dataset_tags (*optional*): As for `Trainer.create_model_card`; recorded.
            model_name (`str`, *optional*): By default the name of the repository.
            finetuned_from, tasks, dataset, dataset_args: Ignored: the folder and its measurements provide them.
        """
        folder = Path(str(self.args.output_dir))
        if not self.is_world_process_zero() or not (folder / "config.json").is_file():
            return
        given = {"language": language, "license": license, "tags": _listed(tags), "datasets": _listed(dataset_tags)}
        write_record(
            folder / RUN_FILE, {**read_run(folder), **{name: value for name, value in given.items() if value}}
        )
        try:
            write_card(folder, name=model_name or self.hub_model_id)
        except InputError as error:
            logger.warning("no new model card: %s", error)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a checkpoint while training continues; a failure is only logged."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        under_way = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if under_way and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        step = self.state.global_step
        try:
            push = self._start_push(Path(checkpoint_folder), f"Training in progress, step {step}")
        except InputError as error:
            # No reason to stop training: the push can be done later.
            logger.warning("step %d was not pushed: %s", step, error)
            return
        push.add_done_callback(lambda done: _log_failure(done, step))
        if under_way:
            self.push_in_progress.jobs.append(push)
        else:
            self.push_in_progress = PushInProgress([push])  # type: ignore[arg-type]

    def _start_push(
        self, folder: Path, commit_message: str, token: str | None = None, revision: str | None = None
    ) -> Future:
        """Stage a folder now and upload it in a separate thread.

        The weights are staged as hard links, since a checkpoint may be deleted before its upload is done.
        """
        token, revision = token or self.args.hub_token, revision or self.args.hub_revision
        Path(str(self.args.output_dir)).mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".push-", dir=self.args.output_dir))
        try:
            staging = stage(folder, place, self.hub_model_id, link=_hard_link)
        except BaseException:
            shutil.rmtree(place)
            raise

        def upload() -> CommitInfo:
            try:
                return upload_staged(staging, self.hub_model_id, commit_message, revision, token)
            finally:
                shutil.rmtree(place)

        return HfApi().run_as_future(upload)


def _hard_link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _listed(names: str | list[str] | None) -> list[str] | None:
    return [names] if isinstance(names, str) else names


def _log_failure(push: Future, step: int) -> None:
    error = None if push.cancelled() else push.exception()
    if error is not None:
        logger.warning("the push of step %d failed: %s", step, error)


__all__ = ["HubTrainerMixin"]
