"""`fastwhisper push`: upload a saved folder to the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import run_parsed


@dataclass
class PushArguments:
    """Options of `fastwhisper push`."""

    private: bool = field(default=False, metadata={"help": "make a repository that does not exist a private one"})
    revision: str = field(default="", metadata={"help": "branch to upload to; created where it does not exist"})
    create_pr: bool = field(default=False, metadata={"help": "open a pull request instead of writing to the branch"})


def push(folder_and_repository: list[str], arguments: PushArguments) -> None:
    """Upload a folder to a repository in one commit, and print the address of the commit.

    Raises:
        InputError: for anything but a folder and a repository, and as [`upload_folder_to_hub`].
    """
    from ..hub_cards.push import upload_folder_to_hub

    if len(folder_and_repository) != 2:
        raise InputError(f"give FOLDER and REPO, not {len(folder_and_repository)} words; see fastwhisper push --help")
    folder, repository = folder_and_repository
    print(
        upload_folder_to_hub(
            folder,
            repository,
            private=arguments.private or None,
            revision=arguments.revision or None,
            create_pr=arguments.create_pr,
        )
    )


def main(argv: Sequence[str]) -> None:
    run_parsed(
        "fastwhisper push",
        "Upload a saved FOLDER to the Hub repository REPO (OWNER/NAME) in one commit. Checkpoints, optimiser states\n"
        "and training arguments stay here; a file with a token or a path of this machine in it is refused.",
        argv,
        PushArguments,
        push,
        positional=("folder_and_repo", "the folder, then the repository"),
    )
