"""Weights of published FastSLM checkpoints (arXiv 2601.06199) under this package's names, and back.

The names are those of the authors' reference code: `encoder.compressor1.query`, `encoder.stage1.conv1.weight`,
`encoder.out_attn.0.cross_attn.q.weight`, `encoder.llm_proj.weight`, `encoder.whisper.*`, `llm.*`. Every compressor
also holds its fixed sinusoids as buffers, `encoder.compressor1.q_pos_embeds` and `.kv_pos_embeds`; this package
computes them instead.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch

from ..errors import InputError
from ..modeling.modeling_hfq_former import sinusoids

# The two matrices A and B of a module.
LoraMatrices: TypeAlias = tuple[torch.Tensor, torch.Tensor]

_COMPRESSOR = {"query": "queries", "q_ln": "query_norm", "kv_ln": "key_norm", "out_proj": "out_proj"}
_QUERY_SINUSOIDS, _KEY_SINUSOIDS = "q_pos_embeds", "kv_pos_embeds"
# How much two formulas for the same sinusoid may differ in float32, at position 1,500.
_SINUSOID_TOLERANCE = 1e-3
_STAGE = {"conv1": "conv1", "conv2": "conv2", "ln_post": "norm"}
_ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out_proj": "out_proj"}
_WHISPER = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}
_LISTED = 12  # names in a message
_LORA_WRAPPER = "base_model.model."
_LORA_PART = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")


def convert_hfq_state_dict(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapter of a published checkpoint in `HFQFormer`'s names, ready for a strict load.

    Args:
        published (`Mapping[str, torch.Tensor]`):
            The adapter under its published names, with or without the leading `encoder.`, with or without the buffers
            of sinusoids. Other parts of a published checkpoint may be included and are left out (see
            `split_published`).

    Returns:
        `dict[str, torch.Tensor]`

    Raises:
        InputError: for names that no published adapter has and for missing ones, with a list of them; for sinusoids
            other than this package's.
    """
    named = split_published(published)["adapter"]
    stages = _count(named, r"stage(\d+)\.", first=1)
    blocks = _count(named, r"out_attn\.(\d+)\.", first=0)
    names = _adapter_names(scales=stages + 1, blocks=blocks)
    buffers = _sinusoid_names(scales=stages + 1)
    check_names([name for name in named if name not in buffers], names, "the published adapter")
    converted = {ours: named[theirs] for theirs, ours in names.items()}
    # A query matrix may carry a batch dimension of one.
    converted = {name: w.reshape(w.shape[-2:]) if name.endswith("queries") else w for name, w in converted.items()}
    _check_sinusoids({name: named[name] for name in buffers if name in named}, converted)
    return converted


def publish_hfq_state_dict(
    state_dict: Mapping[str, torch.Tensor], max_source_positions: int
) -> dict[str, torch.Tensor]:
    """The reverse of `convert_hfq_state_dict`, with the leading `encoder.` and the buffers of sinusoids in float32.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Of an `HFQFormer` with the published behaviour.
        max_source_positions (`int`): Encoder frames of a window.

    Raises:
        InputError: for weights that the published adapter does not have, for example a feed-forward network.
    """
    scales = _count(state_dict, r"compressors\.(\d+)\.", first=0)
    blocks = _count(state_dict, r"blocks\.(\d+)\.", first=0)
    names = {ours: theirs for theirs, ours in _adapter_names(scales, blocks).items()}
    check_names(state_dict, names, "the HFQ-Former")
    published = {f"encoder.{theirs}": state_dict[ours] for ours, theirs in names.items()}
    width = state_dict["fusion.queries"].shape[-1]
    for name, positions in _sinusoid_lengths(state_dict, max_source_positions).items():
        published[f"encoder.{name}"] = sinusoids(torch.arange(positions), width)
    return published


def published_positions(published: Mapping[str, torch.Tensor]) -> int | None:
    """Encoder frames of a window, from the buffers of a published checkpoint; `None` if it has none."""
    keys = split_published(published)["adapter"].get(f"compressor1.{_KEY_SINUSOIDS}")
    return None if keys is None else keys.shape[-2]


