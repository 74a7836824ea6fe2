"""Generation from speech: a budget from the audio's duration, a guard against loops, and no silent cut."""

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils import logging

from .prompt_audio import PromptAudio, placeholder_runs, split_by_prompt
from .stitching_fastslm import (
    AUDIO_INPUTS,
    CUT_BY_LENGTH,
    CUT_BY_LOOP_GUARD,
    EXTRA_TEXT_TOKENS,
    FINISHED,
    TEXT_TOKENS_PER_SECOND,
    StitchedGenerationMixin,
)

logger = logging.get_logger(__name__)


class LoopGuard(StoppingCriteria):
    r"""Stops a row whose end is one n-gram over and over.

    The end is a loop where its last `max(min_repeats * n, min_length)` tokens repeat with a period of n tokens, for
    an n of 1 to `max_period`: words said a few times in a row are not.

    Args:
        prompt_length (`int`): tokens before the generated ones.
        max_period (`int`, *optional*, defaults to 32): longest n-gram.
        min_repeats (`int`, *optional*, defaults to 4): times that it is said at least.
        min_length (`int`, *optional*, defaults to 24): tokens of the loop at least.
    """

    def __init__(self, prompt_length: int, max_period: int = 32, min_repeats: int = 4, min_length: int = 24):
        self.prompt_length = prompt_length
        self.max_period = max_period
        self.min_repeats = min_repeats
        self.min_length = min_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return self.loops(input_ids[:, self.prompt_length :])

    def loops(self, generated: torch.Tensor) -> torch.Tensor:
        """Whether each row of `(batch, tokens)` ends in a loop, `(batch,)`."""
        looping = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
        length = generated.shape[1]
        for period in range(1, self.max_period + 1):
            span = max(self.min_repeats * period, self.min_length)
            if span <= length:
                tail = generated[:, length - span :]
                looping |= (tail[:, period:] == tail[:, :-period]).all(dim=1)
        return looping


