"""Train the demo's teacher from nothing: a small Whisper on synthetic household commands, on CPU.

    python examples/train_demo_teacher.py --output fastwhisper/assets/demo_teacher --seed 0

Two stages: 2 s windows, in which cross-attention finds its alignment cheaply, then the full 4 s windows; 80 minutes on
one core, 6 GB. The packaged one, seed 0: 6.16 % WER in the demo. Four of its voices breathe at random: runs differ.
"""

import argparse
import math
import random
from functools import partial

import torch
from tqdm import tqdm
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper.evaluation.alignment import measure_alignment_heads
from fastwhisper.synthetic_speech.commands import sample_command
from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer, demo_config, demo_generation_config
from fastwhisper.synthetic_speech.espeak import TRAINING_VARIANTS, compose_clip

SECONDS, BATCH_SIZE, LEARNING_RATE = 4, 16, 1e-3


def build_features(first, count, seconds, several):
    """Log-mel features (clips, mel, frames) in half precision, and the clips."""
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=seconds)
    features, clips = torch.empty(count, 80, seconds * 100, dtype=torch.float16), []
    for index in tqdm(range(count), desc=f"speaking {seconds} s clips"):
        clips.append(compose_clip(sample_command, first + index, TRAINING_VARIANTS, seconds, several=several))
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
    start = min(step, last - cooldown)
    cosine = 0.5 * (1 + math.cos(math.pi * (start - warmup) / (horizon - warmup)))
    return step / warmup if step < warmup else cosine if step <= start else cosine * (last - step) / cooldown


def train(model, features, clips, tokenizer, seed, steps, **schedule):
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, last=steps, **schedule))
    order = []
    for _ in (progress := tqdm(range(steps), desc="training")):
        if len(order) < BATCH_SIZE:
            order = rng.sample(range(len(clips)), len(clips))
        batch = [order.pop() for _ in range(BATCH_SIZE)]
        labels = [torch.tensor(encode(clips[index], tokenizer, rng)) for index in batch]
        labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        loss = model(features[batch].float(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="demo_teacher")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = build_demo_tokenizer()
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS), tokenizer)
    model = WhisperForConditionalGeneration(demo_config(tokenizer, SECONDS)).train()
    positions = model.model.encoder.embed_positions
    model.model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(positions.weight[:100].clone())
    model.config.max_source_positions = 100
    short = build_features(10_000_000, 4000, 2, several=False)
    train(model, *short, tokenizer, args.seed, steps=1500, warmup=300, horizon=1575, cooldown=0)
    model.model.encoder.embed_positions = positions
    model.config.max_source_positions = 50 * SECONDS
    full = build_features(20_000_000, 16_000, SECONDS, several=True)
    train(model, *full, tokenizer, args.seed, steps=3900, warmup=200, horizon=6300, cooldown=650)
    model.eval().generation_config = demo_generation_config(model.config, tokenizer)
    _, clips = build_features(35_000_000, 40, SECONDS, several=False)
    samples, texts = [clip.samples for clip in clips], [clip.text for clip in clips]
    model.generation_config.alignment_heads = measure_alignment_heads(model, processor, samples, texts, "en")
    model.half().save_pretrained(args.output)
    processor.save_pretrained(args.output)
    processor.feature_extractor.save_pretrained(args.output)


if __name__ == "__main__":
    main()
