"""Runs what is missing of the experiment, in order; what is finished is not run again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from fastwhisper.errors import InputError

from .cells import measure_teacher, run_cell
from .config import Config, Teacher
from .lines import Lines
from .measures import Measures
from .place import Place
from .plan import FINAL, TUNE, Cell, arms_of, final_cells, groups, reference_key, tune_cells

WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Piece:
    """A piece of work that becomes a line: a cell, or a teacher to be measured as it is."""

    name: str
    kind: str
    key: str
    work: Callable[[], dict[str, Any]]


class Experiment:
    """The pieces of an experiment that are missing, and their order.

    Args:
        config (`Config`): its settings.
        place (`Place`): its folders.
        lines (`Lines`): what is finished.
        tables (`Sequence[str]`, *optional*): those to do; all by default.
    """

    def __init__(self, config: Config, place: Place, lines: Lines, tables: Sequence[str] = ()) -> None:
        for name in tables:
            if name not in config.tables:
                raise InputError(f"there is no table {name!r}; there are {', '.join(config.tables)}")
        self._config, self._place, self._lines, self._tables = config, place, lines, tables
        self._measures = Measures(place, config.measuring)

    def run(self, tell: Callable[[str], None] = print) -> None:
        """Do all that is missing. Several processes may: each takes pieces that no other has in hand."""
        while missing := self._ready(done := self._lines.read()):
            if not any(self._take(piece, done, tell) for piece in missing):
                time.sleep(WAIT_SECONDS)  # another process has all of them in hand

    def _take(self, piece: Piece, done: dict[str, dict[str, Any]], tell: Callable[[str], None]) -> bool:
        """Do a piece, unless another process is at it; whether it was done."""
        locks = self._place.work / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / piece.key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            if piece.key in self._lines.read():
                return True
            begun, used = time.perf_counter(), time.process_time()
            line = {"kind": piece.kind, "key": piece.key, "name": piece.name, **piece.work()}
            line["seconds"] = time.perf_counter() - begun
            line["cpu_seconds"] = time.process_time() - used  # what other programs take is not in it
            self._lines.append(line)
        finally:
            lock.release()
        tell(self._told(piece, line, {**done, piece.key: line}))
        return True

    def _ready(self, done: dict[str, dict[str, Any]]) -> list[Piece]:
        """The missing pieces that can be done now, in order."""
        return [piece for piece in self._pieces(done) if piece.key not in done]

    def _pieces(self, done: dict[str, dict[str, Any]]) -> list[Piece]:
        pieces = []
        for table, teacher in self._groups():
            key = reference_key(self._config, teacher, self._config.tables[table])
            pieces.append(
                Piece(
                    f"{table}, {teacher.name} as it is",
                    "teacher",
                    key,
                    lambda table=table, teacher=teacher: measure_teacher(  # type: ignore[misc]
                        self._config, self._place, table, teacher, self._measures
                    ),
                )
            )
            its = [cell for cell in self._cells(done) if (cell.table, cell.teacher) == (table, teacher)]
            pieces += [self._piece(cell) for cell in its]
        return pieces

    def _groups(self) -> list[tuple[str, Teacher]]:
        return [(table, teacher) for table, teacher in groups(self._config) if table in (self._tables or [table])]

    def _cells(self, done: dict[str, dict[str, Any]]) -> list[Cell]:
        """All cells that are known, in order: rates first, and then all arms with one seed before the next seed."""
        config, cells = self._config, list[Cell]()
        for table, teacher in self._groups():
            arms = arms_of(config, table)
            cells += [cell for arm in arms for cell in tune_cells(config, table, teacher, arm)]
            final = [cell for arm in arms for cell in final_cells(config, table, teacher, arm, done)]
            cells += sorted(final, key=lambda cell: config.seeds.index(cell.seed))
        return cells

    def _piece(self, cell: Cell) -> Piece:
        what = f"{cell.stage}: {cell.table}, {cell.teacher.name}, {cell.arm}"

        def work() -> dict[str, Any]:
            return run_cell(cell, self._config, self._place, self._measures, self._lines)

        name = f"{what}, rate {cell.learning_rate:g}, seed {cell.seed}"
        return Piece(name, "cell", cell.key(self._config), work)

    def _told(self, piece: Piece, line: dict[str, Any], done: dict[str, dict[str, Any]]) -> str:
        """A line on a finished piece, and how long the rest will take by what there is."""
        result = (
            line["error"]
            if "error" in line
            else ", ".join(f"{name} {one['wer']:.1%}" for name, one in line["sets"].items())
        )
        left, seconds = self._left(done)
        return f"{piece.name}: {result}; {line['seconds']:.0f} s; {left} left, about {seconds / 3600:.1f} h"

    def _left(self, done: dict[str, dict[str, Any]]) -> tuple[int, float]:
        """Trainings that are left, those of rates that are not chosen yet among them, and the seconds they will take
        by those that are done."""
        config, left, seconds = self._config, 0, 0.0
        for stage in (TUNE, FINAL):
            keys = [cell.key(config) for cell in self._cells(done) if cell.stage == stage]
            took = [done[key]["seconds"] for key in keys if key in done]
            count = len(config.seeds) if stage == FINAL else len(config.learning_rates)
            total = count * sum(len(arms_of(config, table)) for table, _ in self._groups())
            total = 0 if stage == TUNE and count == 1 else total
            left += total - len(took)
            seconds += (total - len(took)) * (sum(took) / len(took) if took else 0.0)
        return left, seconds
