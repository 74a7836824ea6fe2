"""FastSLM: hours of speech for a causal language model, at 1.67 tokens per second.

A Whisper encoder reads windows of 30 s, an HFQ-Former turns each into a few speech tokens, a projector brings them to
the width of the language model, where they take the place of audio placeholders. Source: arXiv 2601.06199.
"""

import os
from collections.abc import Callable

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    Cache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import initialization as init
from transformers.utils import can_return_tuple

from ..configuration.configuration_fastslm import MEL_FRAMES_PER_ENCODER_FRAME, FastSLMConfig
from ..configuration.saved_folder import checkpoint_name
from .generation_fastslm import FastSLMGenerationMixin
from .language_models_fastslm import all_end_ids, body_and_head, check_logits
from .modeling_hfq_former import HFQFormer
from .outputs_fastslm import FastSLMAudioOutput, FastSLMCausalLMOutput, FastSLMModelOutput
from .quantization_fastslm import LanguageModelQuantization, take_quantiser
from .speech_windows import FastSLMSpeechEncoder, check_windows, encoder_frames, load_speech_encoder, window_blocks


class FastSLMPreTrainedModel(LanguageModelQuantization):
    r"""What both FastSLM models share."""

    config: FastSLMConfig
    config_class = FastSLMConfig
    base_model_prefix = "model"
    input_modalities = ["audio", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["WhisperEncoderLayer", "HFQCompressor", "HFQDownsampler", "HFQBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class FastSLMModel(FastSLMPreTrainedModel):
    r"""The parts `audio_tower`, `adapter` (HFQ-Former), `multi_modal_projector` and headless `language_model`."""

    def __init__(self, config: FastSLMConfig):
        super().__init__(config)
        self.audio_tower = FastSLMSpeechEncoder(config.audio_config)
        self.adapter = HFQFormer(config.qformer_config)
        self.multi_modal_projector = nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def train(self, mode: bool = True) -> "FastSLMModel":
        """As usual, but a frozen encoder stays in evaluation mode: no dropout on features that are not trained."""
        super().train(mode)
        if self.config.freeze_audio_tower:
            # Here and not in the constructor: loading makes every parameter trainable and calls eval() at the end.
            self.audio_tower.requires_grad_(False).eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        tokens_per_window: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        **kwargs,
    ) -> FastSLMAudioOutput:
        """Speech tokens of the windows of all clips, encoded in blocks of `config.encoder_window_batch`.

        Args:
            input_features (`torch.Tensor`):
                Log-mel windows `(windows, mel bins, config.window_mel_frames)`, clip after clip.
            input_features_mask (`torch.Tensor`, *optional*):
                `(windows, config.window_mel_frames)`, 1 on audio and 0 on padding, padding last; all audio by default.
            tokens_per_window (`int`, *optional*):
                One of `qformer_config.rates`; `config.tokens_per_window` by default.
            progress (`Callable`, *optional*):
                Called after each block with the number of windows encoded so far, and of all.

        Returns:
            `FastSLMAudioOutput`: flat tokens in `pooler_output`, tokens of each window in `window_token_counts`.

        Raises:
            ValueError: for windows of another size, or for a rate that the checkpoint does not have.
        """
        config = self.config
        rate, lengths = self._rate_and_lengths(input_features, input_features_mask, tokens_per_window)
        tokens: list[torch.Tensor | None] = [None] * len(input_features)
        done = 0
        whole = config.audio_config.max_source_positions
        margin = config.encoder_true_length_margin if config.encoder_true_length else None
        for block, frames in window_blocks(lengths, whole, config.encoder_window_batch, margin):
            features = input_features[block, :, : MEL_FRAMES_PER_ENCODER_FRAME * frames]
            encoded = self.audio_tower(features.to(self.audio_tower.device, self.audio_tower.dtype))
            block_lengths = lengths[block].to(encoded.device)
            adapted = self.adapter(encoded, frame_lengths=block_lengths, tokens_per_window=rate)
            projected = self.multi_modal_projector(adapted)
            kept = self.adapter.kept_tokens(block_lengths, rate)
            for row, window in enumerate(block):
                tokens[window] = projected[row, kept[row]]
            done += len(block)
            if progress is not None:
                progress(done, len(input_features))
        counts = torch.tensor([len(states) for states in tokens if states is not None])
        flat = torch.cat([states for states in tokens if states is not None])
        return FastSLMAudioOutput(pooler_output=flat, window_token_counts=counts)

    def window_token_counts(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        tokens_per_window: int | None = None,
    ) -> list[int]:
        """Speech tokens that `get_audio_features` gives of each window, without encoding any; arguments as there."""
        rate, lengths = self._rate_and_lengths(input_features, input_features_mask, tokens_per_window)
        return self.adapter.kept_tokens(lengths, rate).sum(dim=1).tolist()

    def _rate_and_lengths(
        self, input_features: torch.Tensor, mask: torch.Tensor | None, tokens_per_window: int | None
    ) -> tuple[int, torch.Tensor]:
        """The rate to use, and the encoder frames of audio in each window `(windows,)`."""
        config = self.config
        check_windows(input_features, config.audio_config.num_mel_bins, config.window_mel_frames)
        rate = config.tokens_per_window if tokens_per_window is None else int(tokens_per_window)
        return config.qformer_config.check_rate(rate), encoder_frames(input_features, mask)

    def get_placeholder_mask(self, input_ids: torch.Tensor, audio_features: torch.Tensor | None) -> torch.Tensor:
        """Mask `(batch, length)` of the audio placeholders.

        Raises:
            ValueError: if their number differs from that of the speech tokens; the message names both.
        """
        mask = input_ids == self.config.audio_token_id
        placeholders = int(mask.sum())
        speech_tokens = 0 if audio_features is None else len(audio_features)
        if placeholders != speech_tokens:
            raise ValueError(
                f"audio and placeholders do not match: the prompt has {placeholders} placeholders (id "
                f"{self.config.audio_token_id}), the audio gives {speech_tokens} speech tokens"
            )
        return mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        tokens_per_window: int | None = None,
        **kwargs,
    ) -> FastSLMModelOutput:
        """Hidden states of the language model over text and speech.

        Args:
            input_ids (`torch.LongTensor`): `(batch, length)`; each `config.audio_token_id` takes one speech token.
            input_features, input_features_mask, tokens_per_window: as in `get_audio_features`.
            audio_features (`torch.Tensor`, *optional*):
                Speech tokens `(speech tokens, width)` computed beforehand, instead of `input_features`.

        Raises:
            ValueError: if speech tokens and placeholders differ in number.
        """
        if input_features is not None and audio_features is None:
            if input_ids is None:
                raise ValueError("audio needs input_ids, whose placeholders say where its speech tokens go")
            audio_features = self.get_audio_features(
                input_features, input_features_mask, tokens_per_window, return_dict=True
            ).pooler_output
        continues = past_key_values is not None and past_key_values.get_seq_length() > 0
        if input_ids is not None and not (continues and audio_features is None):
            placeholders = self.get_placeholder_mask(input_ids, audio_features)
            if audio_features is not None:
                # Placeholder ids may be outside the vocabulary: any other row will do until it is overwritten.
                inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
                speech = audio_features.to(inputs_embeds.device, inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(placeholders[..., None], speech)
                input_ids = None
        outputs = self.language_model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return FastSLMModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            audio_hidden_states=audio_features,
        )


