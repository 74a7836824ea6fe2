"""Greedy decoding of Whisper on a CPU: the tokens of `generate`, without most of its cost.

A token of whisper-base with two decoder layers costs 3 ms in the decoder. The output layer, whose 51,865 rows are read
for one argmax, costs two to three times as much, and the rest of `generate` as much as the decoder.
"""

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList, WhisperForConditionalGeneration
from transformers.generation import (
    GenerationMode,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

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
        # For more rows the layer is read once as well. With AVX2, int8 products are not exact, or no faster.
        screened = len(ids) == 1 and torch.backends.cpu.get_cpu_capability() == "AVX512"
        screened = screened and all(type(rule) in _SUPPRESSING for rule in logits_processor)
        suppressed = _suppressed(logits_processor, model.config.vocab_size) if screened else None

        def choose(states: torch.Tensor) -> torch.Tensor:
            hidden = states[:, -1]
            if suppressed is not None:
                begin = suppressed.get(ids.shape[1], suppressed[0])
                return self._screen(model.proj_out).best(hidden[0], begin)[None, None]
            logits = model.proj_out(hidden).to(torch.float32)
            return logits_processor(ids, logits).argmax(dim=-1, keepdim=True)  # type: ignore[arg-type]

        pad = generation_config._pad_token_tensor
        unfinished = torch.ones(len(ids), dtype=torch.long)
        cache, encoded, new = model_kwargs["past_key_values"], model_kwargs["encoder_outputs"], ids
        while True:
            # Through the model, not its decoder: whoever times or hooks the model sees every step.
            new = model(
                encoder_outputs=encoded,
                decoder_input_ids=new,
                past_key_values=cache,
                use_cache=True,
                output_layer=choose,
            ).logits
            if pad is not None:
                new = new * unfinished[:, None] + pad * (1 - unfinished[:, None])
            ids = torch.cat([ids, new], dim=-1)
            unfinished = unfinished & ~stopping_criteria(ids, None)
            if not unfinished.any():
                return ids

    def _screen(self, layer: nn.Linear) -> ScreenedProjection:
        version = (layer.weight.data_ptr(), layer.weight._version)
        if self._projection is None or version != self._version:
            self._projection, self._version = ScreenedProjection(layer.weight), version
        return self._projection


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


__all__ = ["GreedySearch", "ScreenedProjection", "is_plain"]
