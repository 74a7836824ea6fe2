"""The names of a Whisper's weights and sizes in openai-whisper and whisper.cpp."""

import re

from transformers import WhisperConfig

from ..errors import InputError

# In this order: a name that holds another one comes first.
_PARTS = (
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder_attn", "cross_attn"),
    ("self_attn", "attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("layers", "blocks"),
    ("embed_tokens", "token_embedding"),
    ("embed_positions.weight", "positional_embedding"),
)
_LAST_NORM = re.compile(r"^(encoder|decoder)\.layer_norm\.")
OUTPUT_LAYER = "proj_out.weight"  # the embedding of the decoder, under another name


def openai_name(name: str) -> str:
    """The name in openai-whisper of a weight that `WhisperForConditionalGeneration` calls `name`."""
    name = name.removeprefix("model.")
    name = _LAST_NORM.sub(lambda found: "encoder.ln_post." if found[1] == "encoder" else "decoder.ln.", name)
    for ours, theirs in _PARTS:
        name = name.replace(ours, theirs)
    return name


def check_widths(config: WhisperConfig, engine: str) -> None:
    """Check that the feed-forward layers are as wide as openai's, which names no width for them.

    Raises:
        InputError: if they are not; the message names the engine.
    """
    if {config.encoder_ffn_dim, config.decoder_ffn_dim} != {4 * config.d_model}:
        raise InputError(f"{engine} takes only feed-forward layers of 4 x d_model = {4 * config.d_model}")


def dimensions(config: WhisperConfig) -> dict[str, int]:
    """The sizes of a Whisper under openai's names, in openai's order."""
    return {
        "n_mels": config.num_mel_bins,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }
