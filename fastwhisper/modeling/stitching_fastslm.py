"""Long transcripts in spans: each span is answered separately, and the answers are joined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation import GenerateDecoderOnlyOutput

from .answer_budget import EXTRA_TEXT_TOKENS, AudioTooLongError, answer_tokens, context_tokens
from .finish_reasons import CUT_BY_LENGTH, CUT_BY_LOOP_GUARD, FINISHED, before_end, end_token_ids
from .prompt_audio import PromptAudio, placeholder_runs
from .window_clock import clock, is_clock

SPAN_WINDOWS_WITHOUT_LIMIT = 20
NOT_IN_SPANS = ("streamer", "assistant_model", "num_return_sequences")


@dataclass
class CutPrompt:
    """The ids of one prompt: before its audio, of each window (its time, if any, and placeholders), and after it."""

    before: torch.Tensor
    windows: list[torch.Tensor]
    after: torch.Tensor
    audio: PromptAudio


def generate_stitched(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    audio: list[PromptAudio],
    span_windows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    return_dict_in_generate: bool | None = None,
    **settings,
) -> Any:
    """`generate(long_form="stitch")` of a FastSLM: one `generate` for each span of windows of each prompt.

    Args:
        model (`FastSLMForCausalLM`): The model that answers.
        input_ids (`torch.LongTensor`): `(batch, length)`, one audio in each row.
        attention_mask (`torch.LongTensor`, *optional*): `(batch, length)`.
        audio (`list[PromptAudio]`): The speech tokens of each row.
        span_windows (`int`, *optional*): Windows of a span; as many as the context allows by default.
        progress (`Callable`, *optional*): Called after each span with the windows answered so far, and all windows.
        return_dict_in_generate (`bool`, *optional*): Also return the `finish_reasons`.
        settings: Arguments of every span's `generate`. `tokenizer` is needed for prompts with the times of windows.

    Raises:
        ValueError: for prompts without exactly one audio, or arguments that make no sense in spans.
        AudioTooLongError: if not even one window fits the context.
    """
    for name in NOT_IN_SPANS:
        if settings.get(name) not in (None, 1):
            raise ValueError(f"long_form='stitch' does not take {name}")
    done, total = 0, sum(len(prompt.window_tokens) for prompt in audio)

    def answered(windows: int) -> None:
        nonlocal done
        done += windows
        if progress is not None:
            progress(done, total)

    rows, reasons = [], []
    for row, speech in enumerate(audio):
        ids = input_ids[row] if attention_mask is None else input_ids[row][attention_mask[row].bool()]
        prompt = _cut_prompt(ids, speech, model.config.audio_token_id, settings.get("tokenizer"))
        span = span_windows or _fitting_windows(prompt, model.config, settings.get("max_new_tokens"))
        answer, reason = _answer_spans(model, prompt, span, answered, settings)
        rows.append(answer)
        reasons.append(reason)
    sequences = torch.cat([input_ids, _filled(model, rows, reasons)], dim=1)
    if not return_dict_in_generate:
        return sequences
    outputs = GenerateDecoderOnlyOutput(sequences=sequences)  # type: ignore[arg-type]
    outputs["finish_reasons"] = reasons
    return outputs


def _cut_prompt(ids: torch.Tensor, audio: PromptAudio, audio_token_id: int, tokenizer: Any) -> CutPrompt:
    runs = placeholder_runs(ids, audio_token_id)
    if not runs:
        raise ValueError("long_form='stitch' takes prompts with exactly one audio each")
    first, last = runs[0][0], runs[-1][1]
    if len(runs) > 1:
        first -= _time_tokens(ids, runs, audio, tokenizer)
        ends = [end for _, end in runs]
    else:
        ends = [last - sum(audio.window_tokens[i + 1 :]) for i in range(len(audio.window_tokens))]
    begins = [first, *ends[:-1]]
    windows = [ids[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return CutPrompt(ids[:first], windows, ids[last:], audio)


def _time_tokens(ids: torch.Tensor, runs: list[tuple[int, int]], audio: PromptAudio, tokenizer: Any) -> int:
    """Ids of the time before the first window, if only window times stand between windows."""
    if tokenizer is None:
        raise ValueError(
            "long_form='stitch' takes prompts with exactly one audio each; with the times of windows it also "
            "needs tokenizer=processor.tokenizer, to read them"
        )

    def text(begin: int, end: int) -> str:
        return tokenizer.decode(ids[begin:end], clean_up_tokenization_spaces=False).strip()

    start, begin = clock(0), runs[0][0]
    between = [text(end, next_begin) for (_, end), (next_begin, _) in zip(runs, runs[1:], strict=False)]
    # A token is at least one character, except for the start mark that some tokenizers write.
    lengths = range(1, min(len(start) + 1, begin) + 1)
    length = next((length for length in lengths if text(begin - length, begin) == start), None)
    one_audio = len(runs) == len(audio.window_tokens) and start not in between and all(map(is_clock, between))
    if length is None or not one_audio:
        raise ValueError(
            "long_form='stitch' takes prompts with exactly one audio each, with nothing but the times of windows "
            f"between its placeholders, from {start} on"
        )
    return length


def _fitting_windows(prompt: CutPrompt, config: Any, max_new_tokens: int | None) -> int:
    """The most windows whose speech tokens, times and answer fit the context together with the prompt's text."""
    context = context_tokens(config)
    if context is None:
        return SPAN_WINDOWS_WITHOUT_LIMIT
    text, rate = len(prompt.before) + len(prompt.after), max(prompt.audio.window_tokens)
    time = max(len(ids) - count for ids, count in zip(prompt.windows, prompt.audio.window_tokens, strict=True))
    room = context - text - (EXTRA_TEXT_TOKENS if max_new_tokens is None else max_new_tokens)
    answer = answer_tokens(config.window_seconds) - EXTRA_TEXT_TOKENS if max_new_tokens is None else 0
    windows = room // (rate + time + answer)
    if windows < 1:
        raise AudioTooLongError(
            f"not even one window fits the language model: {text + time} tokens of text, {rate} of speech and "
            f"{context - room + answer - text} new ones, but only {context} are available"
        )
    return windows


