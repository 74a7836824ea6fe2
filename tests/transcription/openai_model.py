"""The same weights in openai's own code: the reference for word times."""

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

NAMES = {
    "layers": "blocks",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "self_attn_layer_norm": "attn_ln",
    "final_layer_norm": "mlp_ln",
    "encoder_attn": "cross_attn",
    "self_attn": "attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "decoder.embed_tokens": "decoder.token_embedding",
    "embed_positions.weight": "positional_embedding",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
}


def openai_model(model: WhisperForConditionalGeneration):
    """A `whisper.model.Whisper`; skips the test where openai-whisper is not installed."""
    whisper = pytest.importorskip("whisper.model", reason="needs openai-whisper: pip install fastwhisper[test]")
    config = model.config
    audio = (config.max_source_positions, config.d_model, config.encoder_attention_heads, config.encoder_layers)
    text = (config.max_target_positions, config.d_model, config.decoder_attention_heads, config.decoder_layers)
    converted = whisper.Whisper(whisper.ModelDimensions(config.num_mel_bins, *audio, config.vocab_size, *text))
    weights = {}
    for name, weight in model.model.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        weights[name] = weight
    converted.load_state_dict(weights)
    heads = torch.zeros(config.decoder_layers, config.decoder_attention_heads, dtype=torch.bool)
    for layer, head in model.generation_config.alignment_heads:
        heads[layer, head] = True
    converted.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return converted.eval()


def use_plain_python(monkeypatch) -> None:
    """For openai's warping: compiled, it takes longer than the test."""
    timing = pytest.importorskip("whisper.timing", reason="needs openai-whisper: pip install fastwhisper[test]")
    monkeypatch.setattr(timing, "backtrace", timing.backtrace.py_func)
    monkeypatch.setattr(timing, "dtw", lambda costs: timing.dtw_cpu.py_func(np.asarray(costs.double())))
