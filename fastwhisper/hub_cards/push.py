"""Uploads a saved folder to the Hub: complete, in one commit, and without private data."""

import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..model_folders import weight_files
from .card import START, write_card
from .export import complete_hub_folder
from .folder_records import HUB_NAME, read_config

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, Discussion, HfApi

SUFFIXES = {".json", ".safetensors", ".md", ".txt", ".jinja", ".png", ".jpg", ".svg", ".model", ".wav", ".flac"}
CODE = re.compile(r"(configuration|modeling|processing|tokenization|feature_extraction)_\w+\.py")
TRAINING_STATE = {"trainer_state.json", "askd_state.json", "scaler.json", "all_results.json"}
SECRETS = {
    "a Hub token": rb"\bhf_[A-Za-z0-9]{30,}|\bapi_org_[A-Za-z0-9]{30,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}",
    "an AWS key": rb"\bAKIA[0-9A-Z]{16}\b",
}
LOCAL_PATHS = rb"/home/[\w.-]+/|/Users/[\w.-]+/|/root/[\w.-]+|/tmp/[\w.-]+|/var/folders/|[A-Za-z]:\\{1,2}Users\\{1,2}[\w.-]+|file:///\w"
AGAIN = "the folder is as it was, and what has arrived is not sent twice: push again"


class PushError(InputError):
    """The Hub did not accept the folder; the message says what to do."""


