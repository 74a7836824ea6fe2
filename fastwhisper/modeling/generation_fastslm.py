"""Generation from speech: a budget from the audio's duration, a guard against loops, and no silent truncation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList
from transformers.utils import logging

from .answer_budget import budget, check_fits
from .finish_reasons import FINISHED, LoopGuard, end_token_ids, finish_reason
from .prompt_audio import PromptAudio, split_by_prompt
from .stitching_fastslm import generate_stitched

AUDIO_INPUTS = ("input_features", "input_features_mask", "audio_features", "tokens_per_window")
logger = logging.get_logger(__name__)


class FastSLMGenerationMixin(GenerationMixin):
    r"""`generate` for prompts with speech."""

    config: Any
    get_audio_features: Callable[..., Any]

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self: Any,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        loop_guard: bool = True,
        long_form: str | None = None,
        span_windows: int | None = None,
        window_token_counts: Sequence[int] | torch.Tensor | None = None,
        window_progress: Callable[[int, int], None] | None = None,
        span_progress: Callable[[int, int], None] | None = None,
        **kwargs,
    ) -> Any:
        r"""As [`GenerationMixin.generate`], with the audio encoded once, before the first step.

        `max_new_tokens` follows from the audio's duration unless a length is given. Prompt and answer are returned in
        one tensor, as from any causal model; with `return_dict_in_generate=True` the result has `finish_reasons`,
        one for each sequence: `"stop"` (ended by itself), `"length"` or `"loop"` (ended by the loop guard).

        Args:
            loop_guard (`bool`, *optional*, defaults to `True`): Stop a sequence that repeats itself.
            long_form (`"stitch"`, *optional*):
                Answer spans of the audio one after another and join the answers: for transcripts of recordings
                beyond the language model's context. One audio per prompt. Prompts with window times keep them
                span by span, and need `tokenizer`, which reads them.
            span_windows (`int`, *optional*): Windows of a span; as many as the context allows by default.
            window_token_counts (`list[int]` or `torch.Tensor`, *optional*):
                With `audio_features`: how many of them belong to each window, as `get_audio_features` returns it.
                Without it, all windows of a prompt except the last are assumed to be whole.
            window_progress (`Callable`, *optional*): Called with the number of windows encoded so far, and of all.
            span_progress (`Callable`, *optional*):
                Called after each span of `long_form="stitch"` with the windows answered so far, and all.
            kwargs: Other arguments of `GenerationMixin.generate` and of `forward`.

        Raises:
            AudioTooLongError: if the audio does not fit the language model's context, with tokens needed, tokens
                available and the longest audio that fits.
            ValueError: if the audio does not match the placeholders.
        """
        if inputs is None:
            inputs = kwargs.pop("input_ids", None)
        settings = generation_config or self.generation_config
        if inputs is None or settings.is_assistant:
            return super().generate(  # type: ignore[misc]
                inputs, generation_config, logits_processor, stopping_criteria, **kwargs
            )
        if long_form not in (None, "stitch"):
            raise ValueError(f"long_form={long_form!r} is unknown; it must be None or 'stitch'")
        if span_windows is not None and (long_form is None or span_windows < 1):
            raise ValueError(f"span_windows={span_windows} must be at least 1, and needs long_form='stitch'")
        given = {name: kwargs.get(name) or getattr(settings, name) for name in ("max_new_tokens", "max_length")}
        attention_mask = kwargs.get("attention_mask")
        audio = self._prompt_audio(inputs, window_token_counts, kwargs)
        if audio and long_form is None:
            check_fits(self.config, inputs, attention_mask, audio, given["max_new_tokens"] or 1)
        if audio and kwargs.get("audio_features") is None:
            audio = self._encoded(audio, window_progress, kwargs)
        if audio and long_form == "stitch":
            kwargs.pop("attention_mask", None)
            kwargs = {name: value for name, value in kwargs.items() if name not in AUDIO_INPUTS}
            return generate_stitched(
                self,
                inputs,
                attention_mask,
                audio,
                span_windows,
                span_progress,
                generation_config=generation_config,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                loop_guard=loop_guard,
                **kwargs,
            )

        if audio:
            if not any(given.values()):
                kwargs["max_new_tokens"] = budget(self.config, inputs, attention_mask, audio)
            if kwargs.get("assistant_model") is None:
                # An assistant needs the audio in its own width, so it encodes it itself.
                kwargs = {name: value for name, value in kwargs.items() if name not in AUDIO_INPUTS}
                kwargs["audio_features"] = torch.cat([prompt.features for prompt in audio])
        suppressed = kwargs.pop("suppress_tokens", None) or settings.suppress_tokens or []
        if self.config.audio_token_id < self.config.text_config.vocab_size:
            suppressed = sorted({*suppressed, self.config.audio_token_id})
        guard = LoopGuard(inputs.shape[1])
        criteria = StoppingCriteriaList([*(stopping_criteria or []), *([guard] if loop_guard else [])])
        outputs = super().generate(  # type: ignore[misc]
            inputs, generation_config, logits_processor, criteria, suppress_tokens=suppressed or None, **kwargs
        )
        return self._with_finish_reasons(outputs, guard if loop_guard else None, inputs.shape[1], any(given.values()))

    def prepare_inputs_for_generation(  # type: ignore[override]
        self: Any, input_ids: torch.LongTensor, **kwargs
    ) -> dict:
        """As usual; the audio goes only to a step that sees its placeholders."""
        audio = {name: kwargs.pop(name) for name in AUDIO_INPUTS if name in kwargs}
        model_inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[misc]
        ids = model_inputs.get("input_ids")
        # A step with a cache sees one id; looking at it would wait for the device.
        if ids is not None and ids.shape[1] > 1 and (ids == self.config.audio_token_id).any():
            model_inputs.update(audio)
        return model_inputs

    def _expand_inputs_for_generation(
        self: Any,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs,
    ) -> tuple[Any, dict]:
        """As usual for beams and samples; speech tokens are repeated prompt by prompt."""
        audio_features = model_kwargs.pop("audio_features", None)
        if audio_features is not None and expand_size > 1:
            tokens = self._placeholders(input_ids)
            audio_features = torch.cat([row.repeat(expand_size, 1) for row in audio_features.split(tokens)])
        input_ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        if audio_features is not None:
            model_kwargs["audio_features"] = audio_features
        return input_ids, model_kwargs

    def _placeholders(self, input_ids: torch.Tensor) -> list[int]:
        return (input_ids == self.config.audio_token_id).sum(dim=1).tolist()

    def _prompt_audio(
        self: Any, input_ids: torch.Tensor, window_token_counts: Sequence[int] | torch.Tensor | None, kwargs: dict
    ) -> list[PromptAudio]:
        """The audio of each prompt, of no width where it is still to be encoded; an empty list for text only."""
        config, placeholders = self.config, self._placeholders(input_ids)
        features, mask = kwargs.get("audio_features"), kwargs.get("input_features_mask")
        if features is not None:
            chosen = kwargs.get("tokens_per_window") or config.tokens_per_window
            rate = config.qformer_config.check_rate(None if chosen is None else int(chosen))
            if window_token_counts is None:
                windows = [min(rate, count - start) for count in placeholders for start in range(0, count, rate)]
            else:
                windows = [int(count) for count in window_token_counts]
            seconds = [config.window_seconds * count / rate for count in windows]
            return split_by_prompt(features, windows, seconds, placeholders)
        if kwargs.get("input_features") is None:
            return []
        windows = self.model.window_token_counts(kwargs["input_features"], mask, kwargs.get("tokens_per_window"))
        frames = [config.window_mel_frames] * len(windows) if mask is None else mask.sum(dim=1).tolist()
        seconds = [config.window_seconds * count / config.window_mel_frames for count in frames]
        return split_by_prompt(torch.empty(sum(windows), 0), windows, seconds, placeholders)

    def _encoded(self: Any, audio: list[PromptAudio], progress: Callable | None, kwargs: dict) -> list[PromptAudio]:
        """The audio of prompts with its speech tokens."""
        encoded = self.get_audio_features(
            kwargs["input_features"],
            kwargs.get("input_features_mask"),
            tokens_per_window=kwargs.get("tokens_per_window"),
            progress=progress,
        )
        features = encoded.pooler_output.split([sum(prompt.window_tokens) for prompt in audio])
        return [replace(prompt, features=tokens) for prompt, tokens in zip(audio, features, strict=True)]

    def _with_finish_reasons(
        self: Any, outputs: Any, guard: LoopGuard | None, prompt_length: int, length_given: bool
    ) -> Any:
        plain = isinstance(outputs, torch.Tensor)
        sequences, ends = outputs if plain else outputs.sequences, end_token_ids(self)
        reasons = [finish_reason(row, ends, guard) for row in sequences[:, prompt_length:]]
        cut = [row for row, reason in enumerate(reasons) if reason != FINISHED]
        if cut and plain and not length_given:
            logger.warning(
                f"sequences {cut} did not end by themselves ({', '.join(reasons[row] for row in cut)}); "
                "return_dict_in_generate=True gives `finish_reasons`"
            )
        if not plain:
            outputs["finish_reasons"] = reasons
        return outputs


__all__ = ["FastSLMGenerationMixin"]
