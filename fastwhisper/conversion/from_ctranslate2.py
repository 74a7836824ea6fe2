"""A model of CTranslate2: its `model.bin` and the JSON files around it."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperConfig

from ..configuration.configuration_fastwhisper import FastWhisperConfig
from ..errors import InputError
from ..model_folders import loading, read_json
from ..transcription.ctranslate2_whisper import SETTINGS_FILE
from .checkpoint_parts import NO_IDS, CheckpointParts
from .openai_names import OUTPUT_LAYER

# The ids of types in the file. numpy has no bfloat16: its bits are read as whole numbers.
_TYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "<u2")
_BFLOAT16 = 5
_VERSIONS = (4, 5, 6)


def read_ctranslate2(folder: Path) -> CheckpointParts:
    """Read a Whisper of CTranslate2. Quantised weights become float32: what rounding took from them stays lost.

    Raises:
        InputError: for a file that is damaged or holds another model.
    """
    variables = read_variables(folder / "model.bin")
    try:
        weights = _weights(variables)
    except KeyError as error:
        raise InputError(f"{folder / 'model.bin'} has no variable {error.args[0]}: is it another model?") from error
    settings = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    generation = {
        "alignment_heads": settings.get("alignment_heads"),
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
    }
    known = {name: value for name, value in generation.items() if value is not None}
    if not (folder / SETTINGS_FILE).is_file():
        return CheckpointParts(_config(variables, weights), weights, known)
    with loading(folder, SETTINGS_FILE):
        config: WhisperConfig = FastWhisperConfig(**read_json(folder / SETTINGS_FILE))
    return CheckpointParts(config, weights, known)


def read_variables(path: Path) -> dict[str, torch.Tensor]:
    """All variables of a `model.bin`, of its versions 4 to 6; quantised ones in float32, aliases resolved.

    Raises:
        InputError: for a file that cannot be read, is damaged or holds no Whisper.
    """
    try:
        stored = _Reader(path).variables()
    except (struct.error, ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged, or no model of CTranslate2: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    scales = {name for name in stored if name.endswith("_scale") and name.removesuffix("_scale") in stored}
    found = {}
    for name, values in stored.items():
        if name not in scales:
            scale = stored.get(f"{name}_scale")
            found[name] = values if scale is None else _whole(values, scale)
    return found


class _Reader:
    """Reads a `model.bin` from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self._bytes: Any = np.memmap(path, np.uint8, "r")
        self._position = 0

    def variables(self) -> dict[str, torch.Tensor]:
        (version,) = self._take("I")
        if version not in _VERSIONS:
            raise ValueError(f"its version is {version}, and {_VERSIONS[0]} to {_VERSIONS[-1]} are known")
        kind = self._text()
        if kind != "WhisperSpec":
            raise ValueError(f"it holds a {kind:.40}, not a Whisper")
        _, count = self._take("II")
        stored = dict(self._variable() for _ in range(count))
        if self._position < len(self._bytes):
            (aliases,) = self._take("I")
            for _ in range(aliases):
                alias, name = self._text(), self._text()
                if name not in stored:
                    raise ValueError(f"there is no variable {name:.80}")
                stored[alias] = stored[name]
        return stored

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._bytes, self._position)
        self._position += struct.calcsize(f"<{form}")
        return values

    def _text(self) -> str:
        (length,) = self._take("H")
        (found,) = self._take(f"{length}s")
        return found.rstrip(b"\0").decode()

    def _variable(self) -> tuple[str, torch.Tensor]:
        name = self._text()
        (rank,) = self._take("B")
        shape = self._take(f"{rank}I")
        kind, size = self._take("BI")
        values = np.frombuffer(self._bytes, _TYPES[kind], size // np.dtype(_TYPES[kind]).itemsize, self._position)
        self._position += size
        tensor = torch.from_numpy(values.reshape(shape).copy())
        return name, tensor.view(torch.bfloat16) if kind == _BFLOAT16 else tensor


def _whole(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Weights from whole numbers and the factors, of all or of each row, that they were multiplied with."""
    return values.float() / scale.float().reshape(-1, *[1] * (values.dim() - 1))


def _weights(variables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The variables under Whisper's names in transformers, its fused projections taken apart."""
    found: dict[str, torch.Tensor] = {}

    def norm(target: str, source: str) -> None:
        found[f"{target}.weight"] = variables[f"{source}/gamma"]
        found[f"{target}.bias"] = variables[f"{source}/beta"]

    def linear(targets: list[str], source: str) -> None:
        weights = variables[f"{source}/weight"].chunk(len(targets))
        biases = variables[f"{source}/bias"].chunk(len(targets))
        for target, weight, bias in zip(targets, weights, biases, strict=True):
            found[f"{target}.weight"] = weight
            if not target.endswith("k_proj"):  # which has none in Whisper: zeros in the file
                found[f"{target}.bias"] = bias

    def attention(target: str, source: str, fused: list[list[str]]) -> None:
        for index, names in enumerate(fused):
            linear([f"{target}.{name}_proj" for name in names], f"{source}/linear_{index}")

    for side in ("encoder", "decoder"):
        norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        found[f"model.{side}.embed_positions.weight"] = variables[f"{side}/position_encodings/encodings"]
        for layer in range(_layers(variables, side)):
            here, there = f"model.{side}.layers.{layer}", f"{side}/layer_{layer}"
            norm(f"{here}.self_attn_layer_norm", f"{there}/self_attention/layer_norm")
            attention(f"{here}.self_attn", f"{there}/self_attention", [["q", "k", "v"], ["out"]])
            if side == "decoder":
                norm(f"{here}.encoder_attn_layer_norm", f"{there}/attention/layer_norm")
                attention(f"{here}.encoder_attn", f"{there}/attention", [["q"], ["k", "v"], ["out"]])
            norm(f"{here}.final_layer_norm", f"{there}/ffn/layer_norm")
            linear([f"{here}.fc1"], f"{there}/ffn/linear_0")
            linear([f"{here}.fc2"], f"{there}/ffn/linear_1")
    for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
        found[f"model.encoder.{name}"] = variables[f"encoder/{name.replace('.', '/')}"]
    found["model.decoder.embed_tokens.weight"] = variables["decoder/embeddings/weight"]
    # CTranslate2 stores equal variables once, such as biases of zeros: each weight gets its own memory again.
    found = {name: weight.clone() for name, weight in found.items()}
    found[OUTPUT_LAYER] = found["model.decoder.embed_tokens.weight"]
    return found


def _layers(variables: dict[str, torch.Tensor], side: str) -> int:
    return len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and "/ffn/" in name})


def _config(variables: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> WhisperConfig:
    vocabulary, width = weights[OUTPUT_LAYER].shape
    heads = {side: variables.get(f"{side}/num_heads", torch.tensor(width // 64)) for side in ("encoder", "decoder")}
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=weights["model.encoder.conv1.weight"].shape[1],
        d_model=width,
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
        encoder_attention_heads=int(heads["encoder"]),
        decoder_attention_heads=int(heads["decoder"]),
        encoder_ffn_dim=weights["model.encoder.layers.0.fc1.weight"].shape[0],
        decoder_ffn_dim=weights["model.decoder.layers.0.fc1.weight"].shape[0],
        max_source_positions=weights["model.encoder.embed_positions.weight"].shape[0],
        max_target_positions=weights["model.decoder.embed_positions.weight"].shape[0],
        **NO_IDS,
    )