def split_published(published: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The parts of a published checkpoint by our names of them, each with the published names inside.

    Returns:
        `dict` with `adapter`, `multi_modal_projector`, `audio_tower` and `language_model`, empty where missing.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {
        "adapter": {}, "multi_modal_projector": {}, "audio_tower": {}, "language_model": {}
    }  # fmt: skip
    for name, weight in published.items():
        if name.startswith("llm."):
            parts["language_model"][name.removeprefix("llm.")] = weight
            continue
        inner = _without_encoder(name)
        if inner.startswith("whisper."):
            parts["audio_tower"][inner.removeprefix("whisper.")] = weight
        elif inner.startswith("llm_proj."):
            parts["multi_modal_projector"][inner.removeprefix("llm_proj.")] = weight
        else:
            parts["adapter"][inner] = weight
    return parts


def convert_whisper_encoder(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An encoder in openai's names (with or without the leading `encoder.`) in transformers' names.

    Raises:
        InputError: for names that openai's encoder does not have and for missing ones, with a list of them.
    """
    named = {_without_encoder(name): weight for name, weight in published.items()}
    names = _whisper_names(_count(named, r"blocks\.(\d+)\.", first=0))
    check_names(named, names, "the published encoder")
    return {ours: named[theirs] for theirs, ours in names.items()}


def publish_whisper_encoder(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reverse of `convert_whisper_encoder`, with the leading `encoder.whisper.`."""
    names = {ours: theirs for theirs, ours in _whisper_names(_count(state_dict, r"layers\.(\d+)\.", first=0)).items()}
    check_names(state_dict, names, "the speech encoder")
    return {f"encoder.whisper.{theirs}": state_dict[ours] for ours, theirs in names.items()}


def split_lora(
    published: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, LoraMatrices]]:
    """A language model in PEFT's names as plain weights and the LoRA matrices (A, B) of each module.

    Raises:
        InputError: if a module has only one of its two matrices.
    """
    plain: dict[str, torch.Tensor] = {}
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, weight in published.items():
        name = name.removeprefix(_LORA_WRAPPER)
        part = _LORA_PART.match(name)
        if part is None:
            plain[name.replace(".base_layer.", ".")] = weight
        else:
            sides.setdefault(part["module"], {})[part["side"]] = weight
    half = [module for module, matrices in sides.items() if len(matrices) != 2]
    if half:
        raise InputError(f"one of the two LoRA matrices is missing for {_listed(half)}")
    return plain, {module: (matrices["A"], matrices["B"]) for module, matrices in sides.items()}


def merge_lora(
    plain: Mapping[str, torch.Tensor], lora: Mapping[str, LoraMatrices], alpha: float
) -> dict[str, torch.Tensor]:
    """W + (alpha / r) B A for each module of `lora`, computed in float32; the other weights as they are.

    Raises:
        InputError: if a module of `lora` has no weight; it lists them.
    """
    missing = [module for module in lora if f"{module}.weight" not in plain]
    if missing:
        raise InputError(f"LoRA matrices without a matching weight in the language model: {_listed(missing)}")
    merged = dict(plain)
    for module, (down, up) in lora.items():
        weight = plain[f"{module}.weight"]
        update = (alpha / down.shape[0]) * (up.float() @ down.float())
        merged[f"{module}.weight"] = (weight.float() + update).to(weight.dtype)
    return merged


def peft_state_dict(lora: Mapping[str, LoraMatrices]) -> dict[str, torch.Tensor]:
    """LoRA matrices of the language model as a PEFT adapter of the whole FastSLM, ready to be saved."""
    adapter = {}
    for module, (down, up) in lora.items():
        ours = f"base_model.model.model.language_model.{module.removeprefix('model.')}"
        adapter[f"{ours}.lora_A.weight"], adapter[f"{ours}.lora_B.weight"] = down, up
    return adapter


def check_names(given: Iterable[str], expected: Iterable[str], what: str) -> None:
    """Check that two sets of weights have the same names.

    Raises:
        InputError: if they do not, with a list of the unknown and the missing ones.
    """
    unknown, missing = sorted(set(given) - set(expected)), sorted(set(expected) - set(given))
    if unknown or missing:
        raise InputError(f"{what}: unknown weights: {_listed(unknown)}; missing weights: {_listed(missing)}")


def _adapter_names(scales: int, blocks: int) -> dict[str, str]:
    """Published adapter names to ours."""
    names = {}
    compressors = [*(f"compressors.{scale}" for scale in range(scales)), "fusion"]
    for theirs, ours in zip(_compressor_names(scales), compressors, strict=True):
        for part, own in _COMPRESSOR.items():
            for suffix in [""] if part == "query" else [".weight", ".bias"]:
                names[f"{theirs}.{part}{suffix}"] = f"{ours}.{own}{suffix}"
    for stage in range(scales - 1):
        for part, own in _STAGE.items():
            for suffix in ("weight", "bias"):
                names[f"stage{stage + 1}.{part}.{suffix}"] = f"downsamplers.{stage}.{own}.{suffix}"
    for block in range(blocks):
        theirs, ours = f"out_attn.{block}", f"blocks.{block}"
        for attention, own in (("attn", "self_attention"), ("cross_attn", "cross_attention")):
            for part, projection in _ATTENTION.items():
                for suffix in ["weight"] if part == "k" else ["weight", "bias"]:
                    names[f"{theirs}.{attention}.{part}.{suffix}"] = f"{ours}.{own}.{projection}.{suffix}"
        for norm, own in (("norm1", "self_attention_norm"), ("norm2", "cross_attention_norm")):
            for suffix in ("weight", "bias"):
                names[f"{theirs}.{norm}.{suffix}"] = f"{ours}.{own}.{suffix}"
    return names


def _compressor_names(scales: int) -> list[str]:
    return [*(f"compressor{scale + 1}" for scale in range(scales)), "compressor"]


def _sinusoid_names(scales: int) -> list[str]:
    return [f"{name}.{kind}" for name in _compressor_names(scales) for kind in (_QUERY_SINUSOIDS, _KEY_SINUSOIDS)]


def _sinusoid_lengths(adapter: Mapping[str, torch.Tensor], positions: int) -> dict[str, int]:
    """Positions of each buffer of sinusoids of an adapter in `HFQFormer`'s names."""
    scales = _count(adapter, r"compressors\.(\d+)\.", first=0)
    queries = [len(adapter[f"compressors.{scale}.queries"]) for scale in range(scales)]
    # Each scale halves the frames of the one before it; the last compressor reads the queries of all.
    frames = [-(-positions // 2**scale) for scale in range(scales)]
    sizes = zip([*queries, len(adapter["fusion.queries"])], [*frames, sum(queries)], strict=True)
    return dict(zip(_sinusoid_names(scales), (length for size in sizes for length in size), strict=True))


def _check_sinusoids(buffers: Mapping[str, torch.Tensor], adapter: Mapping[str, torch.Tensor]) -> None:
    """Check that a checkpoint's buffers, if it has any, are the sinusoids that this package computes."""
    if not buffers:
        return
    lengths = _sinusoid_lengths(adapter, published_positions(buffers) or 0)
    width = adapter["fusion.queries"].shape[-1]
    check_names(buffers, lengths, "the published sinusoids")
    for name, length in lengths.items():
        given = buffers[name]
        if given.ndim == 3 and len(given) == 1:  # a batch dimension of one
            given = given[0]
        if given.shape != (length, width):
            raise InputError(f"{name} has shape {tuple(given.shape)}, but only {(length, width)} fits the adapter")
        tolerance = max(_SINUSOID_TOLERANCE, torch.finfo(given.dtype).eps)
        difference = float((given.float() - sinusoids(torch.arange(length), width)).abs().max())
        if not difference <= tolerance:
            raise InputError(
                f"{name} differs by up to {difference:.3g} from the sinusoids of the published model, which this "
                "package computes: the checkpoint cannot be converted"
            )


def _whisper_names(layers: int) -> dict[str, str]:
    """openai's encoder names to transformers'."""
    names = {"positional_embedding": "embed_positions.weight"}
    for theirs, ours in (("conv1", "conv1"), ("conv2", "conv2"), ("ln_post", "layer_norm")):
        names.update({f"{theirs}.{suffix}": f"{ours}.{suffix}" for suffix in ("weight", "bias")})
    for layer in range(layers):
        for theirs, ours in _WHISPER.items():
            for suffix in ["weight"] if theirs == "attn.key" else ["weight", "bias"]:
                names[f"blocks.{layer}.{theirs}.{suffix}"] = f"layers.{layer}.{ours}.{suffix}"
    return names


def _without_encoder(name: str) -> str:
    return name.removeprefix("encoder.")


def _count(names: Iterable[str], pattern: str, first: int) -> int:
    """How many numbered parts the names have, by the largest number."""
    numbers = [int(match[1]) for match in (re.match(pattern, name) for name in names) if match]
    return max(numbers) + 1 - first if numbers else 0


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more
