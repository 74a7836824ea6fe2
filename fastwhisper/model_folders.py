"""Loads parts of a saved model, whose own code runs only where it is trusted; says in one line what is wrong."""

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
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
_FILES_NAMING_CODE = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_LARGE_FILES = ("tokenizer.json", "vocab.json", "normalizer.json")
_LAYER_COUNTS = ("encoder_layers", "decoder_layers", "num_hidden_layers", "num_blocks")
# Far beyond every Whisper, and small enough to be built.
_EXTRACTOR_LIMITS = {"feature_size": 1024, "n_fft": 2**14, "hop_length": 2**14, "chunk_length": 3600}
_NAMED_ERRORS = 300
_NEEDS_CODE = "it needs code of its own, which is not run: if you trust it, add --trust_remote_code"


def check_model_folder(name: str | os.PathLike, trust_remote_code: bool = False) -> set[str]:
    """Check the files of a folder that a model is loaded from, and say which code of its own is not run.

    Of a name on the Hub, only the code that it names is looked at. This package's own code, which its folders hold for
    those who do not have it, does not count: the installed classes are used.

    Args:
        name (`str` or `os.PathLike`): Name on the Hub or folder.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Code of its own is to be run.

    Returns:
        `set[str]`: The AutoClasses for which it names code that is to be run; none unless it is trusted.

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
        return _code_to_run(name, _files_on_the_hub(os.fspath(name)), trust_remote_code)
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
    return _code_to_run(name, contents, trust_remote_code)


@contextmanager
def loading(name: str | os.PathLike, what: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads a part of a model into an error that names the model and the part.

    Nothing but the call that loads belongs into it. That call sets `trust_remote_code`: without it transformers asks
    whoever sits before standard input.

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
            said = _NEEDS_CODE
        elif isinstance(error, UnpicklingError):
            said = "a file holds more than tensors, which is not loaded, since it may be code: give safetensors"
        elif isinstance(error, KeyError | TypeError | AttributeError | IndexError):
            said = f"{type(error).__name__}: {said}"
        raise InputError(f"{name} cannot be loaded: {what}: {said[:_NAMED_ERRORS]}") from error


def load_weights(
    load: Callable[..., Any], name: str | os.PathLike, trust_remote_code: bool = False, **options: Any
) -> Any:
    """Load a model whose weights are those that its config asks for: transformers draws what is missing at random.

    Args:
        load (`Callable`): `from_pretrained` of a class.
        name (`str` or `os.PathLike`): Name on the Hub or folder.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run its own code.
        options: Of `from_pretrained`.

    Raises:
        InputError: if they cannot be loaded, for missing weights, weights of another size, and weights of layers
            that the config does not have.
    """
    with loading(name, "the weights"):
        model, info = load(
            name,
            trust_remote_code=trust_remote_code,
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
    name: str | os.PathLike, dtype: str = "auto", trust_remote_code: bool = False
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model and its tokenizer.

    Classes of its own are registered, so that a FastSLM can be built on it.

    Args:
        name (`str` or `os.PathLike`): Name on the Hub or folder.
        dtype (`str`, *optional*, defaults to `"auto"`): Its own by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run its own code.

    Raises:
        InputError: if there are no such two, or they do not belong together.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trusted = bool(check_model_folder(name, trust_remote_code))
    with loading(name, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trusted)
    model = load_weights(AutoModelForCausalLM.from_pretrained, name, trusted, dtype=dtype)
    if is_own_code(model):
        _register(name, type(model.config), type(model.base_model))
    with loading(name, "the tokenizer"):
        ids = tokenizer("speech", add_special_tokens=False).input_ids
    if not ids:
        raise InputError(f"the tokenizer of {name} gives no tokens for a word: is tokenizer.json missing?")
    return model, tokenizer


def admit_language_model(name: str | os.PathLike, code: set[str]) -> None:
    """Let the language model of a FastSLM be built from the code that its folder holds, where that is to be run.

    Args:
        name (`str` or `os.PathLike`): Name on the Hub or folder of the FastSLM.
        code (`set[str]`): What [`check_model_folder`] returned for it.

    Raises:
        InputError: if the language model needs its own code, and it is not to be run or cannot be loaded.
    """
    from transformers import CONFIG_MAPPING
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    folder = Path(name)
    contents = (
        {"config.json": read_json(folder / "config.json")} if folder.is_dir() else _files_on_the_hub(os.fspath(name))
    )
    settings = _mapping(contents, "config.json", "text_config")
    classes = settings.get("auto_map")
    if not isinstance(classes, dict) or settings.get("model_type") in CONFIG_MAPPING:
        return
    if not code:
        raise InputError(f"{name} cannot be loaded: the language model: {_NEEDS_CODE}")
    with loading(name, "the code of the language model"):
        found = [get_class_from_dynamic_module(classes[kind], name) for kind in ("AutoConfig", "AutoModel")]
        _register(name, *found)


def is_own_code(model: "PreTrainedModel") -> bool:
    """Whether the class of a model came with its folder."""
    from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

    return type(model).__module__.partition(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME


def write_own_code(language_model: "PreTrainedModel", folder: Path) -> None:
    """Write the code of a language model whose class came with its folder into that of the FastSLM that holds it."""
    from transformers.dynamic_module_utils import custom_object_save

    if not is_own_code(language_model):
        return
    parts = {"AutoConfig": language_model.config, "AutoModel": language_model}
    for part in parts.values():
        custom_object_save(part, folder)
    language_model.config.auto_map = {
        kind: f"{type(part).__module__.rpartition('.')[2]}.{type(part).__name__}" for kind, part in parts.items()
    }


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


def _files_on_the_hub(name: str) -> dict[str, Any]:
    """Those files of a repository that may name code; without those that it lacks."""
    from transformers.utils import cached_file

    # Whatever else is wrong is reported by the call that loads the model.
    silent = {
        f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")
    }
    with loading(name, "config.json"):
        paths = {file: cached_file(name, file, **silent) for file in _FILES_NAMING_CODE}
    return {file: read_json(Path(path)) for file, path in paths.items() if path is not None}


def _code_to_run(name: str | os.PathLike, contents: dict[str, Any], trust_remote_code: bool) -> set[str]:
    foreign: dict[str, list[str]] = {}
    for content in contents.values():
        # Parts of a model, and of a processor, name theirs within their own settings.
        for part in (content, *(value for value in content.values() if isinstance(value, dict))):
            named = part.get("auto_map")
            for kind, classes in (named if isinstance(named, dict) else {}).items():
                for code in classes if isinstance(classes, list) else [classes]:
                    if isinstance(code, str) and not _OWN_CODE.fullmatch(code):
                        foreign.setdefault(kind, []).append(code)
    if foreign and not trust_remote_code:
        named = ", ".join(sorted({code for codes in foreign.values() for code in codes}))
        _say_not_run(os.fspath(name), named)
    return set(foreign) if trust_remote_code else set()


@cache
def _say_not_run(name: str, code: str) -> None:
    """Once, however often a run looks into the folder: a teacher with a cache is read for what it is, and loaded."""
    logger.warning("%s names code of its own (%s), which is not run without --trust_remote_code", name, code)


def _register(name: str | os.PathLike, config_class: Any, model_class: Any) -> None:
    """Make AutoConfig and AutoModel know the classes of a language model."""
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

    kind = config_class.model_type
    if kind in CONFIG_MAPPING and CONFIG_MAPPING[kind].__module__.startswith("transformers."):
        raise InputError(
            f"{name}: its own code has the model_type {kind!r} of transformers' own: no FastSLM can hold it"
        )
    AutoConfig.register(kind, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)


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