class FastSLMForCausalLM(FastSLMPreTrainedModel, FastSLMGenerationMixin):
    r"""FastSLM with the head of its language model: a text-only prompt gives exactly that model's logits."""

    accepts_loss_kwargs = True

    def __init__(self, config: FastSLMConfig):
        super().__init__(config)
        self.model = FastSLMModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        embeddings = self.get_input_embeddings()
        # `embed_tokens` in most language models, `wte` in GPT-2.
        name = next(name for name, module in self.named_modules() if module is embeddings)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    @classmethod
    def from_parts(
        cls,
        speech_encoder: PreTrainedModel | str | os.PathLike,
        language_model: PreTrainedModel | str | os.PathLike,
        qformer_config: dict | PreTrainedConfig | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        audio_token: str = "<|AUDIO|>",
        dtype: torch.dtype | None = None,
        **settings,
    ) -> "FastSLMForCausalLM":
        r"""Join a Whisper (or FastWhisper) and a causal language model by an untrained adapter.

        A FastWhisper at true length is used so: see `encoder_true_length` of [`FastSLMConfig`].

        Modules and weights are not copied: the result shares them with the models that are passed in.

        Args:
            speech_encoder (`PreTrainedModel`, `str` or `os.PathLike`): A Whisper, or the name or folder of one.
            language_model (`PreTrainedModel`, `str` or `os.PathLike`):
                A causal language model, quantised or not, or the name or folder of one.
            qformer_config (`HFQFormerConfig` or `dict`, *optional*):
                By default the published adapter at the encoder's size.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                A tokenizer with `audio_token`. If it has more ids than the language model, the embeddings grow.
                Without a tokenizer the placeholder is the first id after the vocabulary.
            audio_token (`str`, *optional*, defaults to `"<|AUDIO|>"`): The placeholder in `tokenizer`.
            dtype (`torch.dtype`, *optional*): Of all parts; the language model's by default.
            settings: Other fields of [`FastSLMConfig`], for example `encoder_window_batch`.

        Raises:
            ValueError: for parts other than a Whisper and a causal language model, a tokenizer without `audio_token`,
                or a language model that a FastSLM cannot hold completely: see `body_and_head` and `check_logits`.
        """
        encoder = load_speech_encoder(speech_encoder)
        if not isinstance(language_model, PreTrainedModel):
            language_model = AutoModelForCausalLM.from_pretrained(
                language_model, dtype=dtype or "auto", trust_remote_code=False
            )
        body, head = body_and_head(language_model)
        if tokenizer is not None:
            if audio_token not in tokenizer.get_vocab():
                raise ValueError(f"the tokenizer has no token {audio_token!r}; add_speech_tokens(tokenizer) adds it")
            settings.setdefault("audio_token_id", tokenizer.get_vocab()[audio_token])
            settings.setdefault("separator_token_ids", tokenizer.encode(" ", add_special_tokens=False))
            if len(tokenizer) > language_model.config.vocab_size:
                language_model.resize_token_embeddings(len(tokenizer))
            head = language_model.get_output_embeddings()
        settings.setdefault("audio_token_id", language_model.config.vocab_size)
        # The config may be plain Whisper's, which keeps what it does not know.
        settings.setdefault("encoder_true_length", bool(getattr(encoder.config, "true_length", False)))
        if settings["encoder_true_length"]:
            settings.setdefault("encoder_true_length_margin", getattr(encoder.config, "true_length_margin", 0.0))
        settings.setdefault("attn_implementation", {"text_config": language_model.config._attn_implementation})
        config = FastSLMConfig(
            audio_config=AutoConfig.for_model(**encoder.config.to_dict()),
            text_config=language_model.config,
            qformer_config=qformer_config,
            speech_encoder=checkpoint_name(encoder.config._name_or_path),
            language_model=checkpoint_name(language_model.config._name_or_path),
            **settings,
        )
        dtype = dtype or language_model.dtype
        with torch.device("meta"):
            model = cls(config)
        audio_tower = model.model.audio_tower
        audio_tower.load_state_dict(encoder.state_dict(), assign=True)
        model.model.language_model, model.lm_head = body, head
        adapter: nn.Module = HFQFormer(config.qformer_config)
        model.model.adapter = adapter.to(device=language_model.device, dtype=dtype)
        model.model.multi_modal_projector = model._fresh_projector().to(device=language_model.device, dtype=dtype)
        audio_tower.to(device=language_model.device, dtype=dtype)
        model.tie_weights()
        own = language_model.generation_config
        pad_token_id = config.pad_token_id if own.pad_token_id is None else own.pad_token_id
        if tokenizer is not None and pad_token_id is None:
            pad_token_id = tokenizer.pad_token_id
        model.generation_config.update(
            eos_token_id=all_end_ids(own.eos_token_id, config.eos_token_id, tokenizer),
            pad_token_id=pad_token_id,
            bos_token_id=config.bos_token_id,
        )
        model.eval()
        check_logits(model, language_model)
        take_quantiser(model, language_model)
        return model

    def get_audio_features(self, input_features: torch.Tensor, input_features_mask=None, **kwargs):
        """As [`FastSLMModel.get_audio_features`]."""
        return self.model.get_audio_features(input_features, input_features_mask, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_decoder(self) -> PreTrainedModel:
        return self.model.language_model

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        tokens_per_window: int | None = None,
        **kwargs,
    ) -> FastSLMCausalLMOutput:
        """Logits, and the loss of the next token if `labels` are given.

        Args:
            input_ids, input_features, input_features_mask, audio_features, tokens_per_window:
                As in [`FastSLMModel.forward`].
            labels (`torch.LongTensor`, *optional*):
                `(batch, length)`, -100 for none; speech positions never count.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Compute the logits of that many last positions (0: all), or of the given positions.
        """
        outputs = self.model(
            input_ids=input_ids,
            input_features=input_features,
            input_features_mask=input_features_mask,
            audio_features=audio_features,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            tokens_per_window=tokens_per_window,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        cap = getattr(self.config.text_config, "final_logit_softcapping", None)
        if cap is not None:  # Gemma 2 and 3
            logits = torch.tanh(logits / cap) * cap
        loss = None
        if labels is not None:
            if input_ids is not None:
                labels = labels.masked_fill(input_ids == self.config.audio_token_id, -100)
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **kwargs)
        return FastSLMCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            audio_hidden_states=outputs.audio_hidden_states,
        )

    def _fresh_projector(self) -> nn.Linear:
        projector = nn.Linear(self.config.qformer_config.hidden_size, self.config.text_config.hidden_size)
        init.normal_(projector.weight, std=self.config.initializer_range)
        init.zeros_(projector.bias)
        return projector


__all__ = ["FastSLMForCausalLM", "FastSLMModel"]
