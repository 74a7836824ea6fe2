"""Long transcripts in spans: each is answered by itself, and the answers are joined."""

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import GenerateDecoderOnlyOutput

from .prompt_audio import PromptAudio
from .window_clock import clock, is_clock

# Tokens of text that a second of speech may need, and tokens on top: generous, since the model ends by itself.
TEXT_TOKENS_PER_SECOND = 10
EXTRA_TEXT_TOKENS = 32
SPAN_WINDOWS_WITHOUT_LIMIT = 20

AUDIO_INPUTS = ("input_features", "input_features_mask", "audio_features", "tokens_per_window")
FINISHED, CUT_BY_LENGTH, CUT_BY_LOOP_GUARD = "stop", "length", "loop"


class StitchedGenerationMixin:
    r"""`generate(long_form="stitch")`."""

    config: Any
    generation_config: Any
    generate: Callable[..., Any]
    _rate: Callable[[dict], int]
    _runs: Callable[[torch.Tensor], list[tuple[int, int]]]
    _context: Callable[[], int | None]
    _end_ids: Callable[[], torch.Tensor]

    def _generate_stitched(
        self,
        input_ids: torch.Tensor,
        generation_config: GenerationConfig | None,
        loop_guard: bool,
        span_windows: int | None,
        audio: list[PromptAudio],
        progress: Callable[[int, int], None] | None,
        kwargs: dict,
    ) -> Any:
        for name in ("streamer", "assistant_model", "num_return_sequences"):
            if kwargs.get(name) not in (None, 1):
                raise ValueError(f"long_form='stitch' does not take {name}")
        attention_mask = kwargs.pop("attention_mask", None)
        wants_dict = kwargs.pop("return_dict_in_generate", False)
        rate, tokenizer = self._rate(kwargs), kwargs.get("tokenizer")
        kwargs = {name: value for name, value in kwargs.items() if name not in AUDIO_INPUTS}
        done, total = 0, sum(len(prompt.window_tokens) for prompt in audio)

        def answered(windows: int) -> None:
            nonlocal done
            done += windows
            if progress is not None:
                progress(done, total)

        rows, reasons = [], []
        for row, prompt in enumerate(audio):
            ids = input_ids[row]
            ids = ids if attention_mask is None else ids[attention_mask[row].bool()]
            before, windows, after = self._prompt_parts(ids, prompt, tokenizer)
            text_tokens = len(before) + len(after)
            time_tokens = max(len(ids) - tokens for ids, tokens in zip(windows, prompt.window_tokens, strict=True))
            span = span_windows or self._span_windows(rate, text_tokens, time_tokens, kwargs.get("max_new_tokens"))
            settings = {**kwargs, "generation_config": generation_config, "loop_guard": loop_guard}
            answer, reason = self._answer_spans(before, windows, after, prompt, span, answered, settings)
            rows.append(answer)
            reasons.append(reason)
        end = int(self._end_ids()[0])
        longest = max(len(row) for row in rows) + 1
        filled = torch.full((len(rows), longest), self.generation_config.pad_token_id or end, device=input_ids.device)
        for row, answer in enumerate(rows):
            filled[row, : len(answer)] = answer
            if reasons[row] == FINISHED:
                filled[row, len(answer)] = end
        sequences: Any = torch.cat([input_ids, filled], dim=1)
        if not wants_dict:
            return sequences
        outputs = GenerateDecoderOnlyOutput(sequences=sequences)
        outputs["finish_reasons"] = reasons
        return outputs

    def _prompt_parts(
        self, ids: torch.Tensor, audio: PromptAudio, tokenizer: Any
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """A prompt's ids before the audio, of each window (its time, if any, and its placeholders), and behind."""
        runs = self._runs(ids)
        if not runs:
            raise ValueError("long_form='stitch' takes prompts with exactly one audio each")
        first, last = runs[0][0], runs[-1][1]
        if len(runs) > 1:
            first -= self._time_tokens(ids, runs, audio, tokenizer)
            ends = [end for _, end in runs]
        else:
            ends = [last - sum(audio.window_tokens[i + 1 :]) for i in range(len(audio.window_tokens))]
        begins = [first, *ends[:-1]]
        return ids[:first], [ids[begin:end] for begin, end in zip(begins, ends, strict=True)], ids[last:]

    def _time_tokens(self, ids: torch.Tensor, runs: list[tuple[int, int]], audio: PromptAudio, tokenizer: Any) -> int:
        """Ids of the time in front of the first window, where all that stands between windows are their times."""
        if tokenizer is None:
            raise ValueError(
                "long_form='stitch' takes prompts with exactly one audio each; with the times of windows it also "
                "takes tokenizer=processor.tokenizer, to read them"
            )

        def text(begin: int, end: int) -> str:
            return tokenizer.decode(ids[begin:end], clean_up_tokenization_spaces=False).strip()

        start, begin = clock(0), runs[0][0]
        between = [text(end, next_begin) for (_, end), (next_begin, _) in zip(runs, runs[1:], strict=False)]
        # A token is at least a character, but for the mark of a beginning that some tokenizers write.
        lengths = range(1, min(len(start) + 1, begin) + 1)
        length = next((length for length in lengths if text(begin - length, begin) == start), None)
        one_audio = len(runs) == len(audio.window_tokens) and start not in between and all(map(is_clock, between))
        if length is None or not one_audio:
            raise ValueError(
                "long_form='stitch' takes prompts with exactly one audio each, with nothing but the times of windows "
                f"between its placeholders, from {start} on"
            )
        return length

    def _answer_spans(
        self,
        before: torch.Tensor,
        windows: list[torch.Tensor],
        after: torch.Tensor,
        audio: PromptAudio,
        span: int,
        answered: Callable[[int], None],
        settings: dict,
    ) -> tuple[torch.Tensor, str]:
        """The joined answers of one prompt's spans, and the worst of their finish reasons."""
        speech = audio.features.split(audio.window_tokens)
        separator = before.new_tensor(self.config.separator_token_ids or [])
        pieces, reasons = [], []
        for start in range(0, len(windows), span):
            prompt = torch.cat([before, *windows[start : start + span], after])[None]
            outputs = self.generate(
                prompt,
                audio_features=torch.cat(speech[start : start + span]),
                attention_mask=torch.ones_like(prompt),
                return_dict_in_generate=True,
                **settings,
            )
            answer = outputs.sequences[0, prompt.shape[1] :]
            ended = (answer[:, None] == self._end_ids().to(answer.device)).any(dim=1).nonzero()
            pieces += [answer[: int(ended[0])] if len(ended) else answer, separator]
            reasons += outputs.finish_reasons
            answered(min(span, len(windows) - start))
        worst = next((reason for reason in (CUT_BY_LOOP_GUARD, CUT_BY_LENGTH) if reason in reasons), FINISHED)
        return torch.cat(pieces[:-1]), worst

    def _span_windows(self, rate: int, text_tokens: int, time_tokens: int, max_new_tokens: int | None) -> int:
        """The most windows whose speech tokens, times and answer fit the context together with the prompt's text."""
        context = self._context()
        if context is None:
            return SPAN_WINDOWS_WITHOUT_LIMIT
        room = context - text_tokens - (EXTRA_TEXT_TOKENS if max_new_tokens is None else max_new_tokens)
        answer = math.ceil(TEXT_TOKENS_PER_SECOND * self.config.window_seconds) if max_new_tokens is None else 0
        windows = room // (rate + time_tokens + answer)
        if windows < 1:
            raise ValueError(
                f"not even one window fits the language model: {text_tokens + time_tokens} tokens of text, {rate} of "
                f"speech and {context - room + answer - text_tokens} new ones, but {context} are available"
            )
        return windows


__all__ = ["StitchedGenerationMixin"]
