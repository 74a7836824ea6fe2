"""Finished work, one line of JSON each, in a file that a kill does not spoil."""

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.run_record import run_record


class Lines:
    """The lines of a file by their `key`; several processes may add to it.

    Args:
        path (`Path`): made with its folder if it is not there. What a killed writer left of a line is removed.
        device (`str`, *optional*, defaults to `"cpu"`): for the record of the hardware in every line.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path, self._device = path, device
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))

    def read(self) -> dict[str, dict[str, Any]]:
        """Every whole line by its key, the last one of each."""
        if not self.path.exists():
            return {}
        whole = self.path.read_bytes().rpartition(b"\n")[0]
        lines = [json.loads(line) for line in whole.decode().splitlines() if line]
        return {line["key"]: line for line in lines}

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, with versions, hardware and command."""
        record = run_record({}, self._device)
        text = json.dumps({**line, **{name: record[name] for name in ("versions", "hardware", "command")}})
        with self._lock:
            content = self.path.read_bytes() if self.path.exists() else b""
            with self.path.open("r+b" if content else "wb") as file:
                file.seek(len(content.rpartition(b"\n")[0]) + 1 if b"\n" in content else 0)
                file.truncate()
                file.write(text.encode() + b"\n")
