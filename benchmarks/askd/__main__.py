"""Does ASKD work? A student trained in every way from the same start, beside its teacher, on real speech.

    python -m benchmarks.askd --models models --data speech --output benchmarks/results/askd
    python -m benchmarks.askd --output benchmarks/results/askd --report docs/askd-results.md
    python -m benchmarks.askd --scale large --device cuda --output benchmarks/results/askd_large

Every arm tries the same learning rates on dev speakers, and its best one is trained again with each seed and measured
on all sets. Each training that is finished is a line in OUTPUT/cells.jsonl; started again, the command does what is
missing. Started twice, it takes two cores. What a line holds is in benchmarks/askd/README.md.
"""

import argparse
import signal
import sys
from pathlib import Path

from fastwhisper.errors import InputError, Stopped
from fastwhisper.progress import quiet_transformers

from .config import load_config
from .lines import Lines
from .place import Place

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.askd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="JSON; by default that of the scale")
    parser.add_argument("--scale", choices=("small", "large"), default="small", help="2 cores, or a GPU machine")
    parser.add_argument("--models", type=Path, help="folder of teachers; others are on the Hub")
    parser.add_argument("--data", type=Path, help="folder of data sets; others are on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="folder of cells.jsonl")
    parser.add_argument("--work", type=Path, help="folder of caches and initial students (default: OUTPUT/work)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="of torch; one is best where the command runs twice")
    parser.add_argument("--tables", nargs="*", default=(), help="only these tables")
    parser.add_argument("--report", type=Path, help="write this Markdown file of what there is, and run nothing")
    options = parser.parse_args(argv)
    try:
        config_path = options.config or HERE / f"{options.scale}.json"
        config = load_config(config_path)
        lines = Lines(options.output / "cells.jsonl", options.device)
        if options.report is not None:
            from .report import write_report

            write_report(config, lines.read(), options.report, _told(config_path))
            return 0
        import torch

        from .run import Experiment

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        quiet_transformers()
        work = (options.work or options.output / "work").resolve()
        place = Place(options.models, options.data, work, options.device)
        Experiment(config, place, lines, options.tables).run(lambda told: print(told, flush=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("stopped: started again, the command goes on", file=sys.stderr)
        return stop.exit_code if isinstance(stop, Stopped) else 128 + signal.SIGINT
    return 0


def _told(path: Path) -> str:
    """A path for the report: as it is seen from here, or its name."""
    here = Path.cwd()
    return path.resolve().relative_to(here).as_posix() if path.resolve().is_relative_to(here) else path.name


if __name__ == "__main__":
    sys.exit(main())
