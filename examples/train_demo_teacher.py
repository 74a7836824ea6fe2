"""Train the demo's teacher from nothing: a small Whisper on synthetic household commands, on CPU.

    python examples/train_demo_teacher.py --output fastwhisper/assets/demo_teacher --seed 0

Two stages: 2 s windows, in which cross-attention finds its alignment cheaply, then the full 4 s windows. About 80
minutes on one core. `fastwhisper evaluate --model OUTPUT --data demo/held_out` measures it on unheard voices.
"""

import argparse
import math
import random

import torch
from tqdm import tqdm
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper.data.commands import sample_command
from fastwhisper.data.demo_tokenizer import build_demo_tokenizer, demo_generation_config
from fastwhisper.data.synthetic import HELD_OUT_VARIANTS, TRAINING_VARIANTS, compose_clip
from fastwhisper.evaluation.alignment import measure_alignment_heads
from fastwhisper.evaluation.metrics import word_error_rate

WINDOW_SECONDS = 4


def build_features(count, first_seed, seconds, variants, several=True):
    """Log-mel features (clips, mel, frames) in half precision, and the clips."""
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=seconds)
    features, clips = torch.empty(count, 80, seconds * 100, dtype=torch.float16), []
    for index in tqdm(range(count), desc=f"speaking {seconds} s clips"):
        clips.append(compose_clip(sample_command, first_seed + index, variants, seconds, several=several))
        features[index] = extractor(clips[-1].samples, sampling_rate=16000, return_tensors="pt").input_features[0]
    return features, clips


def encode(clip, tokenizer, rng):
    """Label ids of a clip, half of the clips with timestamps; the start token is the model's own."""
    timestamps = rng.random() < 0.5 or clip.timestamped_text.count("<|") % 2 == 1
    prefix = "<|en|><|transcribe|>" + ("" if timestamps else "<|notimestamps|>")
    text = clip.timestamped_text if timestamps else f" {clip.text}"
    return tokenizer(prefix + text + "<|endoftext|>", add_special_tokens=False).input_ids


def learning_rate_factor(step, warmup, horizon, last, cooldown):
    """Warm-up, a cosine towards `horizon`, left for a straight descent to 0 over the last `cooldown` steps."""
    if step < warmup:
        return step / warmup
    start = min(step, last - cooldown)
    cosine = 0.5 * (1 + math.cos(math.pi * (start - warmup) / (horizon - warmup)))
    return cosine if step <= start else cosine * (last - step) / cooldown


def train(model, features, clips, tokenizer, steps, warmup, horizon, cooldown, args):
    rng = random.Random(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, warmup, horizon, steps, cooldown)
    )
    progress, running, order = tqdm(range(steps), desc="training"), 5.0, []
    for _ in progress:
        if len(order) < args.batch_size:
            order = rng.sample(range(len(clips)), len(clips))
        batch = [order.pop() for _ in range(args.batch_size)]
        labels = [torch.tensor(encode(clips[index], tokenizer, rng)) for index in batch]
        labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        loss = model(features[batch].float(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        running += 0.02 * (loss.item() - running)
        progress.set_postfix(loss=f"{running:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="demo_teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=3900)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = build_demo_tokenizer()
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_SECONDS), tokenizer)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=128, encoder_layers=4, decoder_layers=6, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=512, decoder_ffn_dim=512, max_source_positions=50 * WINDOW_SECONDS,
        max_target_positions=128, dropout=0.1, apply_spec_augment=True, mask_time_prob=0.03, mask_feature_prob=0.03,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, suppress_tokens=None, begin_suppress_tokens=None,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).train()

    positions = model.model.encoder.embed_positions
    model.model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(positions.weight[:100].clone())
    model.config.max_source_positions = 100
    short = build_features(4000, 10_000_000, 2, TRAINING_VARIANTS, several=False)
    train(model, *short, tokenizer, args.short_steps, 300, 1575, 0, args)

    model.model.encoder.embed_positions = positions
    model.config.max_source_positions = 50 * WINDOW_SECONDS
    full = build_features(16_000, 20_000_000, WINDOW_SECONDS, TRAINING_VARIANTS)
    train(model, *full, tokenizer, args.steps, 200, 6300, 650, args)

    model.eval().generation_config = demo_generation_config(model.config, tokenizer)
    _, clips = build_features(40, 35_000_000, WINDOW_SECONDS, TRAINING_VARIANTS, several=False)
    model.generation_config.alignment_heads = measure_alignment_heads(
        model, processor, [clip.samples for clip in clips], [clip.text for clip in clips], "en"
    )
    model.half().save_pretrained(args.output)
    processor.save_pretrained(args.output)
    processor.feature_extractor.save_pretrained(args.output)
    features, clips = build_features(400, 30_000_000, WINDOW_SECONDS, HELD_OUT_VARIANTS, several=False)
    model.float()
    texts = []
    for block in features.split(50):
        ids = model.generate(block.float(), max_new_tokens=40)
        texts += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    print(f"WER on held-out voices: {100 * word_error_rate([clip.text for clip in clips], texts):.2f} %")


if __name__ == "__main__":
    main()
