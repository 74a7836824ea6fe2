"""Quantisation of FastSLM's language model, and nothing else."""

from typing import Any

import torch
from transformers import PreTrainedModel

# Patterns from the beginning of a module's name, as transformers' quantisers match them; the head is the language
# model's own, but small errors in it change words, and transformers keeps those of causal models out by default.
FULL_PRECISION = (r"(model\.)?audio_tower", r"(model\.)?adapter", r"(model\.)?multi_modal_projector", "lm_head")


class LanguageModelQuantization(PreTrainedModel):
    r"""Makes `from_pretrained(..., quantization_config=...)` quantise only the language model.

    Encoder, adapter, projector and head stay as they are, whatever the quantiser and its configuration say
    about modules to leave out.
    """

    # The one list of a model class that every quantiser of transformers adds to the modules it leaves out.
    _keep_in_fp32_modules = list(FULL_PRECISION)

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict:
        """As usual, but a model asked for in float16 is in float16: the list above is for quantisers."""
        plan = super()._get_dtype_plan(dtype)
        return {name: kept for name, kept in plan.items() if name not in FULL_PRECISION}


def take_quantiser(model: PreTrainedModel, language_model: PreTrainedModel) -> None:
    """Mark a model whose language model is already quantised as quantised, for saving, trainers and PEFT.

    Names of modules to leave out in the language model's own configuration are made relative to the new model.
    """
    quantiser: Any = getattr(language_model, "hf_quantizer", None)
    if quantiser is None:
        return
    quantised: Any = model
    quantised.hf_quantizer, quantised.is_quantized = quantiser, True
    quantised.quantization_method = quantiser.quantization_config.quant_method
    quantised.config.quantization_config = quantiser.quantization_config
    for flag in ("is_loaded_in_8bit", "is_loaded_in_4bit"):  # which PEFT asks for
        setattr(quantised, flag, getattr(language_model, flag, False))


__all__ = ["LanguageModelQuantization", "take_quantiser"]
