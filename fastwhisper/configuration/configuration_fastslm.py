"""Configurations of FastSLM: a speech encoder, a hierarchical frame Q-Former (HFQ-Former) and a causal LLM."""

import os
from typing import Any, Literal

from transformers.utils.versions import require_version

# ruff: noqa: E402
# Before importing what earlier versions lack, so that the error is one line that says so.
require_version("transformers>=5.20")

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .saved_folder import write_own_code

# Log-mel frames per second, and log-mel frames per encoder frame, of every Whisper encoder.
MEL_FRAMES_PER_SECOND = 100
MEL_FRAMES_PER_ENCODER_FRAME = 2


@strict
class HFQFormerConfig(PreTrainedConfig):
    r"""Configuration of an [`HFQFormer`]; the defaults are the published model (arXiv 2601.06199) on Whisper-large-v3.

    The fields from `query_clock` on are options of this package; their defaults give the published behaviour.

    Args:
        hidden_size (`int`, *optional*, defaults to 1280):
            Width of the speech encoder and of the whole adapter.
        num_attention_heads (`int`, *optional*, defaults to 20):
            Heads of every attention.
        max_source_positions (`int`, *optional*, defaults to 1500):
            Encoder frames of one window (50 per second).
        stage_queries (`list[int]`, *optional*, defaults to `(80, 80, 80)`):
            Learned queries per time scale; each scale after the first halves the frame rate.
        num_queries (`int`, *optional*, defaults to 50):
            Speech tokens per window.
        num_blocks (`int`, *optional*, defaults to 2):
            Attention blocks on the speech tokens.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of every layer normalisation.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of new weights and queries. It suits the published width: with a narrow encoder the
            speech signal fades in small weights, and about 1 / sqrt(hidden_size) learns faster.
        query_clock (`"index"` or `"aligned"`, *optional*, defaults to `"index"`):
            Time that a query's sinusoid stands for: `"index"` puts query i at frame i, `"aligned"` at frame
            i * frames / queries, so that the queries spread over the window from the start.
        mask_padding (`bool`, *optional*, defaults to `False`):
            Leave frames after the end of the audio out of every attention and convolution.
        tokens_follow_length (`bool`, *optional*, defaults to `False`):
            Keep only the queries whose time is within the audio: tokens in proportion to its true length.
        rates (`list[int]`, *optional*):
            Tokens per window that may be chosen at run time, each at most `num_queries`.
        intermediate_size (`int`, *optional*):
            Width of a feed-forward network in each attention block; no such network by default.
        dropout (`float`, *optional*, defaults to 0.0):
            Dropout on the output of every attention and feed-forward network of the blocks.

    Raises:
        ValueError: for sizes that do not match.
    """

    model_type = "hfq_former"
    base_config_key = "qformer_config"

    hidden_size: int = 1280
    num_attention_heads: int = 20
    max_source_positions: int = 1500
    stage_queries: list[int] | tuple[int, ...] = (80, 80, 80)
    num_queries: int = 50
    num_blocks: int = 2
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    query_clock: Literal["index", "aligned"] = "index"
    mask_padding: bool = False
    tokens_follow_length: bool = False
    rates: list[int] | tuple[int, ...] | None = None
    intermediate_size: int | None = None
    dropout: float | int = 0.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.hidden_size % self.num_attention_heads or self.hidden_size % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be even and a multiple of "
                f"num_attention_heads={self.num_attention_heads}"
            )
        if not self.stage_queries or min(*self.stage_queries, self.num_queries, self.max_source_positions) < 1:
            raise ValueError("stage_queries, num_queries and max_source_positions must all be at least 1")
        if self.rates is not None and not all(1 <= rate <= self.num_queries for rate in self.rates):
            raise ValueError(f"rates={list(self.rates)} must lie between 1 and num_queries={self.num_queries}")

    def check_rate(self, tokens_per_window: int | None) -> int:
        """The chosen tokens per window; `num_queries` for `None`.

        Raises:
            ValueError: if the number is not one of `rates` (or `num_queries`); the message names them.
        """
        if tokens_per_window is None:
            return self.num_queries
        allowed = sorted({*(self.rates or ()), self.num_queries})
        if tokens_per_window not in allowed:
            raise ValueError(f"tokens_per_window={tokens_per_window} is not one of this checkpoint's rates {allowed}")
        return int(tokens_per_window)