def _answer_spans(
    model: Any, prompt: CutPrompt, span: int, answered: Callable[[int], None], settings: dict
) -> tuple[torch.Tensor, str]:
    """The joined answers of one prompt's spans, and the worst of their finish reasons."""
    counts, ends = prompt.audio.window_tokens, end_token_ids(model)
    speech = prompt.audio.features.split(counts)
    separator = prompt.before.new_tensor(model.config.separator_token_ids or [])
    pieces, reasons = [], []
    for start in range(0, len(prompt.windows), span):
        chosen = slice(start, start + span)
        ids = torch.cat([prompt.before, *prompt.windows[chosen], prompt.after])[None]
        outputs = model.generate(
            ids,
            audio_features=torch.cat(speech[chosen]),
            window_token_counts=counts[chosen],
            attention_mask=torch.ones_like(ids),
            return_dict_in_generate=True,
            **settings,
        )
        pieces += [before_end(outputs.sequences[0, ids.shape[1] :], ends), separator]
        reasons += outputs.finish_reasons
        answered(len(counts[chosen]))
    worst = next((reason for reason in (CUT_BY_LOOP_GUARD, CUT_BY_LENGTH) if reason in reasons), FINISHED)
    return torch.cat(pieces[:-1]), worst


def _filled(model: Any, rows: list[torch.Tensor], reasons: list[str]) -> torch.Tensor:
    """Answers as one tensor `(batch, tokens)`, with an end after those that ended by themselves."""
    ends, pad = end_token_ids(model), model.generation_config.pad_token_id
    longest = max(map(len, rows)) + 1
    filled = rows[0].new_full((len(rows), longest), int(ends[0]) if pad is None else pad)
    for row, (answer, reason) in enumerate(zip(rows, reasons, strict=True)):
        filled[row, : len(answer)] = answer
        if reason == FINISHED:
            filled[row, len(answer)] = ends[0]
    return filled


__all__ = ["generate_stitched"]
