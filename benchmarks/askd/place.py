"""Where models, data and what is worth keeping between runs are: all that a config leaves open."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class Place:
    """The folders of a run.

    Args:
        models (`Path`, *optional*): in which teachers are looked for before the Hub.
        data (`Path`, *optional*): in which data sets are looked for before the Hub.
        work (`Path`): for caches, splits, initial students; may be removed, and is then made again.
        device (`str`, *optional*, defaults to `"cpu"`): what runs the models.
    """

    models: Path | None
    data: Path | None
    work: Path
    device: str = "cpu"

    def model(self, name: str) -> str:
        """The folder of a model, or its name on the Hub."""
        return _within(self.models, name)

    def dataset(self, name: str) -> str:
        """The folder of a data set, or its name on the Hub."""
        return _within(self.data, name)

    @contextmanager
    def made_once(self, *parts: str) -> Iterator[Path | None]:
        """A folder to fill, which then appears at `work/parts` as a whole; `None` if it is there already.

        Another process that wants the same waits.
        """
        folder = self.work.joinpath(*parts)
        with self.held(*parts):
            if folder.exists():
                yield None
                return
            partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
            partial.mkdir()
            try:
                yield partial
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def held(self, *parts: str) -> Iterator[None]:
        """Keeps other processes away from `work/parts`; they wait."""
        path = self.work.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            yield


def _within(folder: Path | None, name: str) -> str:
    found = None if folder is None else folder / name
    return str(found.resolve()) if found is not None and found.exists() else name
