"""An hour of recorded speech through a FastSLM from the command line: memory and time against the length.

    python benchmarks/fastslm_hour.py --model tiny_fastslm --data RECORDINGS [MORE ...] --output benchmarks/results

Joins the recordings below the folders until they fill a minute, ten minutes and an hour, and runs `fastwhisper slm
transcribe` on each, span by span. The memory is the peak of the resident memory of that process, the interpreter and
the libraries included; the characters of text say that it was answered to the end. The model may be the one that
examples/finetune_fastslm.py writes: what it writes of speech outside of its training means nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile
import torch
from run_record import run_record

from fastwhisper.data.audio import load_audio
from fastwhisper.data.folders import list_audio
from fastwhisper.modeling.waveforms import SAMPLING_RATE

LENGTHS = {"1 min": 60, "10 min": 600, "1 h": 3600}


def join(folders: list[str], seconds: int, path: Path) -> int:
    """Write the first recordings that fill so many seconds as one FLAC file; how many they were.

    Raises:
        SystemExit: where there is too little speech.
    """
    missing, used = seconds * SAMPLING_RATE, 0
    with soundfile.SoundFile(path, "w", SAMPLING_RATE, 1, format="FLAC") as file:
        for source in (source for folder in folders for source in list_audio(Path(folder))):
            samples = load_audio(source)[:missing]
            file.write(np.clip(samples, -1, 1))
            missing, used = missing - len(samples), used + 1
            if not missing:
                return used
    raise SystemExit(f"{', '.join(folders)} have {missing / SAMPLING_RATE:.0f} s too little for {seconds} s of speech")


def transcribe(path: Path, model: str, span_windows: int, threads: int) -> dict:
    """Seconds, peak resident bytes and characters of text of the command."""
    command = [sys.executable, "-m", "fastwhisper", "slm", "transcribe", str(path), "--model", model]
    command += ["--long_form", "stitch", "--span_windows", str(span_windows)]
    start, peak = time.perf_counter(), 0
    with (path.parent / "said.txt").open("w+") as said:
        running = psutil.Popen(
            command,
            stdout=said,
            env={**psutil.Process().environ(), "OMP_NUM_THREADS": str(threads)},
        )
        while running.poll() is None:
            try:
                peak = max(peak, running.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.02)
        if running.wait():
            raise subprocess.CalledProcessError(running.returncode, command)
        said.seek(0)
        characters = len(said.read())
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak, "characters": characters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a FastSLM")
    parser.add_argument("--data", nargs="+", required=True, help="folders with recordings")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--span_windows", type=int, default=1, help="windows that are answered at once")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length, seconds in LENGTHS.items():
            path = Path(folder, "speech.flac")
            recordings = join(args.data, seconds, path)
            row = {"audio": length, "audio_seconds": seconds, "recordings": recordings}
            rows.append({**row, **transcribe(path, args.model, args.span_windows, args.threads)})
            print(rows[-1], flush=True)
    settings = {
        "model": Path(args.model).name,
        "data": [Path(folder).name for folder in args.data],
        "span_windows": args.span_windows,
        "threads": args.threads,
    }
    report = {**run_record(settings), "rows": rows}
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "fastslm_hour.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
