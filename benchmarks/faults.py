"""Kills and bad inputs, at random and by seed: what a run of days has to live with.

    python -m benchmarks.faults --kills 20 --inputs 1000 --output benchmarks/results/faults.jsonl
    python -m benchmarks.faults --kills 20 --processes 2 --output benchmarks/results/faults_two_processes.jsonl

Each kill is a SIGKILL of a tiny `distill` (every fourth, one more of `label`) at a random moment, every other one
within a save. The run is started again as a user would, and must end with the same bits as one that was left alone:
the student's weights and the log of its losses, or the table of labels. Bad inputs are those of `benchmarks.fuzz`.
Prints a line of JSON as each is done, and in the end the Markdown table of the README.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.run_record import run_record
from tests.faults.runs import AFTER_THE_END, Run, Runs, result, send_at_random, torn_files

LABEL_EVERY = 4  # kills of `distill` for one of `label`


class Kills:
    """Kills runs at random and compares what becomes of them.

    Args:
        folder (`Path`): for the runs.
        processes (`int`): of each run.
    """

    def __init__(self, folder: Path, processes: int) -> None:
        self.runs, self.folder = Runs(folder, processes), folder
        self.whole, self.seconds = self._time(self.runs.distill, "whole")
        self.labels, self.label_seconds = self._time(self.runs.label, "labels")

    def kill_distill(self, number: int, draws: random.Random) -> dict[str, Any]:
        """One kill of `distill`, every other one within a save, and what the run came to afterwards."""
        output, where = self._killed(self.runs.distill, f"distill-{number}", draws, self.seconds, number % 2 == 1)
        torn = torn_files(output)
        again = self.runs.go_on(output)
        code = again.wait()
        same = code == 0 and result(output) == result(self.whole)
        return self._line("distill", number, where, code, same, torn, again.said)

    def kill_label(self, number: int, draws: random.Random) -> dict[str, Any]:
        """One kill of `label`, and what the run came to afterwards."""
        output, where = self._killed(self.runs.label, f"label-{number}", draws, self.label_seconds, False)
        table = output / "metadata.jsonl"
        expected = (self.labels / "metadata.jsonl").read_bytes()
        torn = [table.name] if table.exists() and table.read_bytes() != expected else []
        again = self.runs.label(output)
        code = again.wait()
        same = code == 0 and table.read_bytes() == expected
        return self._line("label", number, where, code, same, torn, again.said)

    def _killed(
        self, start: Callable[[Path], Run], name: str, draws: random.Random, seconds: float, within_save: bool
    ) -> tuple[Path, str]:
        """The folder of a run that was killed, and where; one that ended before the kill does not count."""
        for attempt in count():
            output = self.folder / f"{name}-{attempt}"
            run = start(output)
            where = send_at_random(run, output, draws, seconds, signal.SIGKILL, within_save)
            run.wait()
            if where != AFTER_THE_END:
                break
        return output, where

    def _time(self, start: Callable[[Path], Run], name: str) -> tuple[Path, float]:
        """A run that is left alone, and how long it takes."""
        begun = time.monotonic()
        run = start(self.folder / name)
        if run.wait() != 0:
            raise RuntimeError(run.said)
        return self.folder / name, time.monotonic() - begun

    def _line(
        self, verb: str, number: int, where: str, code: int, same: bool, torn: list[str], said: str
    ) -> dict[str, Any]:
        return {
            "verb": verb,
            "kill": number,
            "where": where,
            "exit_code": code,
            "identical": same,
            "traceback": "Traceback" in said,
            "half_files": torn,
            "said": "" if same else said[-2000:],
        }


def markdown(lines: list[dict[str, Any]], fuzzed: dict[str, int]) -> str:
    """The table of the README; `fuzzed` has `inputs`, `tracebacks`, `half_files` and `wrong_in_silence`."""

    def survived(verb: str) -> str:
        its = [line["identical"] for line in lines if line["verb"] == verb]
        return f"{sum(its)} of {len(its)}"

    def row(name: str, kills: object, inputs: object) -> str:
        return f"| {name} | {kills} | {inputs} |"

    wrong = sum(line["exit_code"] == 0 and not line["identical"] for line in lines)
    return "\n".join(
        [
            row("", f"{len(lines)} SIGKILLs", f"{fuzzed['inputs']:,} bad inputs"),
            "|---|---|---|",
            row("`distill` resumes bit-identical", survived("distill"), ""),
            row("`label` resumes to the same table", survived("label"), ""),
            row("tracebacks", sum(line["traceback"] for line in lines), fuzzed["tracebacks"]),
            row("half-written files", sum(len(line["half_files"]) for line in lines), fuzzed["half_files"]),
            row("wrong without a message", wrong, fuzzed["wrong_in_silence"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of distill; a quarter as many more of label")
    parser.add_argument("--inputs", type=int, default=0, help="bad inputs")
    parser.add_argument("--processes", type=int, default=1, help="of each run that is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file for the lines of JSON, the first of which is the record")
    options = parser.parse_args()

    lines: list[dict[str, Any]] = []
    keep(options.output, run_record(vars(options) | {"output": str(options.output)}), "w")
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Path(folder), options.processes)
        for number in tqdm(range(options.kills), desc="kills"):
            # Each by a seed of its own: one that failed can be had again.
            lines.append(kills.kill_distill(number, random.Random(f"{options.seed} distill {number}")))
            keep(options.output, lines[-1])
            if number % LABEL_EVERY == 0:
                lines.append(kills.kill_label(number, random.Random(f"{options.seed} label {number}")))
                keep(options.output, lines[-1])
    fuzzed = {"inputs": 0, "tracebacks": 0, "half_files": 0, "wrong_in_silence": 0}
    if options.inputs:
        from benchmarks.fuzz import run_fuzz

        fuzzed = run_fuzz(options.inputs, options.seed)
        keep(options.output, {"fuzzed": fuzzed})
    print(markdown(lines, fuzzed))


def keep(path: Path | None, line: dict[str, Any], mode: str = "a") -> None:
    """Print a line of JSON, and write it where a file is named."""
    text = json.dumps(line)
    tqdm.write(text)
    if path is not None:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
