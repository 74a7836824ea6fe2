"""Rebuilds what decoding reads from a Whisper's generation config if a checkpoint lacks it.

Whispers that were converted or fine-tuned before 2023 have a generation config without languages, tasks and
timestamps, or none at all.
"""

from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase, WhisperConfig
from transformers.models.whisper.tokenization_whisper import LANGUAGES

# End of text in the vocabulary of GPT-2, which the English-only models have; the multilingual ones end at 50257.
ENGLISH_END_OF_TEXT = 50256
TASKS = ("transcribe", "translate")


def lacks_prompt_tokens(generation_config: GenerationConfig) -> bool:
    """Whether a generation config does not say how prompts for this model are written."""
    names = ["is_multilingual", "no_timestamps_token_id"]
    if getattr(generation_config, "is_multilingual", True):
        names += ["lang_to_id", "task_to_id"]
    return any(getattr(generation_config, name, None) is None for name in names)


def complete_generation_config(
    generation_config: GenerationConfig, config: WhisperConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Add what a Whisper's generation config lacks; existing settings are kept.

    Tokens of languages, tasks and timestamps come from the tokenizer, start and end tokens from the model. A prompt
    that nothing sets becomes that of OpenAI's own generation configs: detect the language and transcribe.

    Args:
        generation_config (`GenerationConfig`): changed in place.
        config (`WhisperConfig`): the config of the model.
        tokenizer (`PreTrainedTokenizerBase`): the tokenizer of the model; nothing is added if it is not a Whisper's.
    """
    vocabulary = tokenizer.get_vocab()
    # transformers makes an empty tokenizer for a folder that has none.
    if not {"<|endoftext|>", "<|notimestamps|>"} <= vocabulary.keys():
        return

    def add(**settings: Any) -> None:
        for name, value in settings.items():
            if getattr(generation_config, name, None) is None:
                setattr(generation_config, name, value)

    languages = {token: vocabulary[token] for token in map("<|{}|>".format, LANGUAGES) if token in vocabulary}
    tasks = {task: vocabulary[f"<|{task}|>"] for task in TASKS if f"<|{task}|>" in vocabulary}
    add(is_multilingual=bool(languages) and vocabulary["<|endoftext|>"] != ENGLISH_END_OF_TEXT)
    if getattr(generation_config, "is_multilingual", False):
        if getattr(generation_config, "lang_to_id", None) is None and not _fixes_prompt(generation_config, config):
            add(task="transcribe")
        add(lang_to_id=languages, task_to_id=tasks)
    if getattr(generation_config, "no_timestamps_token_id", None) is None:
        # As in OpenAI's: the first timestamp is within a second.
        add(no_timestamps_token_id=vocabulary["<|notimestamps|>"], max_initial_timestamp_index=50)
    add(
        prev_sot_token_id=vocabulary.get("<|startofprev|>"),
        alignment_heads=last_half_heads(config.decoder_layers, config.decoder_attention_heads),
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        max_length=config.max_target_positions,
    )


def last_half_heads(layers: int, heads: int) -> list[list[int]]:
    """All attention heads `[layer, head]` of the last half of a decoder: OpenAI's choice if it has not been measured
    which of them follow the speech.
    """
    return [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]


def _fixes_prompt(generation_config: GenerationConfig, config: WhisperConfig) -> bool:
    """Whether a language, a task or old forced ids are set anywhere that `generate` looks for a prompt."""
    places = [(generation_config, name) for name in ("language", "task", "forced_decoder_ids")]
    return any(getattr(place, name, None) is not None for place, name in [*places, (config, "forced_decoder_ids")])


__all__ = ["complete_generation_config", "lacks_prompt_tokens", "last_half_heads"]
