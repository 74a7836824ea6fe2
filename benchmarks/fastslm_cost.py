"""What speech costs a language model at four token rates: tokens, prefill, cache, time to first token, memory.

    python benchmarks/fastslm_cost.py --output benchmarks/results

The language model has the shape of Qwen3-0.6B (`--shape 4b` for Qwen3-4B) and random weights. FLOPs are counted by
torch's flop counter (attention as if it were not causal) and cache bytes summed over the cache's own tensors, both on
tensors without memory ("meta"), so that every length can be counted anywhere. Times and peak memory are measured, in
a process each: with the whole model for prompts of up to `--measure_tokens`; beyond that, up to `--layer_tokens`, with
one layer and with two, whose difference in time stands for each of the others (the memory is that of one layer, and
the counted cache of the others). Prompts that both ways measure say how well that fits. All ratios are of one run.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from run_record import run_record
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache, Qwen3Config

from fastwhisper import FastSLMConfig, FastSLMModel

TOKENS_PER_SECOND = {"HFQ-Former": 50 / 30, "window Q-Former": 10.0, "frame stacking": 12.5, "average pooling": 25.0}
LENGTHS = {"30 s": 30, "10 min": 600, "1 h": 3600, "8 h": 8 * 3600}
PROMPT_TOKENS = 20
SHAPES = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}


def language_model_config(shape: str) -> Qwen3Config:
    """A Qwen3 whose context holds the longest prompt."""
    longest = round(max(LENGTHS.values()) * max(TOKENS_PER_SECOND.values())) + PROMPT_TOKENS
    return Qwen3Config(
        **SHAPES[shape], num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=True,
        max_position_embeddings=longest, pad_token_id=0,
    )  # fmt: skip


def prefill(model, tokens: int, device: str):
    """One forward of a prompt with `tokens` speech tokens; the cache that it leaves."""
    cache = DynamicCache(config=model.config)
    embeddings = torch.zeros(1, tokens + PROMPT_TOKENS, model.config.hidden_size, device=device, dtype=model.dtype)
    with torch.inference_mode():
        model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def count(config: Qwen3Config, tokens: int) -> tuple[int, int]:
    """FLOPs of the prefill and bytes of the cache in bfloat16."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    counter = FlopCounterMode(display=False)
    with counter:
        cache = prefill(model, tokens, "meta")
    layers = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return counter.get_total_flops(), sum(tensor.numel() * tensor.element_size() for tensor in layers)


def count_speech_side() -> dict[str, int]:
    """FLOPs per minute of audio of Whisper-large-v3's encoder, of the HFQ-Former and of the projector."""
    with torch.device("meta"):
        model = FastSLMModel(FastSLMConfig(encoder_window_batch=2)).eval()
        counter = FlopCounterMode(display=False, depth=2)
        with counter, torch.inference_mode():
            encoded = model.audio_tower(torch.zeros(2, 128, 3000))
            encoder = counter.get_total_flops()
            adapted = model.adapter(encoded)
            adapter = counter.get_total_flops() - encoder
            model.multi_modal_projector(adapted)
    return {"encoder": encoder, "adapter": adapter, "projector": counter.get_total_flops() - encoder - adapter}


def count_encoders() -> list[dict]:
    """FLOPs of encoding one clip: large-v3's encoder on 30 s always, and students of half its layers."""
    rows = []
    for name, layers, true_length in (
        ("teacher, 32 layers, 30 s", 32, False),
        ("teacher, 32 layers, true length", 32, True),
        ("student, 16 layers, 30 s", 16, False),
        ("student, 16 layers, true length", 16, True),
    ):
        config = FastSLMConfig(encoder_true_length=true_length)
        config.audio_config.encoder_layers = layers
        with torch.device("meta"):
            tower = FastSLMModel(config).audio_tower.eval()
        for seconds in (3, 10, 30):
            counter = FlopCounterMode(display=False)
            with counter, torch.inference_mode():
                tower(torch.zeros(1, 128, 100 * seconds if true_length else 3000, device="meta"))
            rows.append({"encoder": name, "clip_seconds": seconds, "flops": counter.get_total_flops()})
    return rows


