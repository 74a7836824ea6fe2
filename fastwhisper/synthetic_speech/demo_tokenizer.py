"""The demo's small vocabulary and the shape of its teacher: Whisper's special tokens over a BPE of the grammar."""

import json
import random

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

from .commands import sample_command

TIMESTAMP_RESOLUTION = 0.02


def build_demo_tokenizer(window_seconds: int = 4, vocab_size: int = 640, seed: int = 0) -> WhisperTokenizer:
    """A `WhisperTokenizer` trained on 20,000 commands, English only, with timestamps up to `window_seconds`."""
    rng = random.Random(seed)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    bpe.train_from_iterator((f" {sample_command(rng)}" for _ in range(20_000)), trainer)
    model = json.loads(bpe.to_str())["model"]
    specials = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    specials += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer = WhisperTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        pad_token="<|endoftext|>",
        extra_special_tokens=specials,
    )
    stamps = (f"<|{index * TIMESTAMP_RESOLUTION:.2f}|>" for index in range(50 * window_seconds + 1))
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    tokenizer.set_prefix_tokens()
    return tokenizer


def demo_config(tokenizer: WhisperTokenizer, window_seconds: int = 4) -> WhisperConfig:
    """The demo's teacher: 4 encoder and 6 decoder layers of width 128, 2.6 M parameters."""
    return WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=4,
        decoder_layers=6,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_source_positions=50 * window_seconds,
        max_target_positions=128,
        dropout=0.1,
        apply_spec_augment=True,
        mask_time_prob=0.03,
        mask_feature_prob=0.03,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),  # type: ignore[arg-type]
    )


def demo_generation_config(config: WhisperConfig, tokenizer: WhisperTokenizer) -> GenerationConfig:
    """What Whisper's `generate` needs to know of the demo's tokenizer."""
    ids = tokenizer.convert_tokens_to_ids
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        is_multilingual=True,
        lang_to_id={"<|en|>": ids("<|en|>")},
        task_to_id={"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")},
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        max_initial_timestamp_index=50,
        max_length=config.max_target_positions,
        num_beams=1,
        language="en",
        task="transcribe",
    )
