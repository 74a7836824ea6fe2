"""The collator of training rows with the settings of a model, one for `label`, which fills a cache, and `distill`."""

from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.collator import SpeechCollator
from ..data.languages import language_code
from .decoding import known_languages


def training_collator(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    language: str | None,
    task: str,
    *,
    timestamp_probability: float,
    prompt_probability: float,
    seed: int,
) -> SpeechCollator:
    """The collator of `distill`, by which `label` fills its cache; the language of a model that has but one is set.

    Args:
        model (`WhisperForConditionalGeneration`): the student, or a teacher whose settings it has.
        processor (`WhisperProcessor`): its processor.
        language, task, timestamp_probability, prompt_probability, seed: as for [`SpeechCollator`].

    Raises:
        InputError: for a language that Whisper does not know, or a share that is not from 0 to 1.
    """
    languages = known_languages(model.generation_config)
    return SpeechCollator(
        processor,
        language=language_code(language) or (languages[0] if len(languages) == 1 else None),
        task=task,
        timestamp_probability=timestamp_probability,
        prompt_probability=prompt_probability,
        max_target_positions=model.config.max_target_positions,
        seed=seed,
        pad_token_id=model.config.pad_token_id,
    )
