"""Peak memory of encoding recordings of 1 min to 8 h, block by block and all at once (small model, CPU).

    python benchmarks/fastslm_memory.py --output benchmarks/results

Each length runs in a process of its own that makes its windows as it needs them, as `fastwhisper slm transcribe` reads
them from a file; the number is the process's peak resident memory above that of the idle model, of which the speech
tokens that are kept for the language model have their part. "All at once" gives the encoder all windows in one batch,
as the published code does.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from run_record import run_record

from fastwhisper import FastSLMConfig, FastSLMModel

THREADS = 1
LENGTHS = {"1 min": 2, "10 min": 20, "1 h": 120, "8 h": 960}


def small_model(block: int) -> FastSLMModel:
    """Whisper windows of 30 s, small everywhere else."""
    audio = {
        "model_type": "whisper", "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 2,
        "encoder_ffn_dim": 128, "num_mel_bins": 80, "max_source_positions": 1500,
    }  # fmt: skip
    text = {
        "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 100,
    }  # fmt: skip
    return FastSLMModel(FastSLMConfig(audio_config=audio, text_config=text, encoder_window_batch=block)).eval()


@torch.inference_mode()
def measure(windows: int, block: int) -> None:
    """Print peak bytes above the idle model, and seconds."""
    torch.set_num_threads(THREADS)
    model = small_model(block)
    model.get_audio_features(torch.zeros(1, 80, 3000))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start, tokens = time.perf_counter(), []
    for first in range(0, windows, block):
        size = min(block, windows - first)
        tokens.append(model.get_audio_features(torch.randn(size, 80, 3000)).pooler_output)
    joined = torch.cat(tokens)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - idle
    measured = {"peak_bytes": peak, "seconds": time.perf_counter() - start, "speech_tokens": len(joined)}
    # The tokens of the blocks, and all of them joined.
    print(json.dumps({**measured, "tokens_bytes": 2 * joined.numel() * joined.element_size()}))


def plot(rows: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for way in dict.fromkeys(row["way"] for row in rows):
        chosen = [row for row in rows if row["way"] == way]
        minutes = [row["windows"] / 2 for row in chosen]
        axes.loglog(minutes, [row["peak_bytes"] / 2**20 for row in chosen], "o-", label=way)
        if way != "all at once":
            kept = [(row["peak_bytes"] - row["tokens_bytes"]) / 2**20 for row in chosen]
            axes.loglog(minutes, kept, "o--", label=f"{way}, without the speech tokens")
    axes.set(xlabel="minutes of audio", ylabel="peak memory above the idle model (MiB)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results")
    parser.add_argument("--block", type=int, default=8, help="encoder_window_batch")
    parser.add_argument("--at_once", type=int, default=120, help="most windows to encode in one batch for comparison")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure(*args.worker)
        return
    rows = []
    for way, most in ((f"blocks of {args.block} windows", max(LENGTHS.values())), ("all at once", args.at_once)):
        for length, windows in LENGTHS.items():
            if windows <= most:
                block = args.block if way != "all at once" else windows
                command = [sys.executable, __file__, "--worker", str(windows), str(block)]
                measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                rows.append({"way": way, "audio": length, "windows": windows, **measured})
                print(rows[-1], flush=True)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    settings = {"block": args.block, "at_once": args.at_once, "threads": THREADS}
    report = {**run_record(settings), "rows": rows}
    (output / "fastslm_memory.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(rows, output / "fastslm_memory.png")


if __name__ == "__main__":
    main()
