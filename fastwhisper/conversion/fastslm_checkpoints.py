"""Converts published FastSLM checkpoints, whole or adapter only, to models of this package, and back."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ..configuration.configuration_fastslm import MEL_FRAMES_PER_ENCODER_FRAME, MEL_FRAMES_PER_SECOND, HFQFormerConfig
from ..errors import InputError
from ..model_folders import check_model_folder, load_language_model, loading
from ..modeling.modeling_fastslm import FastSLMForCausalLM
from ..modeling.modeling_hfq_former import HFQFormer
from ..modeling.processing_fastslm import FastSLMProcessor
from ..modeling.speech_tokens import add_speech_tokens
from ..modeling.speech_windows import load_speech_encoder
from .published_fastslm import (
    LoraMatrices,
    check_names,
    convert_hfq_state_dict,
    convert_whisper_encoder,
    merge_lora,
    peft_state_dict,
    publish_hfq_state_dict,
    publish_whisper_encoder,
    published_positions,
    split_lora,
    split_published,
)

WIDTH_OF_A_HEAD = 64  # in every Whisper
PUBLISHED_POSITIONS = 1500
# What a checkpoint for the published code must have, since that code cannot do anything else.
PUBLISHED_ADAPTER = {"query_clock": "index", "mask_padding": False, "tokens_follow_length": False}
PUBLISHED_WINDOWS = {"encoder_true_length": False, "window_overlap": 0}


@dataclass(frozen=True)
class ConvertedFastSLM:
    """A converted checkpoint; `lora` holds the matrices that were not merged into the language model."""

    model: FastSLMForCausalLM
    processor: FastSLMProcessor
    lora: dict[str, LoraMatrices]


def read_checkpoint(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights of a `.safetensors` file, or of a `.pt` file that contains nothing but weights.

    Raises:
        InputError: for a path that is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file: give a checkpoint's .safetensors or .pt")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} is not a file of weights: {' '.join(str(error).split())[:200]}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(weight, torch.Tensor) for weight in loaded.values()):
        raise InputError(f"{path} does not map names to weights")
    return dict(loaded)


def write_checkpoint(weights: Mapping[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Write weights as `.safetensors`, or with `torch.save` under any other suffix; completely or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    # Tied weights are written twice, as published.
    own = {name: weight.detach().clone().contiguous() for name, weight in weights.items()}
    try:
        if path.suffix == ".safetensors":
            save_file(own, partial)
        else:
            torch.save(own, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_adapter_alone(published: Mapping[str, torch.Tensor]) -> bool:
    """Whether a checkpoint has no language model."""
    return not split_published(published)["language_model"]


def convert_adapter(
    published: Mapping[str, torch.Tensor], attention_heads: int | None = None
) -> tuple[HFQFormer, dict[str, torch.Tensor]]:
    """The adapter of a published checkpoint, and the weights of its projector, which may be empty.

    Args:
        published (`Mapping[str, torch.Tensor]`): Weights under their published names.
        attention_heads (`int`, *optional*): One for each 64 of the width by default.

    Raises:
        InputError: for unknown or missing weights, with a list of them, or for sinusoids other than ours.
    """
    adapter = convert_hfq_state_dict(published)
    positions = published_positions(published) or PUBLISHED_POSITIONS
    former = HFQFormer(adapter_config(adapter, positions, attention_heads))
    _load(former, adapter, "the published adapter")
    return former, split_published(published)["multi_modal_projector"]


def save_adapter(adapter: HFQFormer, projector: Mapping[str, torch.Tensor], folder: str | os.PathLike) -> None:
    """Write an adapter, and the weights of its projector if it has one, into a folder."""
    adapter.save_pretrained(folder)
    if projector:
        save_file(dict(projector), Path(folder) / "multi_modal_projector.safetensors")


def convert_checkpoint(
    published: Mapping[str, torch.Tensor],
    language_model: str | os.PathLike,
    encoder: str | os.PathLike | None = None,
    lora: str = "merge",
    lora_alpha: float = 64.0,
    attention_heads: int | None = None,
    trust_remote_code: bool = False,
) -> ConvertedFastSLM:
    """A published checkpoint as a model of this package that computes the same.

    Args:
        published (`Mapping[str, torch.Tensor]`): Weights under their published names.
        language_model (`str` or `os.PathLike`):
            Name or folder of the base language model: its configuration, its tokenizer, and the weights that the
            checkpoint lacks.
        encoder (`str` or `os.PathLike`, *optional*): Name or folder of the Whisper, for a checkpoint without encoder.
        lora (`str`, *optional*, defaults to `"merge"`):
            `merge` the checkpoint's LoRA into the language model, or `keep` it apart.
        lora_alpha (`float`, *optional*, defaults to 64.0): Alpha of the checkpoint's LoRA.
        attention_heads (`int`, *optional*): Of encoder and adapter; one for each 64 of their width by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code of its own that the language model names.

    Raises:
        InputError: for unknown, missing and ill-fitting weights, with a list of them, for sinusoids other than ours,
            and for parts that cannot be loaded.
    """
    if lora not in ("merge", "keep"):
        raise InputError(f"lora={lora!r} is unknown; choose merge or keep")
    parts = split_published(published)
    adapter = convert_hfq_state_dict(published)
    speech_encoder = _speech_encoder(parts["audio_tower"], encoder, attention_heads)
    positions = speech_encoder.config.max_source_positions
    if published_positions(published) not in (None, positions):
        raise InputError(f"the adapter reads {published_positions(published)} frames, the encoder gives {positions}")
    heads = attention_heads or speech_encoder.config.encoder_attention_heads
    configuration = adapter_config(adapter, positions, heads)
    plain, matrices = split_lora(parts["language_model"])
    base, tokenizer = load_language_model(language_model, trust_remote_code=trust_remote_code)
    _load_language_model(base, plain, matrices if lora == "merge" else {}, lora_alpha)

    add_speech_tokens(tokenizer)
    try:
        model = FastSLMForCausalLM.from_parts(
            speech_encoder, base, configuration, tokenizer=tokenizer, encoder_true_length=False
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    _load(model.model.adapter, adapter, "the published adapter")
    _load(model.model.multi_modal_projector, parts["multi_modal_projector"], "the published projector")
    extractor = WhisperFeatureExtractor(
        feature_size=speech_encoder.config.num_mel_bins,
        chunk_length=positions * MEL_FRAMES_PER_ENCODER_FRAME // MEL_FRAMES_PER_SECOND,
    )
    processor = FastSLMProcessor.from_parts(extractor, tokenizer, model.config)
    return ConvertedFastSLM(model, processor, {} if lora == "merge" else matrices)


def save_lora(lora: Mapping[str, LoraMatrices], alpha: float, folder: str | os.PathLike) -> None:
    """Write LoRA matrices of the language model as a PEFT adapter of the whole FastSLM, into a new folder."""
    from peft import LoraConfig

    settings: dict[str, Any] = {"lora_alpha": alpha}
    modules = "|".join(sorted({name.split(".")[-1] for name in lora}))
    config = LoraConfig(
        **settings,
        r=max(down.shape[0] for down, _ in lora.values()),
        lora_dropout=0.01,
        target_modules=rf".*language_model\..*\.({modules})",
    )
    Path(folder).mkdir()
    save_file(peft_state_dict(lora), Path(folder) / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


def publish(model: FastSLMForCausalLM) -> dict[str, torch.Tensor]:
    """All weights of a FastSLM under their published names.

    Raises:
        InputError: for options and weights that the published code does not support.
    """
    for config, published in ((model.config.qformer_config, PUBLISHED_ADAPTER), (model.config, PUBLISHED_WINDOWS)):
        for name, value in published.items():
            if getattr(config, name) != value:
                raise InputError(
                    f"the model has {name}={getattr(config, name)!r}: the published code only knows {value!r} and "
                    "would compute something else with its weights"
                )
    body = model.model
    weights = publish_hfq_state_dict(body.adapter.state_dict(), model.config.qformer_config.max_source_positions)
    weights.update(publish_whisper_encoder(body.audio_tower.state_dict()))
    for name, weight in body.multi_modal_projector.state_dict().items():
        weights[f"encoder.llm_proj.{name}"] = weight
    for name, weight in body.language_model.state_dict().items():
        weights[f"llm.base_model.model.model.{name}"] = weight
    weights["llm.base_model.model.lm_head.weight"] = model.lm_head.weight
    return weights


def adapter_config(
    adapter: Mapping[str, torch.Tensor], positions: int, attention_heads: int | None = None
) -> HFQFormerConfig:
    """The configuration that converted adapter weights were made with."""
    stages = [len(adapter[name]) for name in sorted(adapter) if name.startswith("compressors.") and "queries" in name]
    queries, width = adapter["fusion.queries"].shape
    blocks = {name.split(".")[1] for name in adapter if name.startswith("blocks.")}
    try:
        return HFQFormerConfig(
            hidden_size=width,
            num_attention_heads=attention_heads or max(1, width // WIDTH_OF_A_HEAD),
            max_source_positions=positions,
            stage_queries=stages,
            num_queries=queries,
            num_blocks=len(blocks),
        )
    except ValueError as error:
        raise InputError(f"the adapter: {error}") from error


def encoder_config(encoder: Mapping[str, torch.Tensor], attention_heads: int | None = None) -> WhisperConfig:
    """The configuration that a converted encoder's weights were made with."""
    width, mel_bins = encoder["conv1.weight"].shape[:2]
    layers = {name.split(".")[1] for name in encoder if name.startswith("layers.")}
    return WhisperConfig(
        d_model=width,
        encoder_layers=len(layers),
        encoder_attention_heads=attention_heads or max(1, width // WIDTH_OF_A_HEAD),
        encoder_ffn_dim=encoder["layers.0.fc1.weight"].shape[0],
        num_mel_bins=mel_bins,
        max_source_positions=encoder["embed_positions.weight"].shape[0],
    )


def _speech_encoder(
    weights: Mapping[str, torch.Tensor], name: str | os.PathLike | None, attention_heads: int | None
) -> PreTrainedModel:
    if weights:
        converted = convert_whisper_encoder(weights)
        encoder = WhisperEncoder(encoder_config(converted, attention_heads))
        _load(encoder, converted, "the published encoder")
        return encoder
    if name is None:
        raise InputError("the checkpoint has no encoder: --encoder names its Whisper")
    check_model_folder(name)
    with loading(name, "the encoder"):
        return load_speech_encoder(name)


def _load_language_model(
    model: PreTrainedModel,
    plain: Mapping[str, torch.Tensor],
    lora: Mapping[str, LoraMatrices],
    alpha: float,
) -> None:
    """Load the weights of a checkpoint, and those that its LoRA changes, into its base language model."""
    rows = plain.get("model.embed_tokens.weight")
    if rows is not None and len(rows) != model.config.vocab_size:
        model.resize_token_embeddings(len(rows))
    weights = merge_lora({**model.state_dict(), **plain}, lora, alpha)
    # Only these: of two tied weights, the one that the checkpoint lacks would overwrite the other.
    changed = {*plain, *(f"{module}.weight" for module in lora)}
    _load(model, {name: weights[name] for name in changed}, "the published language model", partly=True)


def _load(module: nn.Module, weights: Mapping[str, torch.Tensor], what: str, partly: bool = False) -> None:
    own = module.state_dict()
    check_names([*weights, *(own if partly else ())], own, what)
    wrong = [
        f"{name} {tuple(weight.shape)} instead of {tuple(own[name].shape)}"
        for name, weight in weights.items()
        if weight.shape != own[name].shape
    ]
    if wrong:
        raise InputError(f"{what}: weights of the wrong size: {', '.join(sorted(wrong))}")
    module.load_state_dict(dict(weights), strict=not partly)
