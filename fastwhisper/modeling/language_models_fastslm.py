"""Which causal language models a FastSLM can be built on, and what it takes from them."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def body_and_head(language_model: PreTrainedModel) -> tuple[PreTrainedModel, nn.Module]:
    """The headless model of a causal language model, and its head.

    Raises:
        ValueError: for a model without such parts, or for parts that a FastSLM cannot hold: it would answer
            differently after being saved and loaded.
    """
    name, config = type(language_model).__name__, language_model.config
    head: Any = language_model.get_output_embeddings()
    body: Any = language_model.base_model
    if head is None or body is language_model:
        raise ValueError(f"{name} is not a causal language model with its own head")
    if getattr(head, "bias", None) is not None:
        raise ValueError(f"{name} cannot be the language model: its head has a bias, as in Phi-2, GPT-J and CTRL")
    if "past_key_values" not in inspect.signature(body.forward).parameters:
        raise ValueError(f"{name} cannot be the language model: it has no cache of keys and values, as in Mamba")
    embeddings: Any = language_model.get_input_embeddings()
    width = embeddings.weight.shape[1]
    if width != config.hidden_size:
        raise ValueError(
            f"{name} cannot be the language model: its embeddings have a width of {width}, its layers one of "
            f"{config.hidden_size}, as in OPT-350m"
        )
    return body, head


@torch.no_grad()
def check_logits(model: PreTrainedModel, language_model: PreTrainedModel) -> None:
    """Compare a FastSLM with its language model on a few ids: some process their logits in ways not rebuilt here.

    Raises:
        ValueError: if they differ.
    """
    ids = torch.arange(1, 7, device=language_model.device)[None] % language_model.config.vocab_size
    training = language_model.training
    ours, own = model(ids).logits, language_model.eval()(ids).logits
    language_model.train(training)
    tolerance = 16 * torch.finfo(own.dtype).eps * own.abs().max()
    if (ours - own).abs().max() > tolerance:
        raise ValueError(
            f"{type(language_model).__name__} cannot be the language model: its logits are not its hidden states "
            "times its head (soft-capping aside)"
        )


def all_end_ids(
    own: int | list[int] | None, configured: int | list[int] | None, tokenizer: PreTrainedTokenizerBase | None
) -> list[int] | None:
    """All ids that end an answer: the language model's, and the tokenizer's end of a text and of a ChatML turn."""
    given = configured if own is None else own
    ends: list[int | None] = [given] if isinstance(given, int) else list(given or [])
    if tokenizer is not None:
        ends += [tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")]
    return sorted({end for end in ends if end is not None}) or None


__all__ = ["all_end_ids", "body_and_head", "check_logits"]
