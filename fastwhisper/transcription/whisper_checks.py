"""Whether config, weights, processor and generation config of a Whisper are those of one model."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperTokenizer,
)
from transformers.models.whisper.modeling_whisper import WhisperForConditionalGeneration

from ..errors import InputError
from ..model_folders import loading, weight_shapes
from ..modeling.waveforms import SAMPLING_RATE

WINDOW, HOP = 400, 160  # samples, of every Whisper's log-mel spectrogram
START, END = "<|startoftranscript|>", "<|endoftext|>"
TIMESTAMP = re.compile(r"<\|(\d+\.\d\d)\|>")
# Where the sizes of a config stand in the weights.
_SIZES = {
    "d_model": ("encoder.conv1.weight", 0),
    "num_mel_bins": ("encoder.conv1.weight", 1),
    "max_source_positions": ("encoder.embed_positions.weight", 0),
    "max_target_positions": ("decoder.embed_positions.weight", 0),
    "vocab_size": ("decoder.embed_tokens.weight", 0),
    "encoder_ffn_dim": ("encoder.layers.0.fc1.weight", 0),
    "decoder_ffn_dim": ("decoder.layers.0.fc1.weight", 0),
}
_COUNTS = ("encoder_attention_heads", "decoder_attention_heads", "mask_time_length", "mask_feature_length")
_SHARES = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop")
_MASK_SHARES = ("mask_time_prob", "mask_feature_prob")
_WORDS = {
    "decoder_start_token_id": START,
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}
_SWITCHES = (
    *("use_cache", "do_sample", "return_dict_in_generate", "output_attentions", "output_hidden_states"),
    *("output_scores", "output_logits", "renormalize_logits", "remove_invalid_values"),
)
_SINGLE_IDS = ("bos_token_id", "pad_token_id", *_WORDS)
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_ID_MAPPINGS = {"lang_to_id": "{}", "task_to_id": "<|{}|>"}


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value)


def _are_heads(value: Any, config: WhisperConfig) -> bool:
    limits = (config.decoder_layers, config.decoder_attention_heads)
    return _are_pairs(value) and all(
        _is_whole(number, 0) and number < limit for pair in value for number, limit in zip(pair, limits, strict=True)
    )


# What a setting must be, in words, and whether it is.
_GENERATION_SETTINGS: dict[str, tuple[str, Callable[[Any, WhisperConfig], bool]]] = {
    **{
        field: ("a whole number of 1 or more", lambda value, _: _is_whole(value, 1))
        for field in ("num_beams", "max_length", "num_return_sequences")
    },
    **{
        field: ("a whole number of 0 or more", lambda value, _: _is_whole(value, 0))
        for field in ("max_initial_timestamp_index", "top_k", "no_repeat_ngram_size")
    },
    **{
        field: ("true or false", lambda value, _: isinstance(value, bool))
        for field in ("is_multilingual", "return_timestamps")
    },
    **{field: ("a word", lambda value, _: isinstance(value, str)) for field in ("language", "task")},
    **{
        field: ("a number", lambda value, _: _is_number(value))
        for field in ("temperature", "repetition_penalty", "length_penalty", "top_p")
    },
    **{field: ("a list of ids", lambda value, _: isinstance(value, list)) for field in _ID_LISTS},
    **{field: ("a mapping to ids", lambda value, _: isinstance(value, dict)) for field in _ID_MAPPINGS},
    **{
        # `generate` would refuse them in the middle of its work.
        field: ("left out: nothing here decodes by it", lambda value, _: not value)
        for field in ("penalty_alpha", "dola_layers", "constraints", "force_words_ids", "prompt_lookup_num_tokens")
    },
    "forced_decoder_ids": ("a list of pairs of a position and an id", lambda value, _: _are_pairs(value)),
    "alignment_heads": ("a list of pairs of a layer and a head that the decoder has", _are_heads),
}


def check_config(config: WhisperConfig, name: str) -> None:
    """Check the numbers of a config by themselves, and with the weights where `name` is a folder.

    Raises:
        InputError: names the setting, its value, and what it should be.
    """
    place = _place(name, "config.json")
    if Path(name).is_dir():
        shapes = {key.removeprefix("model."): shape for key, shape in weight_shapes(Path(name)).items()}
        for field, (weight, axis) in _SIZES.items():
            shape = shapes.get(weight, ())
            if len(shape) > axis and getattr(config, field) != shape[axis]:
                raise InputError(f"{place} has {field} {getattr(config, field)}, but the weights have {shape[axis]}")
    for field in (*_SIZES, *_COUNTS, "encoder_layers", "decoder_layers", "median_filter_width"):
        if getattr(config, field) < 1:
            raise InputError(f"{place} has {field} {getattr(config, field)}: it must be 1 or more")
    for field in (*_SHARES, *_MASK_SHARES):
        if not 0 <= getattr(config, field) <= 1:
            raise InputError(f"{place} has {field} {getattr(config, field)}: it must be from 0 to 1")
    for part in ("encoder", "decoder"):
        heads = getattr(config, f"{part}_attention_heads")
        if config.d_model % heads:
            raise InputError(
                f"{place} has {part}_attention_heads {heads}, which do not divide d_model {config.d_model}"
            )
    if config.mask_time_length > 2 * config.max_source_positions or config.mask_feature_length > config.num_mel_bins:
        raise InputError(f"{place} has mask_time_length or mask_feature_length beyond the spectrogram")
    if not config.is_encoder_decoder:
        raise InputError(f"{place} has is_encoder_decoder false: a Whisper is an encoder and a decoder")
    for field in ("bos_token_id", "pad_token_id", "decoder_start_token_id", "eos_token_id"):
        value: Any = getattr(config, field, None)
        for token in value if isinstance(value, list) else [value]:
            _check_id(token, field, config, place)


def check_extractor(extractor: Any, config: WhisperConfig, name: str) -> None:
    """Check that a feature extractor makes the spectrograms that the encoder takes.

    Raises:
        InputError: names the setting and both values.
    """
    place = _place(name, "the feature extractor")
    if not isinstance(extractor, WhisperFeatureExtractor):
        raise InputError(f"{place} is a {type(extractor).__name__}, and the model is a Whisper")
    wanted = {
        "feature_size": config.num_mel_bins,
        "sampling_rate": SAMPLING_RATE,
        "n_fft": WINDOW,
        "hop_length": HOP,
        "nb_max_frames": 2 * config.max_source_positions,
    }
    for field, value in wanted.items():
        if getattr(extractor, field) != value:
            raise InputError(f"{place} has {field} {getattr(extractor, field)}, and the model needs {value}")
    for field in ("padding_value", "dither"):
        if not isinstance(getattr(extractor, field), int | float):
            raise InputError(f"{place} has {field} {getattr(extractor, field)!r:.40}: it must be a number")
    if not 0 <= extractor.dither <= 1:
        raise InputError(f"{place} has dither {extractor.dither}: it must be from 0 to 1, a full scale of noise")
    if extractor.padding_side != "right":
        raise InputError(
            f"{place} has padding_side {extractor.padding_side!r:.40}: a Whisper's audio ends with padding"
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: WhisperConfig, name: str) -> None:
    """Check that a tokenizer's ids are those of the model; its embedding may be padded to more.

    Raises:
        InputError: for a tokenizer that is empty, of another model, or larger than the model's embedding.
    """
    place = _place(name, "the tokenizer")
    if not isinstance(tokenizer, WhisperTokenizer):
        raise InputError(f"{place} is a {type(tokenizer).__name__}: tokenizer_config.json must name WhisperTokenizer")
    vocabulary = tokenizer.get_vocab()
    if END not in vocabulary or START not in vocabulary:
        raise InputError(f"{place} has no {END} and {START}: is tokenizer.json gone, or of another kind of model?")
    largest = max(vocabulary.values())
    if largest >= config.vocab_size:
        raise InputError(f"{place} has ids up to {largest}, and the model's vocab_size is {config.vocab_size}")
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if config.decoder_start_token_id != vocabulary[START]:
        raise InputError(_other(place, START, vocabulary[START], "config.json", config.decoder_start_token_id))
    if vocabulary[END] not in ends:
        raise InputError(_other(place, END, vocabulary[END], "config.json", config.eos_token_id))
    with loading(name, "the tokenizer"):
        ids = tokenizer("speech").input_ids
    if not ids:
        raise InputError(f"{place} makes nothing of a word")


def check_generation_config(
    generation_config: GenerationConfig, config: WhisperConfig, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    """Check what decoding reads from a complete generation config: types, ids within the vocabulary, layers, heads.

    Raises:
        InputError: names the setting and its value.
    """
    place = _place(name, "generation_config.json")
    settings = {field: value for field, value in vars(generation_config).items() if value is not None}
    for field, (wanted, holds) in _GENERATION_SETTINGS.items():
        if field in settings and not holds(settings[field], config):
            raise InputError(f"{place} has {field} {settings[field]!r:.60}: it must be {wanted}")
    for field, tokens in _ids_in(settings):
        for token in tokens:
            _check_id(token, field, config, place)
    _check_words(settings, tokenizer.get_vocab(), place, _place(name, "the tokenizer"))


def check_switches(generation_config: GenerationConfig, name: str) -> None:
    """Check that what is on or off in any model's generation config is true or false.

    Raises:
        InputError: names the setting and its value.
    """
    for field in _SWITCHES:
        value = getattr(generation_config, field, None)
        if not isinstance(value, bool | None):
            place = _place(name, "generation_config.json")
            raise InputError(f"{place} has {field} {value!r:.60}: it must be true or false")


def check_fit(model: WhisperForConditionalGeneration, processor: Any, name: str) -> None:
    """Check that a processor and a completed generation config belong to a model.

    Raises:
        InputError: for the first thing that does not fit.
    """
    check_extractor(processor.feature_extractor, model.config, name)
    check_tokenizer(processor.tokenizer, model.config, name)
    check_switches(model.generation_config, name)  # type: ignore[arg-type]
    check_generation_config(model.generation_config, model.config, processor.tokenizer, name)  # type: ignore[arg-type]


def _place(name: str, what: str) -> str:
    """`folder/config.json` for a file of a folder, `the tokenizer of openai/whisper-tiny` for anything else."""
    return str(Path(name) / what) if what.endswith(".json") and Path(name).is_dir() else f"{what} of {name}"


def _ids_in(settings: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Each setting that holds ids, and they."""
    for field in (*_SINGLE_IDS, "eos_token_id"):
        value = settings.get(field)
        yield field, value if isinstance(value, list) else [value]
    for field in _ID_LISTS:
        yield field, settings.get(field, [])
    for field in _ID_MAPPINGS:
        yield field, list(settings.get(field, {}).values())
    yield "forced_decoder_ids", [token for _, token in settings.get("forced_decoder_ids", [])]


