"""fastwhisper: smaller Whisper students by adaptive self-knowledge distillation, and speech for causal LLMs."""

import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

from wrapt import register_post_import_hook

__version__ = "0.1.0"

_PUBLIC = {
    "FastWhisperConfig": "configuration.configuration_fastwhisper",
    "FastWhisperForConditionalGeneration": "modeling.modeling_fastwhisper",
    "FastSLMConfig": "configuration.configuration_fastslm",
    "HFQFormerConfig": "configuration.configuration_fastslm",
    "HFQFormer": "modeling.modeling_hfq_former",
    "FastSLMModel": "modeling.modeling_fastslm",
    "FastSLMForCausalLM": "modeling.modeling_fastslm",
    "FastSLMProcessor": "modeling.processing_fastslm",
    "add_speech_tokens": "modeling.speech_tokens",
    "convert_hfq_state_dict": "conversion.published_fastslm",
    "export": "conversion.export",
    "import_model": "conversion.import_model",
    "load_ctranslate2": "transcription.ctranslate2_whisper",
    "ASKDTrainingArguments": "trainers.askd_arguments",
    "ASKDTrainer": "trainers.askd_trainer",
    "transcribe": "transcription.transcribe",
    "transcribe_files": "transcription.transcribe_files",
    "load_checkpoint": "transcription.checkpoints",
    "ask": "transcription.speech_answers",
    "transcribe_with_fastslm": "transcription.speech_answers",
    "load_fastslm": "transcription.speech_answers",
    "distill": "trainers.distill",
    "evaluate": "evaluation.evaluate",
    "label": "labelling.label",
    "register_auto_classes": "registration",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .configuration.configuration_fastslm import FastSLMConfig as FastSLMConfig
    from .configuration.configuration_fastslm import HFQFormerConfig as HFQFormerConfig
    from .configuration.configuration_fastwhisper import FastWhisperConfig as FastWhisperConfig
    from .conversion.export import export as export
    from .conversion.import_model import import_model as import_model
    from .conversion.published_fastslm import convert_hfq_state_dict as convert_hfq_state_dict
    from .evaluation.evaluate import evaluate as evaluate
    from .labelling.label import label as label
    from .modeling.modeling_fastslm import FastSLMForCausalLM as FastSLMForCausalLM
    from .modeling.modeling_fastslm import FastSLMModel as FastSLMModel
    from .modeling.modeling_fastwhisper import (
        FastWhisperForConditionalGeneration as FastWhisperForConditionalGeneration,
    )
    from .modeling.modeling_hfq_former import HFQFormer as HFQFormer
    from .modeling.processing_fastslm import FastSLMProcessor as FastSLMProcessor
    from .modeling.speech_tokens import add_speech_tokens as add_speech_tokens
    from .registration import register_auto_classes as register_auto_classes
    from .trainers.askd_arguments import ASKDTrainingArguments as ASKDTrainingArguments
    from .trainers.askd_trainer import ASKDTrainer as ASKDTrainer
    from .trainers.distill import distill as distill
    from .transcription.checkpoints import load_checkpoint as load_checkpoint
    from .transcription.ctranslate2_whisper import load_ctranslate2 as load_ctranslate2
    from .transcription.speech_answers import ask as ask
    from .transcription.speech_answers import load_fastslm as load_fastslm
    from .transcription.speech_answers import transcribe_with_fastslm as transcribe_with_fastslm
    from .transcription.transcribe import transcribe as transcribe
    from .transcription.transcribe_files import transcribe_files as transcribe_files


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fastwhisper' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _write_code(folder: str | os.PathLike) -> None:
    from .hub_cards.remote_code import write_remote_code

    write_remote_code(folder)


def _prepare(transformers: ModuleType) -> None:
    from .configuration.saved_folder import set_code_writer
    from .registration import register_auto_classes

    register_auto_classes()
    # Handed in from here: only this file may import from every room.
    set_code_writer(_write_code)


# Called when transformers is imported, or now if it already is: see registration.py.
register_post_import_hook(_prepare, "transformers")
