"""Greedy decoding of Whisper on a CPU: the tokens of `generate`, without most of its cost.

A token of whisper-base with two decoder layers costs 3 ms in the decoder. The output layer, whose 51,865 rows are read
for one argmax, costs two to three times as much, and the rest of `generate` as much as the decoder.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    WhisperForConditionalGeneration,
)
from transformers.generation import (
    EosTokenCriteria,
    GenerationMode,
    MaxLengthCriteria,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from .one_token_whisper import OneTokenDecoder
from .true_length_whisper import TrueLengthModel

# Arguments of `generate` that greedy decoding of short audio takes as they are.
_PLAIN_ARGUMENTS = frozenset(
    (
        "input_features", "attention_mask", "encoder_outputs", "generation_config", "language", "task",
        "is_multilingual", "max_length", "max_new_tokens", "context_frames", "true_length",
        "force_unique_generate_call",
    )
)  # fmt: skip
_LEVELS = 127
_MOST_CANDIDATES = 2048
# Of an output layer with fewer, all logits are computed in less time than the screening takes by itself.
_SCREENED_WEIGHTS = 1_000_000


def is_plain(config: GenerationConfig, arguments: dict[str, Any]) -> bool:
    """Whether `generate` with these arguments is greedy decoding that returns tokens and nothing else.

    Args:
        config (`GenerationConfig`): that of the call.
        arguments (`dict`): keyword arguments of `generate`; what is `None`, `False` or one beam changes nothing.
    """
    given = {name for name, value in arguments.items() if value is not None and value is not False}
    if arguments.get("num_beams") == 1:
        given.discard("num_beams")
    asks_more = ("return_dict_in_generate", "return_timestamps", "condition_on_prev_tokens", "cache_implementation")
    return (
        given <= _PLAIN_ARGUMENTS
        and config.get_generation_mode() == GenerationMode.GREEDY_SEARCH
        and config.num_return_sequences in (None, 1)
        and config.use_cache is not False
        and not any(getattr(config, name, None) for name in asks_more)
    )


class ScreenedProjection:
    r"""The best token of an output layer, found among few: int8 logits with an error bound leave out the others.

    With $\hat W$ the weight in 255 levels a row and $\hat h$ the hidden state in two such numbers, the true logit of a
    row is within $\lVert h \rVert \lVert w - \hat w \rVert + \lVert h - \hat h \rVert \lVert \hat w \rVert$ of
    $\hat w \hat h$, which is exact in integers. Rows whose upper bound is below another's lower bound cannot be best;
    of the rest (mostly 2, seldom 50) the true logits are computed. It reads a quarter of the bytes. Where the CPU has
    no exact product of int8 (without VNNI, sums of two saturate at 16 bits), the whole layer is computed.

    Args:
        weight (`torch.Tensor`): `(vocabulary, hidden)`, float32, on the CPU.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight.detach()
        self._scales = self.weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / _LEVELS
        levels = (self.weight / self._scales[:, None]).round_()
        self._levels: torch.Tensor | None = levels.to(torch.int8).T
        if not _is_exact(self._levels):
            self._levels = None
        near = levels.mul_(self._scales[:, None])
        self._norms = near.norm(dim=1)
        self._errors = near.sub_(self.weight).norm(dim=1)

    def best(self, hidden: torch.Tensor, suppressed: torch.Tensor) -> torch.Tensor:
        """The id with the highest logit, a scalar.

        Args:
            hidden (`torch.Tensor`): `(hidden,)`.
            suppressed (`torch.Tensor`): `(vocabulary,)`, added to the logits: minus infinity or 0.
        """
        if self._levels is None:
            return self._best_of_all(hidden, suppressed)
        rest, levels, steps = hidden, [], []
        for _ in range(2):
            steps.append(rest.abs().max().clamp(min=torch.finfo(torch.float32).tiny) / _LEVELS)
            levels.append((rest / steps[-1]).round())
            rest = rest - levels[-1] * steps[-1]
        coarse, fine = torch._int_mm(torch.stack(levels).to(torch.int8), self._levels)
        near = coarse * steps[0] + fine * steps[1]
        near.mul_(self._scales).add_(suppressed)
        # A thousandth more, for the rounding of the sums themselves.
        bound = (hidden.norm() * self._errors + rest.norm() * self._norms).mul_(1.001).add_(1e-3)
        candidates = (near + bound >= (near - bound).max()).nonzero().flatten()
        if not 0 < len(candidates) <= _MOST_CANDIDATES:  # also where the logits are not finite
            return self._best_of_all(hidden, suppressed)
        return candidates[(self.weight[candidates] @ hidden).argmax()]

    def _best_of_all(self, hidden: torch.Tensor, suppressed: torch.Tensor) -> torch.Tensor:
        return (self.weight @ hidden + suppressed).argmax()


def _is_exact(levels: torch.Tensor) -> bool:
    """Whether int8 products with these levels `(hidden, vocabulary)` are exact on this CPU, as `best` forms them.

    Sums that saturate do so for a state of the largest number throughout, wherever two levels have the same sign.
    """
    largest = torch.full((2, len(levels)), _LEVELS, dtype=torch.int8)
    return bool((torch._int_mm(largest, levels) == _LEVELS * levels.sum(dim=0)).all())


