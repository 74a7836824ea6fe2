"""Memory and compute of distilling a large Whisper, by arithmetic from its shape: nothing is allocated or timed.

python benchmarks/training_cost.py
"""

import argparse

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

TARGET_TOKENS = 100
SHAPES = {
    "whisper-small": {"d_model": 768, "encoder_layers": 12, "decoder_layers": 12, "heads": 12, "vocab_size": 51865},
    "whisper-large-v3": {
        "d_model": 1280,
        "encoder_layers": 32,
        "decoder_layers": 32,
        "heads": 20,
        "vocab_size": 51866,
    },
}


def build(d_model, encoder_layers, decoder_layers, heads, vocab_size):
    with torch.device("meta"):
        return WhisperForConditionalGeneration(
            WhisperConfig(
                d_model=d_model, encoder_layers=encoder_layers, decoder_layers=decoder_layers, vocab_size=vocab_size,
                encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * d_model,
                decoder_ffn_dim=4 * d_model,
            )
        )  # fmt: skip


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def flops(config, layers, positions, attended):
    """Multiply-adds x 2 of transformer layers: 4 projections and 8 d^2 of feed-forward, and the attention itself."""
    per_position = layers * (24 * config.d_model**2 + 4 * config.d_model * attended)
    return per_position * positions


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder-layers", type=int, default=4)
    parser.add_argument("--teraflops", type=float, default=100.0, help="that the device sustains, in 1e12 FLOP/s")
    args = parser.parse_args()
    print("| teacher | student | weights, gradients, AdamW | compute a row of 30 s | rows a second |")
    print("|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        teacher, student = build(**shape), build(**{**shape, "decoder_layers": args.decoder_layers})
        trained = parameters(student.model.decoder)
        # Student float32; gradients and two AdamW moments of what is trained; the teacher's decoder in bfloat16.
        gigabytes = (4 * parameters(student) + 12 * trained + 2 * parameters(teacher.model.decoder)) / 1e9
        config = teacher.config
        head = 2 * config.d_model * config.vocab_size * TARGET_TOKENS
        cross = {
            layers: 4 * config.d_model**2 * 1500 * layers for layers in (args.decoder_layers, shape["decoder_layers"])
        }
        encoder = flops(config, shape["encoder_layers"], 1500, 1500)
        taught = flops(config, shape["decoder_layers"], TARGET_TOKENS, 1500) + cross[shape["decoder_layers"]] + head
        learnt = 3 * (flops(config, args.decoder_layers, TARGET_TOKENS, 1500) + cross[args.decoder_layers] + head)
        total = encoder + taught + learnt
        print(
            f"| {name} ({parameters(teacher) / 1e6:.0f} M) | {args.decoder_layers} layers "
            f"({parameters(student) / 1e6:.0f} M, {trained / 1e6:.0f} M trained) | {gigabytes:.1f} GB | "
            f"{total / 1e12:.2f} TFLOP | {args.teraflops * 1e12 / total:.0f} at {args.teraflops:.0f} TFLOP/s |"
        )


if __name__ == "__main__":
    main()
