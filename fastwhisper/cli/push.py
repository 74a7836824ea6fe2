"""`fastwhisper push`: upload a saved folder to the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import Verb, given
from .shared_arguments import TrustArguments


@dataclass
class PushArguments:
    """Repository."""

    private: bool = field(default=False, metadata={"help": "make a new repository private"})
    revision: str = field(default="", metadata={"help": "branch to upload to; created if needed"})
    create_pr: bool = field(
        default=False,
        metadata={
            "help": "open a pull request, or go on with the one opened before, instead of committing to the branch"
        },
    )


VERB = Verb(
    "fastwhisper push",
    "Upload a saved folder to a repository on the Hub (OWNER/NAME) in one commit. Checkpoints, optimiser states and\n"
    "training arguments are not uploaded; a file that contains a token or a local path is refused.",
    "fastwhisper push student OWNER/NAME --private",
    [PushArguments, TrustArguments],
    positional=("folder_and_repo", "the folder, then the repository"),
)


def run(folder_and_repository: list[str], arguments: PushArguments, trust: TrustArguments) -> None:
    """Upload a folder to a repository, and print the address of the commit."""
    from huggingface_hub.utils import logging

    from ..hub_cards.push import upload_folder_to_hub

    # It tells of each try that breaks, with the signed address that it went to.
    logging.set_verbosity_error()
    if len(folder_and_repository) != 2:
        raise InputError(f"give FOLDER and REPO, not {len(folder_and_repository)} words; see fastwhisper push --help")
    folder, repository = folder_and_repository
    try:
        address = upload_folder_to_hub(
            folder,
            repository,
            private=arguments.private or None,
            revision=arguments.revision or None,
            create_pr=arguments.create_pr,
            **given(trust),
        )
    except OSError as error:
        raise InputError(f"cannot upload {folder}: {error}") from error
    print(address)


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
