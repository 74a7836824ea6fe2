"""`fastwhisper` with a diary: `python -m tests.cli.counted_distill DIARY CALL...`, or under a launcher.

Each call is a JSON list of words. Each process writes into `DIARY/PROCESS.json`, call by call, the texts that its
collator was given, batch by batch, and the files that Python opened for writing, made or renamed.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from fastwhisper.cli.main import main
from fastwhisper.data.collator import SpeechCollator


def run(diary: Path, calls: list[list[str]]) -> int:
    pages: list[dict[str, Any]] = []

    def watch(event: str, values: tuple) -> None:
        if not pages:
            return
        if event == "open" and isinstance(values[1], str) and set(values[1]) & set("wax+"):
            pages[-1]["written"].append(str(values[0]))
        elif event in ("os.mkdir", "os.rename"):
            pages[-1]["written"].append(str(values[event == "os.rename"]))

    collate = SpeechCollator.__call__

    def collate_and_note(self, rows):
        pages[-1]["batches"].append([row["text"] for row in rows])
        return collate(self, rows)

    SpeechCollator.__call__ = collate_and_note  # type: ignore[method-assign]
    sys.addaudithook(watch)
    code = 0
    for call in calls:
        pages.append({"batches": [], "written": []})
        code = code or main(call)
    text = json.dumps(pages)
    (diary / f"{os.environ.get('RANK', '0')}.json").write_text(text)
    return code


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), list(map(json.loads, sys.argv[2:]))))
