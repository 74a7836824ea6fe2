"""Write a FastSLM, newly built or given, as a Hub-ready folder with its card."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, check_positive, check_seed
from ..files import new_folder
from ..model_folders import load_language_model, write_own_code
from ..modeling.modeling_fastslm import FastSLMForCausalLM
from ..modeling.processing_fastslm import FastSLMProcessor
from ..modeling.speech_tokens import add_speech_tokens
from ..transcription.checkpoints import load_encoder
from .card import write_card
from .export import export_folder

QUERY_CLOCKS = ("index", "aligned")


def write_new_fastslm(
    encoder: str,
    language_model: str,
    folder: str | os.PathLike,
    *,
    num_queries: int = 50,
    stage_queries: Sequence[int] = (80, 80, 80),
    rates: Sequence[int] | None = None,
    query_clock: str = "index",
    tokens_follow_length: bool = False,
    mask_padding: bool = False,
    window_overlap: float = 0.0,
    window_times: bool = False,
    encoder_true_length: bool | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> FastSLMForCausalLM:
    """Join a speech encoder and a language model with an untrained adapter, and write model and processor with a card.

    Args:
        encoder (`str`): Name on the Hub or folder of a Whisper or FastWhisper.
        language_model (`str`): Name on the Hub or folder of a causal language model with its tokenizer.
        folder (`str` or `os.PathLike`): It must not exist yet, and does not exist after a failure.
        num_queries, stage_queries, rates, query_clock, tokens_follow_length, mask_padding (*optional*):
            As in [`HFQFormerConfig`].
        window_overlap (*optional*): As in [`FastSLMConfig`].
        encoder_true_length (`bool`, *optional*): As in [`FastSLMConfig`]; by default as the encoder was trained.
        window_times (*optional*): As in [`FastSLMProcessor`].
        seed (`int`, *optional*, defaults to 0): Seed of the adapter's weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code of their own that the parts name. The
            language model's is copied into the folder, which then needs to be trusted, too.

    Returns:
        The model.

    Raises:
        InputError: if the folder exists, or for parts and settings that do not fit each other.
    """
    check_positive(num_queries=num_queries)
    check_seed(seed)
    if query_clock not in QUERY_CLOCKS:
        raise InputError(f"there is no query_clock {query_clock!r}; it must be {' or '.join(QUERY_CLOCKS)}")
    with new_folder(Path(folder)) as place:
        speech_encoder, extractor = load_encoder(encoder, trust_remote_code)
        base, tokenizer = load_language_model(language_model, trust_remote_code=trust_remote_code)
        settings: dict[str, Any] = {} if encoder_true_length is None else {"encoder_true_length": encoder_true_length}
        try:
            add_speech_tokens(tokenizer)
            torch.manual_seed(seed)
            model = FastSLMForCausalLM.from_parts(
                speech_encoder,
                base,
                {
                    "hidden_size": speech_encoder.config.d_model,
                    "num_attention_heads": speech_encoder.config.encoder_attention_heads,
                    "max_source_positions": speech_encoder.config.max_source_positions,
                    "num_queries": num_queries,
                    "stage_queries": list(stage_queries),
                    "rates": None if rates is None else list(rates),
                    "query_clock": query_clock,
                    "tokens_follow_length": tokens_follow_length,
                    "mask_padding": mask_padding,
                },
                tokenizer=tokenizer,
                window_overlap=window_overlap,
                **settings,
            )
            processor = FastSLMProcessor.from_parts(extractor, tokenizer, model.config, window_times=window_times)
        except ValueError as error:
            raise InputError(str(error)) from error
        _write(model, processor, place, trust_remote_code)
    return model


def write_fastslm(
    model: FastSLMForCausalLM,
    processor: FastSLMProcessor,
    folder: str | os.PathLike,
    write_more: Callable[[Path], None] | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write a model and its processor into a new folder, with code, a card, and what `write_more` adds.

    With `trust_remote_code` nothing is said of code that the folder holds for its language model.

    Raises:
        InputError: if the folder exists.
    """
    with new_folder(Path(folder)) as place:
        _write(model, processor, place, trust_remote_code)
        if write_more is not None:
            write_more(place)


def _write(model: FastSLMForCausalLM, processor: FastSLMProcessor, folder: Path, trust_remote_code: bool) -> None:
    write_own_code(model.model.language_model, folder)
    export_folder(model, processor, folder)
    write_card(folder, trust_remote_code=trust_remote_code)