def upload_folder_to_hub(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload with fastwhisper",
    token: str | None = None,
    trust_remote_code: bool = False,
) -> str:
    """Upload a saved folder to a model repository on the Hub in one commit; nothing in the folder changes.

    The upload adds what the folder lacks (code, processor files, a card), and a card written by this package names the
    repository. Checkpoints, optimiser states, `training_args.bin` and everything else that is not part of the model
    stay on this machine. A second call uploads only what has changed.

    Args:
        folder (`str` or `os.PathLike`): Contains a saved model and its processor.
        repo_id (`str`): `owner/name`; created if needed.
        private (`bool`, *optional*): Make a new repository private.
        revision (`str`, *optional*): Branch; created if needed.
        create_pr (`bool`, *optional*, defaults to `False`): Open a pull request instead of committing to the branch,
            or go on with your own open one of this title: an upload whose answer was lost has opened it.
        commit_message (`str`, *optional*): First line of the commit.
        token (`str`, *optional*): By default from `hf auth login` or the variable HF_TOKEN.
        trust_remote_code (`bool`, *optional*, defaults to `False`): As for [`complete_hub_folder`].

    Returns:
        Address of the commit or of the pull request.

    Raises:
        InputError: if the folder contains no model, or a file contains a secret or a local path.
        PushError: if the Hub refuses or cannot be reached, or for an invalid repository name.
    """
    from huggingface_hub import HfApi

    if not HUB_NAME.fullmatch(repo_id):
        raise PushError(_wrong_name(repo_id))
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="fastwhisper-push-") as temporary:
        staging = stage(Path(folder), Path(temporary), repo_id, trust_remote_code=trust_remote_code)
        with hub_errors(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision and not create_pr:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            request = (
                _open_pull_request(api, repo_id, commit_message) if create_pr and revision in (None, "main") else None
            )
        if request is not None:
            upload_staged(staging, repo_id, commit_message, request.git_reference, token)
            return request.url
        commit = upload_staged(staging, repo_id, commit_message, revision, token, create_pr)
    return commit.pr_url or commit.commit_url


def upload_staged(
    staging: Path,
    repo_id: str,
    commit_message: str,
    revision: str | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> "CommitInfo":
    """Upload what [`stage`] gathered, in one commit to an existing repository.

    Raises:
        PushError: if the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    with hub_errors(repo_id):
        return HfApi(token=token).upload_folder(
            repo_id=repo_id,
            folder_path=staging,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )


def _open_pull_request(api: "HfApi", repo_id: str, title: str) -> "Discussion | None":
    """The newest open pull request with this title by the owner of the token."""
    name = api.whoami()["name"]
    for request in api.get_repo_discussions(repo_id, author=name, discussion_type="pull_request"):
        if request.author == name and request.title == title.strip() and request.status in ("open", "draft"):
            return request
    return None


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn Hub errors into a [`PushError`] that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    try:
        yield
    except (HfHubHTTPError, RuntimeError) as error:
        # Whatever breaks off the upload of weights comes as a RuntimeError of huggingface_hub, or of hf_xet.
        refused = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(refused, HfHubHTTPError):
            raise PushError(_refusal(refused.response.status_code, repo_id)) from error
        raise PushError(f"the upload to {repo_id} broke off: {_first_line(refused or error)}; {AGAIN}") from error
    except LocalTokenNotFoundError as error:
        raise PushError(_refusal(401, repo_id)) from error
    except HFValidationError as error:
        raise PushError(_wrong_name(repo_id)) from error
    except ValueError as error:  # metadata in README.md that the Hub refuses, or an answer that is not JSON
        raise PushError(f"the Hub did not accept {repo_id}: {error}") from error
    except (HTTPError, ConnectionError) as error:
        raise PushError(f"the connection to {constants.ENDPOINT} failed: {_first_line(error)}; {AGAIN}") from error


def stage(
    folder: Path,
    place: Path,
    repo_id: str,
    link: Callable[[Path, Path], object] = os.symlink,
    trust_remote_code: bool = False,
) -> Path:
    """Gather everything to upload in a new folder, weights as links, and search it for secrets and local paths.

    Args:
        folder (`Path`): Contains a saved model, or an adapter saved by PEFT.
        place (`Path`): Where to create the new folder. It keeps the old name, which an evaluation may refer to.
        repo_id (`str`): The repository, for the card.
        link (`Callable`, *optional*): Makes the second path stand for the first, a file of weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`): As for [`complete_hub_folder`].

    Returns:
        The new folder.

    Raises:
        InputError: if the folder contains no model, or a file contains a secret or a local path.
    """
    is_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
    if not is_adapter:
        read_config(folder)
    if not weight_files(folder):
        raise InputError(f"{folder} has no safetensors weights: save a model into it with save_pretrained first")
    staging = place / folder.resolve().name
    staging.mkdir()
    for path in uploaded_files(folder):
        target = staging / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            link(path.resolve(), target)
        else:
            shutil.copyfile(path, target)
    if not is_adapter:
        complete_hub_folder(staging, trust_remote_code=trust_remote_code)
        card = staging / "README.md"
        if not card.exists() or START.encode() in card.read_bytes():
            write_card(staging, repo_id, trust_remote_code=trust_remote_code)
    for path in sorted(staging.rglob("*")):
        if path.is_file():
            check_private(path, folder)
    return staging


def uploaded_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that belong to a model: no training state, nothing hidden except `.eval_results`."""
    weights = set(weight_files(folder))
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            wanted = path in weights
        else:
            wanted = path.suffix in SUFFIXES or CODE.fullmatch(path.name) is not None
        if path.is_file() and wanted and path.name not in TRAINING_STATE and not path.name.startswith("."):
            yield path
    yield from sorted((folder / ".eval_results").glob("*.yaml"))


def check_private(path: Path, folder: Path) -> None:
    """Search the bytes of a file for tokens, keys and local paths.

    Args:
        path (`Path`): The file to be uploaded.
        folder (`Path`): The folder that it came from, whose own path is also private.

    Raises:
        InputError: if one is found; the message names the file and the kind of secret, never the secret.
    """
    if path.stat().st_size == 0:
        return
    own = [str(place).encode() for place in (folder.resolve(), Path.home()) if len(place.parts) > 2]
    local = b"|".join([LOCAL_PATHS, *map(re.escape, own)])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for what, pattern in {**SECRETS, "a local path": local}.items():
            found = re.search(pattern, content)
            if found:
                line = "" if path.suffix == ".safetensors" else f", line {content[: found.start()].count(10) + 1}"
                raise InputError(f"{path.name}{line} contains {what}: nothing was uploaded; remove it and push again")


def _first_line(error: BaseException) -> str:
    """What an error says, without the addresses behind it, which may be signed."""
    return str(error).partition("\n")[0].partition("http")[0].strip(" :(") or type(error).__name__


def _wrong_name(repo_id: str) -> str:
    return f"{repo_id!r} is not a valid repository name: give OWNER/NAME"


def _refusal(status: int, repo_id: str) -> str:
    if status == 401:
        return f"no valid token for {repo_id} (401): run `hf auth login`, or set HF_TOKEN to a token with write access"
    if status == 403:
        return f"your token may not write to {repo_id} (403): use one with write access to its owner"
    if status == 404:
        return f"the Hub has no {repo_id}, or your token cannot see it (404): check owner, name and revision"
    if status >= 500:
        return f"the Hub failed ({status}); {AGAIN}, in a while"
    return f"the Hub refused the upload to {repo_id} ({status})"