class GreedySearch:
    """The `custom_generate` of a model on a CPU; its output layer is quantised once, until it changes."""

    def __init__(self) -> None:
        self._projection: ScreenedProjection | None = None
        self._version: tuple[int, int] | None = None

    def __call__(
        self,
        model: WhisperForConditionalGeneration,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> torch.Tensor:
        """Token ids `(batch, tokens)` that begin with `input_ids`; rows that are finished are padded."""
        ids: Any = input_ids
        choose = self._choice(model, len(ids), logits_processor)
        is_done = _end(stopping_criteria, len(ids))
        pad = generation_config._pad_token_tensor
        unfinished = torch.ones(len(ids), dtype=torch.long)
        # Not the cache of `generate`, which would be that of the window before where there are several.
        decode = _Steps(model.model, model_kwargs["encoder_outputs"], empty_cache())
        new = ids
        while True:
            # Through the model, not its decoder: whoever times or hooks the model sees every step.
            new = model(decoding_step=lambda: choose(ids, decode(new)[:, -1])).logits  # noqa: B023
            if pad is not None and len(ids) > 1:
                new = new * unfinished[:, None] + pad * (1 - unfinished[:, None])
            ids = torch.cat([ids, new], dim=-1)
            unfinished = unfinished & ~is_done(ids)
            if not unfinished.any():
                return ids

    def _choice(
        self, model: WhisperForConditionalGeneration, rows: int, rules: LogitsProcessorList
    ) -> Callable[[Any, torch.Tensor], torch.Tensor]:
        """Chooses the next ids `(batch, 1)`, from the ids so far and the last states `(batch, hidden)`."""
        if not all(type(rule) in _SUPPRESSING for rule in rules):
            return lambda ids, states: rules(ids, model.proj_out(states)).argmax(dim=-1, keepdim=True)
        suppressed = _suppressed(rules, model.config.vocab_size)
        # For more rows the layer is read once as well. With AVX2, int8 products are not exact, or no faster.
        large = model.proj_out.weight.numel() >= _SCREENED_WEIGHTS
        if rows == 1 and large and torch.backends.cpu.get_cpu_capability() == "AVX512":
            screen = self._screen(model.proj_out)
            return lambda ids, states: screen.best(states[0], suppressed.get(ids.shape[1], suppressed[0]))[None, None]
        if not rules:
            return lambda ids, states: model.proj_out(states).argmax(dim=-1, keepdim=True)
        return lambda ids, states: (model.proj_out(states) + suppressed.get(ids.shape[1], suppressed[0])).argmax(
            dim=-1, keepdim=True
        )

    def _screen(self, layer: nn.Linear) -> ScreenedProjection:
        version = (layer.weight.data_ptr(), layer.weight._version)
        if self._projection is None or version != self._version:
            self._projection, self._version = ScreenedProjection(layer.weight), version
        return self._projection


def empty_cache() -> EncoderDecoderCache:
    """A cache of keys and values that grow with the text; `generate` copies the config several times to make one."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


class _Steps:
    """The decoder, called with the new ids of each step: its modules for the first, then the quick way if it fits."""

    def __init__(self, model: TrueLengthModel, encoded: BaseModelOutput, cache: EncoderDecoderCache) -> None:
        self._model, self._encoded, self._cache = model, encoded, cache
        self._one_token = OneTokenDecoder(model.decoder) if OneTokenDecoder.fits(model.decoder) else None
        self._mask = model.cross_attention(encoded).get("cross_attention_mask")

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """The last hidden states `(batch, ids, hidden)`."""
        if self._one_token is not None and ids.shape[1] == 1 and self._cache.get_seq_length() > 0:
            return self._one_token(ids, self._cache, self._mask)
        return self._model(
            encoder_outputs=self._encoded, decoder_input_ids=ids, past_key_values=self._cache, use_cache=True
        ).last_hidden_state


def _end(criteria: StoppingCriteriaList, rows: int) -> Callable[[Any], torch.Tensor]:
    """Says of the ids so far which rows are done, `(batch,)`; of one row, by the usual criteria, at less cost."""
    if rows > 1 or not all(type(one) in (MaxLengthCriteria, EosTokenCriteria) for one in criteria):
        return lambda ids: criteria(ids, None)  # type: ignore[return-value]
    most = min((one.max_length for one in criteria if isinstance(one, MaxLengthCriteria)), default=sys.maxsize)
    ends = {end for one in criteria if isinstance(one, EosTokenCriteria) for end in one.eos_token_id.tolist()}
    answers = torch.tensor([[False], [True]])
    return lambda ids: answers[int(ids.shape[1] >= most or ids[0, -1].item() in ends)]


_SUPPRESSING = (SuppressTokensLogitsProcessor, SuppressTokensAtBeginLogitsProcessor)


def _suppressed(rules: LogitsProcessorList, vocabulary: int) -> dict[int, torch.Tensor]:
    """What the rules add to the logits: at the length that the text begins at, and, under 0, everywhere else."""
    always = torch.zeros(vocabulary)
    at_begin: dict[int, list[torch.Tensor]] = {}
    for rule in rules:
        if isinstance(rule, SuppressTokensLogitsProcessor):
            always[rule.suppress_tokens] = -torch.inf
        elif isinstance(rule, SuppressTokensAtBeginLogitsProcessor):
            at_begin.setdefault(rule.begin_index, []).append(rule.begin_suppress_tokens)
    found = {0: always}
    for length, ids in at_begin.items():
        found[length] = always.clone()
        found[length][torch.cat(ids)] = -torch.inf
    return found


__all__ = ["GreedySearch", "ScreenedProjection", "empty_cache", "is_plain"]
