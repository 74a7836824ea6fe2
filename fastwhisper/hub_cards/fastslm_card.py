"""The card of a FastSLM: its parts, what they cost, and how much audio fits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from ..model_folders import weight_files
from .card_metadata import all_tags, shared_metadata
from .card_tables import count, error_limit, hub_link, quantity, recorded, value_words
from .folder_records import hub_name

if TYPE_CHECKING:
    from ..configuration.configuration_fastslm import FastSLMConfig
    from .fastslm_costs import FastSLMCosts

# The Hub's task of models that take audio and text and write text, such as Qwen2-Audio; its "any-to-any", the name of
# the transformers pipeline, is for models that also write images or sound.
TASK = "audio-text-to-text"
PART_WORDS = {
    "audio_tower": "speech encoder",
    "adapter": "HFQ-Former",
    "multi_modal_projector": "projector",
    "language_model": "language model",
}
ADAPTER_OPTIONS = (
    "stage_queries",
    "num_queries",
    "num_blocks",
    "query_clock",
    "mask_padding",
    "tokens_follow_length",
    "rates",
    "intermediate_size",
    "dropout",
)
MODEL_OPTIONS = ("tokens_per_window", "window_overlap", "encoder_true_length", "encoder_true_length_margin")
DEVICE_GIGABYTES = (24, 80)


def fastslm_metadata(name: str, config: dict[str, Any], run: dict, evaluation: dict) -> ModelCardData:
    """The metadata of a FastSLM's card."""
    parts = [part for part in map(hub_name, (config.get("speech_encoder"), config.get("language_model"))) if part]
    return ModelCardData(
        **shared_metadata(name, run, evaluation),
        pipeline_tag=TASK,
        base_model=parts or None,
        # The Hub's word for one model made of several, as on the cards of other encoders joined with an LLM.
        base_model_relation="merge" if parts else None,
        tags=all_tags(["fastslm", "fastwhisper", "speech"], run),
    )


def fastslm_values(folder: Path, name: str, config: dict[str, Any], run: dict, evaluation: dict) -> dict[str, Any]:
    """The variables of the FastSLM template."""
    import torch

    from ..configuration.configuration_fastslm import FastSLMConfig
    from .fastslm_costs import count_costs

    settings = FastSLMConfig.from_dict(config)
    costs = count_costs(settings, getattr(torch, config.get("dtype") or "float32"))
    window = settings.window_seconds
    return {
        "name": name,
        "encoder": f"the encoder of {hub_link(settings.speech_encoder)}"
        if settings.speech_encoder
        else "the encoder of a Whisper",
        "language_model": hub_link(settings.language_model)
        if settings.language_model
        else f"a causal language model ({settings.text_config.model_type})",
        "window": f"{window:g}",
        "overlap": f"{settings.window_overlap:g}" if settings.window_overlap else None,
        "tokens_per_window": costs.tokens_per_window,
        "tokens_per_second": f"{costs.tokens_per_second:.2f}",
        "rates": rates(settings),
        "parts": part_rows(costs),
        "longest": longest_audio(folder, config.get("dtype"), costs),
        "options": other_options(settings),
        "trained": bool(run.get("training")),
        "limits": [*run.get("limits", []), *_limits(run, evaluation)],
        "license": f"{run['license']}." if run.get("license") else None,
        **recorded(folder, run, evaluation),
    }


def rates(config: "FastSLMConfig") -> list[int]:
    """The tokens per window to choose from; empty if there is no choice."""
    adapter = config.qformer_config
    choices = sorted({*(adapter.rates or ()), adapter.num_queries})
    return choices if len(choices) > 1 else []


def part_rows(costs: "FastSLMCosts") -> list[list[str]]:
    """Part, parameters, FLOPs for a minute of audio and their share; totals last."""
    total = sum(costs.flops_per_minute.values())
    rows = [
        [
            words,
            count(costs.parameters[part]),
            quantity(costs.flops_per_minute[part], "FLOP"),
            f"{100 * costs.flops_per_minute[part] / total:.1f} %",
        ]
        for part, words in PART_WORDS.items()
    ]
    return [*rows, ["total", count(sum(costs.parameters.values())), quantity(total, "FLOP"), "100 %"]]


def longest_audio(folder: Path, dtype: str | None, costs: "FastSLMCosts") -> list[list[str]]:
    """What limits the length of a recording, and the length: the context, then the memory of devices."""
    rows = []
    if costs.context_tokens is not None and costs.context_seconds is not None:
        limit = f"context of the language model, {costs.context_tokens:,} tokens"
        rows.append([limit, duration(max(0.0, costs.context_seconds))])
    weights = sum(path.stat().st_size for path in weight_files(folder))
    if not weights or dtype is None:
        return rows
    cache = quantity(costs.cache_bytes_per_second, "B")
    for size in DEVICE_GIGABYTES:
        free = size * 10**9 - weights
        seconds = costs.seconds_in_memory(free)
        if free <= 0:
            rows.append([f"{size} GB of memory", f"none: the weights alone take {quantity(weights, 'B')}"])
        elif seconds is not None:
            limit = f"{size} GB of memory, {quantity(weights, 'B')} of weights, {cache} of {dtype} cache per second"
            rows.append([limit, duration(seconds)])
    return rows


def other_options(config: "FastSLMConfig") -> list[list[str]]:
    """The options that differ from the published model: name, value here, published value."""
    from ..configuration.configuration_fastslm import FastSLMConfig, HFQFormerConfig

    pairs = [
        (config.qformer_config, HFQFormerConfig(), ADAPTER_OPTIONS),
        (config, FastSLMConfig(), MODEL_OPTIONS),
    ]
    rows = [
        [f"`{name}`", _option_words(getattr(ours, name)), _option_words(getattr(published, name))]
        for ours, published, names in pairs
        for name in names
    ]
    return [row for row in rows if row[1] != row[2]]


def duration(seconds: float) -> str:
    """A readable length of audio: `45 s`, `12 min`, `6.8 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _option_words(value: Any) -> str:
    return "not used" if value is None else value_words(value)


def _limits(run: dict[str, Any], evaluation: dict[str, Any]) -> list[str]:
    untrained = (
        "No training is recorded in this folder. Unless its HFQ-Former comes from a trained checkpoint, it is "
        "untrained, and what the model says has nothing to do with the audio."
    )
    return [
        *([] if run.get("training") else [untrained]),
        error_limit(evaluation),
        "Like any language model, it can make things up, especially on silence, music and noise.",
        "It inherits the languages, blind spots and biases of its speech encoder and its language model.",
    ]