def _check_words(settings: dict[str, Any], vocabulary: dict[str, int], place: str, tokenizer: str) -> None:
    """Check that the tokenizer has the control tokens and timestamps where the generation config has them."""
    words = {word: settings[field] for field, word in _WORDS.items() if field in settings}
    for field, form in _ID_MAPPINGS.items():
        words.update((form.format(key), token) for key, token in settings.get(field, {}).items())
    for word in vocabulary:
        if seconds := TIMESTAMP.fullmatch(word):
            words[word] = settings["no_timestamps_token_id"] + 1 + round(50 * float(seconds[1]))
    for word, token in words.items():
        if vocabulary.get(word, token) != token:
            raise InputError(_other(tokenizer, word, vocabulary[word], place, token))
    ends = settings.get("eos_token_id", vocabulary[END])
    if vocabulary[END] not in (ends if isinstance(ends, list) else [ends]):
        raise InputError(_other(tokenizer, END, vocabulary[END], place, ends))


def _other(place: str, word: str, token: int, other: str, expected: Any) -> str:
    return f"{place} gives {word} the id {token}, and {other} has {expected}: they are not of one model"


def _check_id(token: Any, field: str, config: WhisperConfig, place: str) -> None:
    if token is None:
        return
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < config.vocab_size:
        raise InputError(
            f"{place} has {field} {token!r:.40}: the ids of the model go from 0 to {config.vocab_size - 1}"
        )
