"""Peak memory that `fastwhisper.transcribe` adds for FLAC files of 1 min to 3 h, above that of the loaded model.

    python benchmarks/hour_memory.py --model openai/whisper-tiny.en --output benchmarks/results

Each length runs in a process of its own. Without `--model` it is a random model of one layer with Whisper's window of
30 s and 80 mel bins, so that what is left is the memory of reading, samples and features.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from run_record import run_record

import fastwhisper
from fastwhisper.evaluation.measurement import resident_growth
from fastwhisper.transcription.checkpoints import load_checkpoint

THREADS = 1
MINUTES = (1, 10, 60, 180)


def write_noise(path: Path, minutes: int) -> None:
    """Noise whose loudness moves, as speech does."""
    generator = np.random.default_rng(0)
    loudness = np.sin(np.arange(60 * 16_000) / 9_000) ** 2 / 20
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(minutes):
            file.write(generator.standard_normal(len(loudness)) * loudness)


def small_checkpoint(folder: Path) -> Path:
    """A Whisper of one layer that soon ends its text."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer

    torch.manual_seed(0)
    tokenizer = build_demo_tokenizer()
    ids = {
        "decoder_start_token_id": tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(vocab_size=len(tokenizer), max_target_positions=8, num_mel_bins=80, **sizes, **heads, **ids)
    config.suppress_tokens = config.begin_suppress_tokens = None
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **ids,
        is_multilingual=False,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        max_length=8,
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def measure(model: str, minutes: int) -> None:
    """Print the peak in bytes, and seconds."""
    torch.set_num_threads(THREADS)
    pair = load_checkpoint(model, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.flac"
        write_noise(file, minutes)
        start = time.perf_counter()
        peak = resident_growth(lambda: fastwhisper.transcribe(file, pair, temperatures=(0.0,)).text)
    print(json.dumps({"minutes": minutes, "peak_bytes": peak, "seconds": time.perf_counter() - start}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name on the Hub or folder; by default a small random one")
    parser.add_argument("--minutes", type=int, nargs="+", default=MINUTES)
    parser.add_argument("--output", default="benchmarks/results")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure(args.model, *args.minutes)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(small_checkpoint(Path(folder)))
        for minutes in args.minutes:
            command = [sys.executable, __file__, "--worker", "--model", model, "--minutes", str(minutes)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    name = Path(args.model).name if args.model else "small"
    report = {**run_record({"model": name, "threads": THREADS}), "rows": rows}
    (output / f"hour_memory_{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
