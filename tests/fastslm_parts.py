"""Tiny parts of a FastSLM: a Whisper of 1 s windows, language models of two layers, and their processor."""

import copy
from functools import cache

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, WhisperConfig, WhisperFeatureExtractor, WhisperModel

from fastwhisper import FastSLMForCausalLM, FastSLMProcessor
from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer

POSITIONS, QUERIES, MEL_BINS = 50, 5, 80
MEL_FRAMES = 2 * POSITIONS
VOCABULARY = 120
AUDIO_ID = VOCABULARY
ADAPTER = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "max_source_positions": POSITIONS,
    "stage_queries": (8, 8, 8),
    "num_queries": QUERIES,
}


def tiny_encoder(seed=0) -> WhisperModel:
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=60,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=MEL_BINS,
        max_source_positions=POSITIONS,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        init_std=0.2,
    )
    return WhisperModel(config).eval()


def tiny_language_model(config_class=Qwen3Config, seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    return AutoModelForCausalLM.from_config(config_class(**{**sizes, **settings})).eval()


def tiny_fastslm(adapter=None, language_model=None, seed=0, **settings) -> FastSLMForCausalLM:
    language_model = language_model or tiny_language_model(tie_word_embeddings=True)
    torch.manual_seed(seed)
    return FastSLMForCausalLM.from_parts(
        tiny_encoder(), language_model, qformer_config={**ADAPTER, **(adapter or {})}, **settings
    )


@cache
def _demo_tokenizer():
    return build_demo_tokenizer()


def fresh_tokenizer():
    """The demo's tokenizer, safe to change."""
    return copy.deepcopy(_demo_tokenizer())


def tiny_processor(**settings) -> FastSLMProcessor:
    extractor = WhisperFeatureExtractor(feature_size=MEL_BINS, chunk_length=1)
    return FastSLMProcessor.from_parts(
        extractor, fresh_tokenizer(), max_source_positions=POSITIONS, num_queries=QUERIES, **settings
    )


def tiny_pair(adapter=None, **settings) -> tuple[FastSLMForCausalLM, FastSLMProcessor]:
    """A model and a processor that fit each other."""
    processor = tiny_processor()
    language_model = tiny_language_model(
        vocab_size=len(processor.tokenizer), pad_token_id=processor.tokenizer.pad_token_id, eos_token_id=None
    )
    model = tiny_fastslm(adapter, language_model, tokenizer=processor.tokenizer, **settings)
    return model, FastSLMProcessor.from_parts(processor.feature_extractor, processor.tokenizer, model.config)


def windows(count: int, seed=0) -> torch.Tensor:
    return torch.randn(count, MEL_BINS, MEL_FRAMES, generator=torch.Generator().manual_seed(seed))


def mask_of(*mel_frames: int) -> torch.Tensor:
    return (torch.arange(MEL_FRAMES)[None] < torch.tensor(mel_frames)[:, None]).long()


def prompts(*speech_tokens: int) -> dict[str, torch.Tensor]:
    """Prompts of three words around so many placeholders each, padded on the left."""
    rows = [[3 + row, *[AUDIO_ID] * count, 7, 8] for row, count in enumerate(speech_tokens)]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
    }
