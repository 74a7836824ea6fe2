"""Train a tiny FastSLM on CPU until it transcribes spoken commands of voices that it never heard.

    python examples/finetune_fastslm.py --encoder fastwhisper/assets/demo_teacher --output tiny_fastslm

A frozen Whisper encoder (4 s windows), the published HFQ-Former at its width, and a two-layer Qwen3 from nothing.
"""

import argparse
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Trainer, TrainingArguments, WhisperProcessor

from fastwhisper import FastSLMForCausalLM, FastSLMProcessor
from fastwhisper.data.commands import sample_command
from fastwhisper.data.synthetic import HELD_OUT_VARIANTS, TRAINING_VARIANTS, compose_clip
from fastwhisper.evaluation.metrics import word_error_rate

PROMPT = "Transcribe the audio clip into text."


def build(encoder: str, queries: int, seed: int) -> tuple[FastSLMForCausalLM, FastSLMProcessor]:
    """An untrained model and its processor, both on the encoder's own window and tokenizer."""
    torch.manual_seed(seed)
    whisper = WhisperProcessor.from_pretrained(encoder)
    settings = {"max_source_positions": whisper.feature_extractor.nb_max_frames // 2, "num_queries": queries}
    processor = FastSLMProcessor.from_parts(whisper.feature_extractor, whisper.tokenizer, **settings)
    config = Qwen3Config(
        vocab_size=len(processor.tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=32, max_position_embeddings=512,
        tie_word_embeddings=True, pad_token_id=processor.tokenizer.pad_token_id,
    )  # fmt: skip
    language_model = AutoModelForCausalLM.from_config(config)
    adapter = {**settings, "hidden_size": 128, "num_attention_heads": 4, "stage_queries": (16, 16, 16)}
    model = FastSLMForCausalLM.from_parts(encoder, language_model, adapter, tokenizer=processor.tokenizer)
    return model, processor


def speak(count: int, first_seed: int, variants: list[str], seconds: float) -> list[dict]:
    """Synthesised commands: samples at 16 kHz and what they say."""
    clips = (compose_clip(sample_command, first_seed + i, variants, seconds, several=False) for i in range(count))
    return [{"samples": clip.samples, "text": clip.text} for clip in clips]


def as_chat(clip: dict) -> list[dict]:
    """The chat of a transcription; answers begin with a space, as words inside of a text do."""
    content = [{"type": "audio", "audio": clip["samples"]}, {"type": "text", "text": f"\n{PROMPT}"}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": f" {clip['text']}"}]


@torch.no_grad()
def transcribe(model: FastSLMForCausalLM, processor: FastSLMProcessor, clips: list[dict]) -> list[str]:
    """Greedy transcripts."""
    texts = []
    for start in range(0, len(clips), 40):
        prompts = [as_chat(clip)[:1] for clip in clips[start : start + 40]]
        inputs = processor.apply_chat_template(prompts, tokenize=True, return_dict=True, add_generation_prompt=True)
        ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default=str(Path(__file__).parents[1] / "fastwhisper/assets/demo_teacher"))
    parser.add_argument("--output", default="tiny_fastslm")
    parser.add_argument("--queries", type=int, default=12, help="speech tokens per window of 4 s")
    parser.add_argument("--clips", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, processor = build(args.encoder, args.queries, args.seed)
    clips = speak(args.clips, 40_000_000, TRAINING_VARIANTS, model.config.window_seconds)
    random.Random(args.seed).shuffle(clips)
    settings = TrainingArguments(
        args.output, max_steps=args.steps, per_device_train_batch_size=16, learning_rate=1e-3, warmup_steps=100,
        lr_scheduler_type="cosine", logging_steps=100, save_strategy="no", report_to="none", use_cpu=True,
        remove_unused_columns=False, seed=args.seed, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model,
        settings,
        train_dataset=clips,
        data_collator=lambda batch: processor.apply_chat_template([as_chat(c) for c in batch], output_labels=True),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model(args.output)
    held_out = speak(200, 50_000_000, HELD_OUT_VARIANTS, model.config.window_seconds)
    texts = transcribe(model.eval(), processor, held_out)
    for clip, text in list(zip(held_out, texts, strict=True))[:5]:
        print(f"{clip['text']}  ->  {text}")
    rate = word_error_rate([clip["text"] for clip in held_out], texts)
    print(f"WER on 200 commands of held-out voices: {100 * rate:.1f} %")


if __name__ == "__main__":
    main()
