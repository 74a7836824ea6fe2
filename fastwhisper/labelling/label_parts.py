"""The unfinished labels of a folder: one append-only file per process, one line per batch, safe to kill."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.row_checks import Drop
from ..errors import InputError
from ..files import LOCK_NAME, write_whole

SETTINGS_NAME = "labelling.json"
METADATA_NAME = "metadata.jsonl"


class LabelParts:
    r"""Batches of labelled rows in `folder`: `parts/process-00000.jsonl` and so on, and the settings of the run.

    A batch is one line, so it is complete or absent: a killed run can be resumed from what is there.

    Args:
        folder (`Path`): the output folder; nothing is written before `begin`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / "parts"

    def check(self, settings: dict[str, Any]) -> None:
        """Check that the folder is new, or holds labels made with the same settings.

        Raises:
            InputError: if it is anything else, so that no other files are overwritten.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"the output {self.folder} is a file: give a folder")
        if not self.folder.exists() or all(path.name == LOCK_NAME for path in self.folder.iterdir()):
            return
        recorded_path = self.folder / SETTINGS_NAME
        if not recorded_path.is_file():
            raise InputError(f"the output folder {self.folder} is not empty and was not started by fastwhisper label")
        recorded = json.loads(recorded_path.read_text())
        changed = [
            f"{key} {recorded.get(key)!r}, now {settings.get(key)!r}"
            for key in {**recorded, **settings}
            if recorded.get(key) != settings.get(key)
        ]
        if changed:
            raise InputError(
                f"{self.folder} holds labels made with other settings ({'; '.join(changed)}): "
                "remove it or choose another folder"
            )

    def begin(self, settings: dict[str, Any]) -> None:
        """Create the folder, or repair what a killed run left; for one process, before any other reads."""
        self._parts.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / SETTINGS_NAME, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        for part in self._files():
            content = part.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(part, whole)

    def finished(self) -> set[int]:
        """Numbers of the finished batches."""
        return {line["batch"] for line in self._lines()}

    def append(self, process: int, batch: int, rows: list[dict[str, Any]], drops: Mapping[int, Drop]) -> None:
        """Store a batch: its labelled rows, and those that were left out, by their index in the dataset."""
        dropped = [{"row": index, **asdict(drop)} for index, drop in drops.items()]
        line = json.dumps({"batch": batch, "rows": rows, "dropped": dropped}, ensure_ascii=False)
        with open(self._parts / f"process-{process:05d}.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """All labelled rows in the order of the dataset."""
        for line in self._in_order():
            yield from line["rows"]

    def drops(self) -> dict[int, Drop]:
        """The rows that were left out, by their index in the dataset."""
        dropped = [row for line in self._in_order() for row in line["dropped"]]
        return {row["row"]: Drop(row["reason"], row["detail"]) for row in dropped}

    def _in_order(self) -> list[dict[str, Any]]:
        """The batches, each once: where a file system knows no locks, two runs may have done the same."""
        batches: dict[int, dict[str, Any]] = {}
        for line in self._lines():
            batches.setdefault(line["batch"], line)
        return [batches[number] for number in sorted(batches)]

    def _files(self) -> list[Path]:
        return sorted(self._parts.glob("process-*.jsonl"))

    def _lines(self) -> Iterator[dict[str, Any]]:
        for part in self._files():
            with part.open(encoding="utf-8") as file:
                yield from map(json.loads, file)