class FastSLMGenerationMixin(StitchedGenerationMixin, GenerationMixin):
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
        window_progress: Callable[[int, int], None] | None = None,
        span_progress: Callable[[int, int], None] | None = None,
        **kwargs,
    ) -> Any:
        r"""As [`GenerationMixin.generate`], with the audio encoded once, before the first step.

        `max_new_tokens` follows from the audio's duration unless a length is given. Prompt and answer come back in
        one tensor, as from any causal model; with `return_dict_in_generate=True` the result has `finish_reasons`,
        one per sequence: `"stop"` (ended by itself), `"length"` or `"loop"` (ended by the loop guard).

        Args:
            loop_guard (`bool`, *optional*, defaults to `True`): Stop a sequence that repeats itself.
            long_form (`"stitch"`, *optional*):
                Answer spans of the audio one after the other and join the answers: for transcripts of recordings
                beyond the language model's context. One audio a prompt. Prompts with the times of windows keep them
                span by span, and need `tokenizer`, which reads them.
            span_windows (`int`, *optional*): Windows of a span; as many as the context allows by default.
            window_progress (`Callable`, *optional*): Called with the windows encoded so far, and all.
            span_progress (`Callable`, *optional*):
                Called after each span of `long_form="stitch"` with the windows answered so far, and all.
            kwargs: Further arguments of `GenerationMixin.generate` and of `forward`.

        Raises:
            ValueError: where the audio does not fit the language model's context (with tokens needed, tokens
                available and the longest audio that fits), or does not match the placeholders.
        """
        if inputs is None:
            inputs = kwargs.pop("input_ids", None)
        settings = generation_config or self.generation_config
        if inputs is None or settings.is_assistant:
            return super().generate(  # type: ignore[misc]
                inputs, generation_config, logits_processor, stopping_criteria, **kwargs
            )
        if long_form not in (None, "stitch"):
            raise ValueError(f"long_form={long_form!r} is unknown; it is None or 'stitch'")
        if span_windows is not None and (long_form is None or span_windows < 1):
            raise ValueError(f"span_windows={span_windows} must be at least 1, and needs long_form='stitch'")
        audio = self._encode_audio(inputs, window_progress, kwargs)
        if audio and long_form == "stitch":
            return self._generate_stitched(
                inputs, generation_config, loop_guard, span_windows, audio, span_progress, kwargs
            )

        given = {name: kwargs.get(name) or getattr(settings, name) for name in ("max_new_tokens", "max_length")}
        if audio:
            kwargs.update(self._budget(inputs, audio, given, kwargs.get("attention_mask")))
            if kwargs.get("assistant_model") is None:
                # An assistant needs the audio in its own width, and encodes it itself.
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
        # A step with a cache sees one id: no look at it, which would wait for the device.
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

    def _encode_audio(self, input_ids: torch.Tensor, progress: Callable | None, kwargs: dict) -> list[PromptAudio]:
        """The audio of each prompt; an empty list for text alone."""
        config, placeholders = self.config, self._placeholders(input_ids)
        features, mask = kwargs.get("audio_features"), kwargs.get("input_features_mask")
        if features is not None:
            # Speech tokens alone do not tell where their windows end: whole windows are taken for granted.
            rate = self._rate(kwargs)
            windows = [min(rate, count - start) for count in placeholders for start in range(0, count, rate)]
            return split_by_prompt(
                features, windows, [config.window_seconds * n / rate for n in windows], placeholders
            )
        if kwargs.get("input_features") is None:
            return []
        encoded = self.get_audio_features(
            kwargs["input_features"], mask, tokens_per_window=kwargs.get("tokens_per_window"), progress=progress
        )
        windows = encoded.window_token_counts.tolist()
        frames = [config.window_mel_frames] * len(windows) if mask is None else mask.sum(dim=1).tolist()
        seconds = [config.window_seconds * count / config.window_mel_frames for count in frames]
        return split_by_prompt(encoded.pooler_output, windows, seconds, placeholders)

    def _runs(self, ids: torch.Tensor) -> list[tuple[int, int]]:
        return placeholder_runs(ids, self.config.audio_token_id)

    def _rate(self, kwargs: dict) -> int:
        """Speech tokens of a whole window."""
        chosen = kwargs.get("tokens_per_window") or self.config.tokens_per_window
        return self.config.qformer_config.check_rate(None if chosen is None else int(chosen))

    def _context(self) -> int | None:
        """Tokens that the language model can attend to; `None` where it knows no limit."""
        return getattr(self.config.text_config, "max_position_embeddings", None)

    def _budget(
        self, input_ids: torch.Tensor, audio: list[PromptAudio], given: dict, attention_mask: torch.Tensor | None
    ) -> dict[str, int]:
        """`max_new_tokens` for the longest audio of the batch, within the context; nothing where a length is given."""
        lengths = [input_ids.shape[1]] * len(input_ids)
        if attention_mask is not None:
            lengths = attention_mask.sum(dim=1).tolist()
        context, new_tokens = self._context(), given["max_new_tokens"] or 1
        for ids, length, prompt in zip(input_ids, lengths, audio, strict=True):
            if context is not None and prompt.window_tokens and length + new_tokens > context:
                raise ValueError(self._too_long(ids, length, prompt, new_tokens, context))
        if any(given.values()):
            return {}
        longest = max(sum(prompt.window_seconds) for prompt in audio)
        budget = math.ceil(TEXT_TOKENS_PER_SECOND * longest) + EXTRA_TEXT_TOKENS
        return {"max_new_tokens": budget if context is None else min(budget, context - max(lengths))}

    def _too_long(self, ids: torch.Tensor, length: int, prompt: PromptAudio, new_tokens: int, context: int) -> str:
        speech, config, runs = sum(prompt.window_tokens), self.config, self._runs(ids)
        between = [begin - end for (_, end), (begin, _) in zip(runs, runs[1:], strict=False)]
        # Text in front of every window is its time: n windows then bring n - 1 such texts behind the first.
        times = between if len(runs) == len(prompt.window_tokens) else []
        time = max(times, default=0)
        room = context - (length - speech - sum(times)) - new_tokens
        windows = max(0, room + time) // (max(prompt.window_tokens) + time)
        seconds = windows * (config.window_seconds - config.window_overlap)
        return (
            f"the audio does not fit the language model: {length + new_tokens} tokens are needed ({speech} of speech, "
            f"{length - speech} of text, {new_tokens} new), {context} are available; the longest audio that fits this "
            f"prompt is {seconds:.0f} s. Give less audio, or long_form='stitch' for a transcript in spans"
        )

    def _with_finish_reasons(
        self, outputs: Any, guard: LoopGuard | None, prompt_length: int, length_given: bool
    ) -> Any:
        plain = isinstance(outputs, torch.Tensor)
        sequences = outputs if plain else outputs.sequences
        reasons = [self._finish_reason(row, guard) for row in sequences[:, prompt_length:]]
        cut = [row for row, reason in enumerate(reasons) if reason != FINISHED]
        if cut and plain and not length_given:
            logger.warning(
                f"sequences {cut} did not end by themselves ({', '.join(reasons[row] for row in cut)}); "
                "return_dict_in_generate=True gives `finish_reasons`"
            )
        if not plain:
            outputs["finish_reasons"] = reasons
        return outputs

    def _finish_reason(self, generated: torch.Tensor, guard: LoopGuard | None) -> str:
        ends = (generated[:, None] == self._end_ids().to(generated.device)).any(dim=1).nonzero()
        own = generated[: int(ends[0])] if len(ends) else generated
        if guard is not None and bool(guard.loops(own[None])):
            return CUT_BY_LOOP_GUARD
        return FINISHED if len(ends) else CUT_BY_LENGTH

    def _end_ids(self) -> torch.Tensor:
        """Ids that end an answer or fill the rest of its row."""
        ends = self.generation_config.eos_token_id
        ends = self.config.eos_token_id if ends is None else ends
        ends = ends if isinstance(ends, list) else [ends]
        return torch.tensor([end for end in [*ends, self.generation_config.pad_token_id] if end is not None])


__all__ = ["FastSLMGenerationMixin", "LoopGuard"]