def spread_queries(num_queries: int, tokens_per_window: int) -> list[int]:
    """Indices of `tokens_per_window` out of `num_queries` queries, evenly spaced from the first on."""
    return [index * num_queries // tokens_per_window for index in range(tokens_per_window)]


def tokens_in_window(
    frames: int, max_source_positions: int, num_queries: int, tokens_per_window: int, tokens_follow_length: bool
) -> int:
    """Speech tokens of a window with `frames` encoder frames of audio; at least one.

    Query i of Q stands for the time i / Q of the window, and is kept if that is within the audio.
    """
    if not tokens_follow_length:
        return tokens_per_window
    queries = spread_queries(num_queries, tokens_per_window)
    return max(1, sum(query * max_source_positions < frames * num_queries for query in queries))


@strict
class FastSLMConfig(PreTrainedConfig):
    r"""Configuration of [`FastSLMModel`] and [`FastSLMForCausalLM`].

    Args:
        audio_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of a Whisper; Whisper-large-v3's encoder by default.
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of a causal language model; Qwen3-4B by default.
        qformer_config (`HFQFormerConfig` or `dict`, *optional*):
            Configuration of the adapter; by default, width and frames follow the encoder.
        audio_token_id (`int`, *optional*, defaults to 151669):
            Id of the placeholder that speech tokens replace. It may be outside the LLM's vocabulary.
        encoder_window_batch (`int`, *optional*, defaults to 8):
            Windows encoded at once: bounds the encoder's memory for recordings of any length.
        encoder_true_length (`bool`, *optional*, defaults to `False`):
            Feed the encoder audio without padding, rounded up to a whole second. For encoders that were trained so;
            [`FastSLMForCausalLM.from_parts`] sets it for a FastWhisper at true length.
        encoder_true_length_margin (`float`, *optional*, defaults to 0.0):
            Seconds of silence kept behind the audio then, before rounding: what the encoder was trained with.
        freeze_audio_tower (`bool`, *optional*, defaults to `True`):
            Do not train the encoder.
        window_overlap (`float`, *optional*, defaults to 0.0):
            Seconds that neighbouring windows share; the processor cuts accordingly.
        tokens_per_window (`int`, *optional*):
            Speech tokens per window unless a call chooses; `qformer_config.num_queries` by default.
        separator_token_ids (`list[int]`, *optional*):
            Ids put between the texts of two spans by `long_form="stitch"`, usually those of a space.
        tie_word_embeddings (`bool`, *optional*):
            Whether the output head shares the LLM's input embeddings; as in `text_config` by default.
        pad_token_id, bos_token_id, eos_token_id (*optional*):
            As in `text_config` by default.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of a new projector.
        speech_encoder (`str`, *optional*):
            Name of the checkpoint that the encoder was taken from; the last path component for a local folder. Kept
            for the record, like `language_model`: it changes no computation.
        language_model (`str`, *optional*):
            Name of the checkpoint that the language model was taken from.

    Raises:
        ValueError: if encoder and adapter do not match.
    """

    model_type = "fastslm"
    sub_configs_defaults = {
        "audio_config": SubConfigSpec(
            AutoConfig,
            model_type="whisper",
            init_kwargs={
                "d_model": 1280,
                "encoder_layers": 32,
                "encoder_attention_heads": 20,
                "encoder_ffn_dim": 5120,
                "num_mel_bins": 128,
                "max_source_positions": 1500,
            },
        ),
        "text_config": SubConfigSpec(
            AutoConfig,
            model_type="qwen3",
            init_kwargs={
                "hidden_size": 2560,
                "intermediate_size": 9728,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "max_position_embeddings": 40960,
                "tie_word_embeddings": True,
            },
        ),
        "qformer_config": SubConfigSpec(HFQFormerConfig),
    }

    audio_config: Any = None
    text_config: Any = None
    qformer_config: Any = None
    audio_token_id: int = 151669
    encoder_window_batch: int = 8
    encoder_true_length: bool = False
    encoder_true_length_margin: float | int = 0.0
    freeze_audio_tower: bool = True
    window_overlap: float | int = 0.0
    tokens_per_window: int | None = None
    separator_token_ids: list[int] | None = None
    tie_word_embeddings: bool | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    initializer_range: float = 0.02
    speech_encoder: str | None = None
    language_model: str | None = None

    def __post_init__(self, **kwargs):
        adapter_follows_encoder = self.qformer_config is None
        super().__post_init__(**kwargs)
        audio, text = self.audio_config, self.text_config
        if adapter_follows_encoder:
            self.qformer_config = HFQFormerConfig(
                hidden_size=audio.d_model,
                num_attention_heads=audio.encoder_attention_heads,
                max_source_positions=audio.max_source_positions,
            )
        adapter = self.qformer_config
        if (adapter.hidden_size, adapter.max_source_positions) != (audio.d_model, audio.max_source_positions):
            raise ValueError(
                f"the adapter takes {adapter.max_source_positions} frames of width {adapter.hidden_size}, "
                f"but the encoder gives {audio.max_source_positions} frames of width {audio.d_model}"
            )
        if self.encoder_window_batch < 1:
            raise ValueError(f"encoder_window_batch={self.encoder_window_batch} must be at least 1")
        if not 0 <= self.encoder_true_length_margin < float("inf"):
            raise ValueError(
                f"encoder_true_length_margin={self.encoder_true_length_margin} must be seconds, 0 or more"
            )
        if not 0 <= self.window_overlap < self.window_seconds:
            raise ValueError(
                f"window_overlap={self.window_overlap} s must be shorter than a window of {self.window_seconds} s"
            )
        adapter.check_rate(self.tokens_per_window)
        for name in ("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(text, name, None))

    def to_diff_dict(self) -> dict[str, Any]:
        """What `config.json` contains, without the local folders that the parts were loaded from."""
        settings = super().to_diff_dict()
        for part in self.sub_configs_defaults:
            settings.get(part, {}).pop("_name_or_path", None)
        return settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """As [`PreTrainedConfig.save_pretrained`], together with the code that the saved `auto_map` names."""
        super().save_pretrained(save_directory)
        write_own_code(save_directory)
        if push_to_hub:
            # Not left to the base class, which would upload before the code is written.
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)

    @property
    def window_mel_frames(self) -> int:
        """Log-mel frames of one window."""
        return MEL_FRAMES_PER_ENCODER_FRAME * self.audio_config.max_source_positions

    @property
    def window_seconds(self) -> float:
        """Seconds of one window."""
        return self.window_mel_frames / MEL_FRAMES_PER_SECOND


__all__ = ["FastSLMConfig", "HFQFormerConfig"]
