"""Loads parts of a saved model without running its code, and reports what is wrong with a folder in one line."""

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_MODEL_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_OWN_CODE = re.compile(r"(configuration|modeling|processing)_(fastwhisper|fastslm)\.\w+")
# What transformers reads. A vocabulary of many megabytes is read a second time only where it could not be loaded.
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors.index.json",
    "adapter_config.json",
)
_LARGE_FILES = ("tokenizer.json", "vocab.json", "normalizer.json")
_LAYER_COUNTS = ("encoder_layers", "decoder_layers", "num_hidden_layers", "num_blocks")
# Far beyond every Whisper, and small enough to be built.
_EXTRACTOR_LIMITS = {"feature_size": 1024, "n_fft": 2**14, "hop_length": 2**14, "chunk_length": 3600}
_NAMED_ERRORS = 300


def check_model_folder(name: str | os.PathLike) -> None:
    """Check the files of a folder that a model is loaded from, and say which code of its own is not run.

    A name on the Hub is not looked at, and neither are files that no model is loaded from.

    Raises:
        InputError: for a folder that is not there or holds no model, a file that is cut, damaged or no JSON object,
            weights that are not there, and numbers that no model can be built with; names the file.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not _HUB_NAME.fullmatch(os.fspath(name)):
            raise InputError(
                f"{name} is not a checkpoint: there is no such folder, and it cannot be a name on the Hub"
            )
        return
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is not a checkpoint: it has no config.json")
    contents = {file: read_json(folder / file) for file in _SMALL_FILES if (folder / file).is_file()}
    shapes = weight_shapes(folder)
    for file in sorted(set(_mapping(contents, "model.safetensors.index.json", "weight_map").values())):
        if not isinstance(file, str) or not (folder / file).is_file():
            raise InputError(f"{folder / 'model.safetensors.index.json'} names {file}, which is not there")
    if shapes:
        _check_layer_counts(contents.get("config.json", {}), len(shapes), folder / "config.json")
    for file in ("preprocessor_config.json", "processor_config.json"):
        settings = contents.get(file, {})
        _check_extractor(settings.get("feature_extractor", settings), folder / file)
    foreign = sorted(
        code
        for file in contents
        for named in _mapping(contents, file, "auto_map").values()
        for code in (named if isinstance(named, list) else [named])
        if isinstance(code, str) and not _OWN_CODE.fullmatch(code)
    )
    if foreign:
        logger.warning("%s names its own code (%s), which is not run", folder, ", ".join(dict.fromkeys(foreign)))


@contextmanager
def loading(name: str | os.PathLike, what: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads a part of a model into an error that names the model and the part.

    Nothing but the call that loads belongs into it. That call says `trust_remote_code=False`: without it transformers
    asks whoever sits before standard input.

    Args:
        name (`str` or `os.PathLike`): Name on the Hub or folder.
        what (`str`): The part, such as `the tokenizer`.

    Raises:
        InputError: if the part cannot be loaded.
    """
    try:
        yield
    except InputError:
        raise
    # tokenizers raises Exception itself, a config StrictDataclassError, and a value of another type anything at all.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        for file in _LARGE_FILES:
            if Path(name, file).is_file():
                read_json(Path(name, file))
        said = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in said:
            said = "it needs its own code, which is not run"
        elif isinstance(error, KeyError | TypeError | AttributeError | IndexError):
            said = f"{type(error).__name__}: {said}"
        raise InputError(f"{name} cannot be loaded: {what}: {said[:_NAMED_ERRORS]}") from error


def load_weights(load: Callable[..., Any], name: str | os.PathLike, **options: Any) -> Any:
    """Load a model whose weights are those that its config asks for: transformers draws what is missing at random.

    Args:
        load (`Callable`): `from_pretrained` of a class.
        name (`str` or `os.PathLike`): Name on the Hub or folder.
        options: Of `from_pretrained`.

    Raises:
        InputError: if they cannot be loaded, for missing weights, weights of another size, and weights of layers
            that the config does not have.
    """
    with loading(name, "the weights"):
        model, info = load(
            name,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **options,
        )
    layers = [key for key in info["unexpected_keys"] if re.search(r"\.layers\.\d+\.", key)]
    for said, keys in (
        ("lack", sorted(info["missing_keys"])),
        ("have another size at", sorted(key for key, *_ in info["mismatched_keys"])),
        ("have layers that config.json does not count,", sorted(layers)),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(f"{name}: the weights {said} {keys[0]}{more}: they are not those of its config.json")
    return model


def load_language_model(
    name: str | os.PathLike, dtype: str = "auto"
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model and its tokenizer.

    Raises:
        InputError: if there are no such two, or they do not belong together.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_model_folder(name)
    with loading(name, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    model = load_weights(AutoModelForCausalLM.from_pretrained, name, dtype=dtype)
    with loading(name, "the tokenizer"):
        ids = tokenizer("speech", add_special_tokens=False).input_ids
    if not ids:
        raise InputError(f"the tokenizer of {name} gives no tokens for a word: is tokenizer.json missing?")
    return model, tokenizer


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model, in one file or in several, or else of an adapter; not those of a self-teacher."""
    models = sorted(path for path in folder.glob("*.safetensors") if _MODEL_WEIGHTS.fullmatch(path.name))
    return models or sorted(folder.glob("adapter_model.safetensors"))


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the folder's weights, from the headers alone; empty where there are no safetensors.

    Raises:
        InputError: for a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "np") as weights:
                shapes.update((key, tuple(weights.get_slice(key).get_shape())) for key in weights.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return shapes


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: for a file that cannot be read or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain a JSON object")
    return content


def _mapping(contents: dict[str, Any], file: str, key: str) -> dict[str, Any]:
    value = contents.get(file, {}).get(key) or {}
    return value if isinstance(value, dict) else {}


def _check_layer_counts(config: dict[str, Any], weights: int, path: Path) -> None:
    """Refuse more layers than there are weights: transformers would build them all before it looks."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_layer_counts(value, weights, path)
        elif key in _LAYER_COUNTS and isinstance(value, int) and not 0 < value <= weights:
            raise InputError(f"{path} has {key} {value}, but there are only {weights} weights")


def _check_extractor(settings: Any, path: Path) -> None:
    if not isinstance(settings, dict):
        raise InputError(f"{path}: feature_extractor must be a JSON object")
    for key, limit in _EXTRACTOR_LIMITS.items():
        value = settings.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise InputError(f"{path} has {key} {value!r:.40}: it must be a number from 1 to {limit}")
