"""Train a tiny FastSLM on CPU until it transcribes spoken commands of voices that it never heard.

    python examples/finetune_fastslm.py --output tiny_fastslm

A frozen Whisper encoder (4 s windows), the published HFQ-Former at its width and a two-layer Qwen3, both from nothing.
"""

import argparse
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Trainer, TrainingArguments, WhisperProcessor

from fastwhisper import FastSLMForCausalLM, FastSLMProcessor
from fastwhisper.evaluation.metrics import word_error_rate
from fastwhisper.hub_cards.callback import ModelCardCallback
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.synthetic_speech.commands import sample_command
from fastwhisper.synthetic_speech.espeak import HELD_OUT_VARIANTS, TRAINING_VARIANTS, compose_clip

ENCODER = Path(__file__).parents[1] / "fastwhisper/assets/demo_teacher"
QUERIES = 12  # speech tokens per window
# Small weights suit the published width; at this one speech would fade on its way to the language model.
INITIALIZER_RANGE = 0.08


def build(seed: int) -> tuple[FastSLMForCausalLM, FastSLMProcessor]:
    """An untrained model and its processor, both on the encoder's own window and tokenizer."""
    torch.manual_seed(seed)
    whisper = WhisperProcessor.from_pretrained(ENCODER)
    settings = {"max_source_positions": whisper.feature_extractor.nb_max_frames // 2, "num_queries": QUERIES}
    processor = FastSLMProcessor.from_parts(whisper.feature_extractor, whisper.tokenizer, **settings)
    config = Qwen3Config(
        vocab_size=len(processor.tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=32, max_position_embeddings=512,
        tie_word_embeddings=True, pad_token_id=processor.tokenizer.pad_token_id, initializer_range=INITIALIZER_RANGE,
    )  # fmt: skip
    adapter = {**settings, "hidden_size": 128, "num_attention_heads": 4, "stage_queries": (16, 16, 16)}
    model = FastSLMForCausalLM.from_parts(
        ENCODER, AutoModelForCausalLM.from_config(config), {**adapter, "initializer_range": INITIALIZER_RANGE},
        tokenizer=processor.tokenizer, initializer_range=INITIALIZER_RANGE,
    )  # fmt: skip
    return model, processor


def speak(count: int, first_seed: int, variants: list[str], seconds: float) -> list[dict]:
    """Synthesised commands: samples at 16 kHz and what they say."""
    clips = (compose_clip(sample_command, first_seed + i, variants, seconds, several=False) for i in range(count))
    return [{"samples": clip.samples, "text": clip.text} for clip in clips]


def as_chat(clip: dict, processor: FastSLMProcessor) -> list[dict]:
    """The request of `apply_transcription_request`, and an answer that begins with a space, as words in a text do."""
    task, prompt = ({"type": "text", "text": text} for text in ("<|ASR|>", f"\n{processor.transcription_prompt}"))
    request = [task, {"type": "audio", "audio": clip["samples"]}, prompt]
    return [{"role": "user", "content": request}, {"role": "assistant", "content": f" {clip['text']}"}]


def transcribe(model: FastSLMForCausalLM, processor: FastSLMProcessor, clips: list[dict]) -> list[str]:
    """Greedy transcripts."""
    inputs = processor.apply_transcription_request([clip["samples"] for clip in clips])
    ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", default="tiny_fastslm")
    for name, default in (("clips", 16_000), ("held_out_clips", 200), ("steps", 4000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(argv)
    model, processor = build(args.seed)
    clips = speak(args.clips, 40_000_000, TRAINING_VARIANTS, model.config.window_seconds)
    random.Random(args.seed).shuffle(clips)
    settings = TrainingArguments(
        args.output, max_steps=args.steps, per_device_train_batch_size=16, learning_rate=1e-3, warmup_steps=100,
        lr_scheduler_type="cosine", logging_steps=100, save_strategy="no", report_to="none", use_cpu=True,
        remove_unused_columns=False, seed=args.seed, dataloader_pin_memory=False,
    )  # fmt: skip
    card = ModelCardCallback(datasets=["synthetic household commands (eSpeak NG)"], language="en")
    trainer = Trainer(
        model, settings, train_dataset=clips, processing_class=processor, callbacks=[card],
        data_collator=lambda batch: processor.apply_chat_template(
            [as_chat(clip, processor) for clip in batch], output_labels=True
        ),
    )  # fmt: skip
    trainer.train()
    card.write(export_folder(model.eval(), processor, args.output))
    held_out = speak(args.held_out_clips, 50_000_000, HELD_OUT_VARIANTS, model.config.window_seconds)
    texts = transcribe(model, processor, held_out)
    print(*(f"{clip['text']}  ->  {text}" for clip, text in zip(held_out[:5], texts, strict=False)), sep="\n")
    rate = word_error_rate([clip["text"] for clip in held_out], texts)
    print(f"WER on {len(held_out)} commands of held-out voices: {100 * rate:.1f} %")
    return rate


if __name__ == "__main__":
    main()