def measure(shape: str, tokens: int, layers: list[int], threads: int) -> None:
    """Run in a process of its own: print seconds to the first token and peak bytes above the idle model, by layers."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = language_model_config(shape)
    config.num_hidden_layers = max(layers)
    config.layer_types = config.layer_types[: max(layers)]
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().to(device)
    every = model.model.layers
    prefill(model, 1, device)
    seconds: dict[int, list[float]] = {count: [] for count in layers}
    peaks = {}
    # The first round is a warm-up, whose memory is measured: later ones reuse what the first one asked for.
    for rounds in range(1 + max(1, min(3, 6000 // tokens))):
        for count in layers if rounds else layers[:1]:
            model.model.layers = every[:count]
            peak_before = reset_peak(device)
            start = time.perf_counter()
            prefill(model, tokens, device)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[count].append(time.perf_counter() - start)
            peaks.setdefault(count, peak_memory(device) - peak_before)
    medians = {
        count: statistics.median(values[1:] if count == layers[0] else values) for count, values in seconds.items()
    }
    print(json.dumps([[medians[count], peaks[count]] for count in layers]))


def measured(args: argparse.Namespace, tokens: int, *layers: int) -> list[tuple[float, int]]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--shape", args.shape, "--threads", str(args.threads)]
    command += ["--worker", str(tokens), "--layers", *map(str, layers)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def figures(args: argparse.Namespace, tokens: int, cache_bytes: int) -> dict:
    """Seconds to the first token and peak bytes of a prompt, in the ways that its length allows."""
    layers, row = SHAPES[args.shape]["num_hidden_layers"], {}
    if tokens <= args.measure_tokens:
        ((row["first_token_seconds"], row["peak_bytes"]),) = measured(args, tokens, layers)
    if args.measure_tokens // 2 <= tokens <= args.layer_tokens:
        (one, peak), (two, _) = measured(args, tokens, 1, 2)
        row["first_token_seconds_by_layers"] = one + (layers - 1) * (two - one)
        # The cache is counted in bfloat16; on CPU it is in float32.
        size = 1 if torch.cuda.is_available() else 2
        row["peak_bytes_by_layers"] = peak + size * cache_bytes * (layers - 1) // layers
    return row


def reset_peak(device: str) -> int:
    """Forget the peak so far; the memory in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of the resident memory
    return peak_memory(device)


def peak_memory(device: str) -> int:
    """Peak bytes since `reset_peak`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def plot(rows: list[dict], path: Path) -> None:
    """Tokens, FLOPs, cache and time to the first token of the four rates over the length of the audio."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = {
        "speech tokens": lambda row: row["tokens"],
        "prefill FLOPs": lambda row: row["prefill_flops"],
        "KV cache (GB)": lambda row: row["cache_bytes"] / 1e9,
        "seconds to the first token": lambda row: row.get(
            "first_token_seconds", row.get("first_token_seconds_by_layers")
        ),
    }
    for axes, (label, value) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        if not any(map(value, rows)):  # times, where none were measured
            axes.remove()
            continue
        for name, rate in TOKENS_PER_SECOND.items():
            points = [(row["seconds"] / 60, value(row)) for row in rows if row["adapter"] == name and value(row)]
            if points:
                axes.loglog(*zip(*points, strict=True), "o-", label=f"{name}, {rate:.3g} tokens/s")
        axes.set(xlabel="minutes of audio", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--output", default="benchmarks/results")
    parser.add_argument("--measure_tokens", type=int, default=1000, help="most speech tokens timed in the whole model")
    parser.add_argument("--layer_tokens", type=int, default=50_000, help="most speech tokens timed in single layers")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        measure(args.shape, args.worker, args.layers, args.threads)
        return
    config, rows = language_model_config(args.shape), []
    for length, seconds in LENGTHS.items():
        for name, rate in TOKENS_PER_SECOND.items():
            tokens = round(seconds * rate)
            flops, cache = count(config, tokens)
            row = {"audio": length, "seconds": seconds, "adapter": name, "tokens": tokens}
            row |= {"prefill_flops": flops, "cache_bytes": cache, **figures(args, tokens, cache)}
            rows.append(row)
            print(row, flush=True)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(args).items() if name not in ("worker", "layers")}
    report = {
        **run_record(settings, "cuda" if torch.cuda.is_available() else "cpu"),
        "speech_side_flops_per_minute": count_speech_side(),
        "encoders": count_encoders(),
        "rows": rows,
    }
    (output / f"fastslm_cost_{args.shape}.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(rows, output / f"fastslm_cost_{args.shape}.png")
    print(report["speech_side_flops_per_minute"])


if __name__ == "__main__":
    main()
