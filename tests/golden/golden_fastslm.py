"""What a tiny FastSLM computes, from weights that no random generator of torch makes; kept in golden_fastslm.json.

python -m tests.golden.golden_fastslm        # write the file anew, after a change that is meant to change it
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from ..fastslm_parts import tiny_pair

FILE = Path(__file__).with_suffix(".json")
OPTIONS = {
    "published": {},
    "own options": {"query_clock": "aligned", "mask_padding": True, "tokens_follow_length": True, "rates": (3, 5)},
}


def fill(model: torch.nn.Module) -> None:
    """Weights by their names; the generator of numpy that they come from is frozen for all versions."""
    for name, weight in model.named_parameters():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(weight.shape))
        scale = 0.1 if weight.ndim == 1 else weight[0].numel() ** -0.5
        weight.data.copy_(torch.from_numpy(scale * values) + ("norm.weight" in name))
    model.tie_weights()


def clip(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 220 * time * (1 + time)) + 0.1 * np.cos(5000 * time)).astype(np.float32)


@torch.no_grad()
def outputs(option: str) -> dict:
    """Ids and features of a request, its speech tokens, logits, loss, and two ways of answering it."""
    model, processor = tiny_pair(OPTIONS[option])
    fill(model)
    rate = {"tokens_per_window": 3} if "rates" in OPTIONS[option] else {}
    inputs = processor.apply_transcription_request(clip(1.3), language="en", processor_kwargs=rate)
    features, mask = inputs["input_features"], inputs["input_features_mask"]
    speech = model.get_audio_features(features, mask, **rate)
    labels = inputs["input_ids"].clone()
    answered = model(**inputs, labels=labels)
    prompt = inputs["input_ids"].shape[1]
    spans = {"long_form": "stitch", "span_windows": 1, "max_new_tokens": 5}
    return {
        "input_ids": inputs["input_ids"][0].tolist(),
        "features": features[:, ::40, ::30].flatten().tolist(),
        "window_token_counts": speech.window_token_counts.tolist(),
        "speech": speech.pooler_output[:, :4].flatten().tolist(),
        "logits": answered.logits[0, ::7, :5].flatten().tolist(),
        "loss": [answered.loss.item()],
        "answer": model.generate(**inputs, max_new_tokens=8)[0, prompt:].tolist(),
        "stitched": model.generate(**inputs, **spans)[0, prompt:].tolist(),
    }


def main() -> None:
    rounded = {
        option: {name: [round(value, 5) for value in values] for name, values in outputs(option).items()}
        for option in OPTIONS
    }
    lines = (f"  {json.dumps(option)}: {json.dumps(values)}" for option, values in rounded.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
