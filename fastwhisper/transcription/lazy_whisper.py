"""A Whisper that is known by its fingerprint and its output layer, and loaded only if it has to run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.utils import cached_file

from ..data.row_store import content_key
from ..data.stored_states import weights_key
from ..model_folders import check_model_folder, loading, weight_files
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from .checkpoints import DTYPES, load_checkpoint, whisper_config

# What the output depends on beside the weights and their shapes.
_SETTINGS = ("encoder_attention_heads", "decoder_attention_heads", "activation_function", "scale_embedding")
_OUTPUT_LAYERS = ("proj_out.weight", "model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_BLOCK = 2**22


class LazyWhisper:
    r"""A Whisper that runs in evaluation mode, without gradient, on the device of its first call.

    Args:
        config (`WhisperConfig`): its config.
        fingerprint (`str`): stands for all that its output depends on, its precision included.
        output_layer (`torch.Tensor`): `(vocabulary, hidden)`.
        load (`Callable`): loads it.
    """

    def __init__(
        self,
        config: WhisperConfig,
        fingerprint: str,
        output_layer: torch.Tensor,
        load: Callable[[], WhisperForConditionalGeneration],
    ) -> None:
        self.config = config
        self.fingerprint = fingerprint
        self.output_layer = output_layer
        self._load = load
        self.model: WhisperForConditionalGeneration | None = None

    @classmethod
    def of_model(cls, model: WhisperForConditionalGeneration) -> "LazyWhisper":
        """A model that is in memory already, and stays there."""
        fingerprint = content_key("model", weights_key(model.state_dict()), _settings(model.config))
        return cls(model.config, fingerprint, _projection(model), lambda: model)

    @classmethod
    def of_checkpoint(
        cls, name: str | os.PathLike, dtype: str = "float32", trust_remote_code: bool = False
    ) -> "LazyWhisper":
        """A checkpoint, as [`load_checkpoint`] takes it; its files are read once for their fingerprint.

        Raises:
            InputError: as [`load_checkpoint`].
        """
        name = os.fspath(name)
        config = whisper_config(name, check_model_folder(name, trust_remote_code))

        def load() -> WhisperForConditionalGeneration:
            return load_checkpoint(name, "cpu", dtype, trust_remote_code)[0]

        folder = _folder_of(name)
        if not weight_files(folder):
            load()  # from the Hub into its cache
        if not weight_files(folder):
            return cls.of_model(load())  # weights of another format
        fingerprint = content_key("files", _files_key(folder), _settings(config), dtype)
        return cls(config, fingerprint, _saved_projection(folder).to(DTYPES[dtype]), load)

    @torch.no_grad()
    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Encoder states `(batch, positions, hidden)` of features `(batch, mel, frames)`, which fill the window.

        They do not depend on an autocast around the call.
        """
        model = self._on(features.device)
        # A teacher hears the whole window, whatever it was trained for itself.
        whole: dict[str, Any] = (
            {"true_length": False} if isinstance(model, FastWhisperForConditionalGeneration) else {}
        )
        with torch.autocast(features.device.type, enabled=False):
            return model.model.encoder(features.to(model.dtype), **whole).last_hidden_state

    @torch.no_grad()
    def last_states(
        self, encoded: torch.Tensor, decoder_input_ids: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Decoder states after the last layer norm, `(tokens, hidden)`, where `targets` `(batch, tokens)` is true.

        They do not depend on an autocast around the call. `encoded` is what `encode` gives of the rows.
        """
        model = self._on(encoded.device)
        with torch.autocast(encoded.device.type, enabled=False):
            output: Any = model.model(encoder_outputs=(encoded,), decoder_input_ids=decoder_input_ids, use_cache=False)
        return output.last_hidden_state[targets]

    def let_go(self) -> None:
        """Free the model, except for its output layer; it is loaded again if it is needed again."""
        self.model = None

    def _on(self, device: torch.device) -> WhisperForConditionalGeneration:
        if self.model is None:
            self.model = self._load().eval().requires_grad_(False)
        return self.model.to(device)  # type: ignore[arg-type]


def outline(name: str | os.PathLike) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """A Whisper without its weights, which takes no memory, and its processor.

    Raises:
        InputError: if there is no such Whisper.
    """
    name = os.fspath(name)
    config = whisper_config(name, check_model_folder(name))
    with loading(name, "the processor"):
        processor = WhisperProcessor.from_pretrained(name, trust_remote_code=False)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    return model, processor


def _settings(config: WhisperConfig) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in _SETTINGS)


def _projection(model: PreTrainedModel) -> torch.Tensor:
    return model.get_output_embeddings().weight.detach()


def _folder_of(name: str) -> Path:
    """The folder of a checkpoint; for one on the Hub that of its files in the cache."""
    if Path(name).is_dir():
        return Path(name)
    with loading(name, "config.json"):
        return Path(str(cached_file(name, "config.json"))).parent


def _files_key(folder: Path) -> str:
    digests = []
    for path in weight_files(folder):
        blocks = []
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                blocks.append(content_key(block))
        digests.append(content_key(*blocks))
    return content_key(*digests)


def _saved_projection(folder: Path) -> torch.Tensor:
    """The weight of the output layer, which is not saved beside an embedding that it shares."""
    for wanted in _OUTPUT_LAYERS:
        for path in weight_files(folder):
            with safe_open(path, framework="pt") as file:
                if wanted in file.keys():  # noqa: SIM118
                    return file.get_tensor(wanted)
    raise RuntimeError(f"{folder} has no output layer")  # load_checkpoint refuses such a folder
