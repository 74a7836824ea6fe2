"""A FastWhisper as the ordinary Whisper that it is, for engines and converters that run none of our code."""

from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from ..configuration.configuration_fastwhisper import FastWhisperConfig
from ..hub_cards.export import write_vocabulary

# What the config of a student has beside Whisper's own settings, and what belongs to the folder that it came from.
_STUDENT_FIELDS = frozenset(FastWhisperConfig.__annotations__)
_OF_THE_FOLDER = frozenset({"auto_map", "attribute_map", "_name_or_path", "transformers_version"})


def plain_config(config: WhisperConfig) -> WhisperConfig:
    """A config of the stock class, without the fields that only this package reads."""
    left_out = _STUDENT_FIELDS | _OF_THE_FOLDER
    plain = WhisperConfig(**{name: value for name, value in config.to_dict().items() if name not in left_out})
    plain.architectures = [WhisperForConditionalGeneration.__name__]
    return plain


def plain_whisper(model: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """The same weights, not copied, in the stock class, which hears 30 s."""
    with torch.device("meta"):
        plain = WhisperForConditionalGeneration(plain_config(model.config))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain.eval()


def write_whisper(model: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: Path) -> None:
    """Write a folder like OpenAI's own on the Hub: `model_type` whisper, no remote code, every file of the tokenizer.

    Args:
        model (`WhisperForConditionalGeneration`): a student, or any Whisper.
        processor (`WhisperProcessor`): of the model.
        folder (`Path`): exists.
    """
    plain_whisper(model).save_pretrained(folder)
    write_processor(processor, folder)


def write_processor(processor: WhisperProcessor, folder: Path) -> None:
    """Write the files of a processor under their names of today and of before."""
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)
    write_vocabulary(processor.tokenizer, folder)
