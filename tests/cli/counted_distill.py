"""`fastwhisper` with a diary: `python -m tests.cli.counted_distill DIARY distill ...` or under a launcher.

Each process writes into `DIARY/PROCESS.json` the texts that its collator was given, batch by batch, and the files that
Python opened for writing, made or renamed.
"""

import json
import os
import sys
from pathlib import Path

from fastwhisper.cli.main import main
from fastwhisper.data.collator import SpeechCollator


def run(diary: Path, arguments: list[str]) -> int:
    batches: list[list[str]] = []
    written: list[str] = []

    def watch(event: str, values: tuple) -> None:
        if event == "open" and isinstance(values[1], str) and set(values[1]) & set("wax+"):
            written.append(str(values[0]))
        elif event in ("os.mkdir", "os.rename"):
            written.append(str(values[event == "os.rename"]))

    collate = SpeechCollator.__call__

    def collate_and_note(self, rows):
        batches.append([row["text"] for row in rows])
        return collate(self, rows)

    SpeechCollator.__call__ = collate_and_note  # type: ignore[method-assign]
    sys.addaudithook(watch)
    code = main(arguments)
    answer = {"batches": batches, "written": list(written)}
    (diary / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(answer))
    return code


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
