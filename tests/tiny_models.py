"""Tiny Whispers with real vocabularies and generation configs."""

import torch
from transformers import (
    GenerationConfig,
    TrainingArguments,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

# The lowest transformers that is admitted has the older name.
CHECKPOINTING = (
    "activation_checkpointing"
    if "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    else "gradient_checkpointing"
)


def tiny_whisper(
    tokenizer: WhisperTokenizer,
    seconds: int = 2,
    encoder_layers: int = 2,
    decoder_layers: int = 4,
    d_model: int = 32,
    mel_bins: int = 80,
    seed: int = 0,
    **settings,
) -> WhisperForConditionalGeneration:
    """A random Whisper for `tokenizer` with a window of `seconds`, and all that `generate` reads."""
    torch.manual_seed(seed)
    ffn_dim = settings.pop("ffn_dim", 2 * d_model)
    ids = tokenizer.convert_tokens_to_ids
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=ffn_dim,
        decoder_ffn_dim=ffn_dim,
        num_mel_bins=mel_bins,
        max_source_positions=50 * seconds,
        max_target_positions=settings.pop("max_target_positions", 64),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=settings.pop("init_std", 0.2),
        **settings,
    )
    model = WhisperForConditionalGeneration(config).eval()
    languages = [token for token in tokenizer.all_special_tokens if 6 <= len(token) <= 7 and token[2:-2].isalpha()]
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        is_multilingual=True,
        lang_to_id={language: ids(language) for language in languages},
        task_to_id={task: ids(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        max_initial_timestamp_index=50,
        alignment_heads=[[config.decoder_layers - 1, 0], [config.decoder_layers // 2, 1]],
        max_length=config.max_target_positions,
    )
    return model
