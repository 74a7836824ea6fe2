"""Audio to text with any Whisper: the one place that calls `generate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from ..data.languages import language_code
from ..errors import InputError
from ..modeling.waveforms import SAMPLING_RATE
from .transcripts import Segment, Transcript, Word, in_order

TASKS = ("transcribe", "translate")

# The fallback of Whisper's paper (section 4.5). The threshold of the compression ratio is lower than openai's 2.4,
# because transformers compresses token ids, not text.
FALLBACK = {
    "compression_ratio_threshold": 1.35,
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
    "condition_on_prev_tokens": False,
}


@dataclass(frozen=True)
class GenerationOptions:
    """How audio becomes text.

    Args:
        language (`str`, *optional*): code or English name; by default that of the generation config, else detected.
        task (`str`, *optional*, defaults to `"transcribe"`): `transcribe` or `translate` (into English).
        timestamps (`bool`, *optional*, defaults to `False`): let the model cut its text into segments with times.
        word_timestamps (`bool`, *optional*, defaults to `False`): times of words, and so of segments.
        num_beams (`int`, *optional*, defaults to 1): 1 is greedy.
        batch_size (`int`, *optional*, defaults to 8): clips that are decoded together.
        temperatures (`tuple[float, ...]`): fallback for audio over the window and wherever times are asked for: the
            next is tried where the text repeats itself or is improbable. Plain text of short clips is decoded at 0.
        seed (`int`, *optional*, defaults to 0): fixes what temperatures above 0 draw.
    """

    language: str | None = None
    task: str = "transcribe"
    timestamps: bool = False
    word_timestamps: bool = False
    num_beams: int = 1
    batch_size: int = 8
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    seed: int = 0


def window_seconds(model: WhisperForConditionalGeneration, processor: WhisperProcessor) -> int:
    """Seconds of audio that the encoder takes at once: 30 in every Whisper of openai.

    Raises:
        InputError: where model and processor do not belong together.
    """
    extractor = processor.feature_extractor
    stride = model.model.encoder.conv1.stride[0] * model.model.encoder.conv2.stride[0]
    frames = stride * model.config.max_source_positions
    if frames != extractor.nb_max_frames or model.config.num_mel_bins != extractor.feature_size:
        raise InputError(
            f"the processor makes {extractor.nb_max_frames} frames of {extractor.feature_size} mel bins, the model "
            f"takes {frames} of {model.config.num_mel_bins}: they do not belong together"
        )
    return extractor.chunk_length


@torch.no_grad()
def generate_transcripts(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    options: GenerationOptions | None = None,
) -> list[Transcript]:
    """Transcribe clips of any length, in their order.

    Clips that fit the model's window are decoded in one call per batch; longer ones, and all where times are asked
    for, go through Whisper's long-form decoding, which moves its window along the timestamps that it predicts.

    Args:
        model (`WhisperForConditionalGeneration`): on any device; its mode and attention are as before afterwards.
        processor (`WhisperProcessor`): the processor of the model.
        clips (`Sequence[np.ndarray]`): mono float samples `(samples,)` at 16 kHz.
        options (`GenerationOptions`, *optional*): language, task, times, beams, batch size, seed.

    Raises:
        InputError: for a language or task that the model does not know, and for a processor of another model.
    """
    options = options or GenerationOptions()
    check_prompt(model.generation_config, options.language, options.task)
    window = window_seconds(model, processor) * SAMPLING_RATE
    timed = options.timestamps or options.word_timestamps
    short = [index for index, clip in enumerate(clips) if len(clip) <= window and not timed]
    moving = [index for index, clip in enumerate(clips) if len(clip) > window or timed]
    transcripts: dict[int, Transcript] = {}
    with _ready_to_generate(model):
        for indices, transcribe in ((short, _transcribe_window), (moving, _transcribe_moving)):
            for first in range(0, len(indices), options.batch_size):
                batch = indices[first : first + options.batch_size]
                results = transcribe(model, processor, [clips[index] for index in batch], options)
                transcripts.update(zip(batch, results, strict=True))
    return [transcripts[index] for index in range(len(clips))]


def check_prompt(config: GenerationConfig, language: str | None, task: str) -> None:
    """Check that a model's generation config knows a language and a task.

    Raises:
        InputError: where it does not; names what it knows.
    """
    if task not in TASKS:
        raise InputError(f"there is no task {task!r}; the tasks are {' and '.join(TASKS)}")
    code, known = language_code(language), known_languages(config)
    if not known and (code not in (None, "en") or task != "transcribe"):
        raise InputError(f"the model transcribes English only: it knows no language {language!r}, no task {task!r}")
    if known and code is not None and code not in known:
        raise InputError(f"the model knows no language {language!r}; it knows {', '.join(sorted(known))}")


def spoken_language(config: GenerationConfig, language: str | None) -> str | None:
    """The code of the language that a model will write: the one given, or its only or default one; `None` if heard."""
    if not known_languages(config):
        return "en"
    return language_code(language or getattr(config, "language", None))


def known_languages(config: GenerationConfig) -> list[str]:
    """Codes of a multilingual model's languages; none for an English-only model, whose prompt names no language."""
    if not getattr(config, "is_multilingual", True):
        return []
    return [token.removeprefix("<|").removesuffix("|>") for token in getattr(config, "lang_to_id", None) or {}]


@contextmanager
def _ready_to_generate(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """Evaluation mode; afterwards the mode and the attention as before: `generate` leaves it eager after words."""
    training, attention = model.training, model.config._attn_implementation
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)


def _transcribe_window(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: list[np.ndarray],
    options: GenerationOptions,
) -> list[Transcript]:
    """One call of `generate` for clips that fit the window; text alone."""
    features, mask = _features(model, processor, clips, 0)
    languages = _languages(model, features, options)
    sequences = _generate(
        model, options, languages, input_features=features, attention_mask=mask, return_timestamps=False
    )
    transcripts = []
    for clip, language, sequence in zip(clips, languages, sequences.tolist(), strict=True):
        text, duration = _text(processor, sequence), len(clip) / SAMPLING_RATE
        segments = [Segment(text, 0.0, duration)] if text else []
        transcripts.append(Transcript(text, duration, segments, language))
    return transcripts


def _transcribe_moving(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: list[np.ndarray],
    options: GenerationOptions,
) -> list[Transcript]:
    """Whisper's sequential decoding, with the fallback on temperatures; text, segments and, if asked for, words."""
    window = processor.feature_extractor.nb_max_frames
    # For several clips `generate` looks at their own lengths only if the batch is longer than the window ...
    features, mask = _features(model, processor, clips, window + 2 if len(clips) > 1 else 0)
    languages = _languages(model, features[..., :window], options)
    if len(clips) == 1:
        # ... and for one clip it takes the length of its features: more would make it listen to the padding.
        frames = int(mask.sum())
        features, mask = features[..., :frames], mask[..., :frames]
    output = _generate(
        model,
        options,
        languages,
        input_features=features,
        attention_mask=mask,
        return_timestamps=True,
        return_segments=True,
        return_token_timestamps=options.word_timestamps,
        temperature=options.temperatures,
        **FALLBACK,
    )
    transcripts = []
    for clip, language, found in zip(clips, languages, output["segments"], strict=True):
        duration = len(clip) / SAMPLING_RATE
        segments = in_order((_segment(processor, segment, language) for segment in found), duration)
        text = _text(processor, [token for segment in found for token in segment["tokens"].tolist()])
        transcripts.append(Transcript(text, duration, [segment for segment in segments if segment.text], language))
    return transcripts


def _features(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, clips: list[np.ndarray], min_frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel features `(batch, mel, frames)`, at least a window and `min_frames` long; mask `(batch, frames)`."""
    extractor = processor.feature_extractor
    hop = extractor.hop_length
    # Even, since the encoder joins two frames: words would be aligned with nothing in a rest of a single frame.
    lengths = [2 * max(1, -(-len(clip) // (2 * hop))) for clip in clips]
    frames = max(*lengths, min_frames, extractor.nb_max_frames)
    features = extractor(
        clips, sampling_rate=SAMPLING_RATE, max_length=frames * hop, truncation=False, return_tensors="pt"
    ).input_features
    mask = torch.arange(frames)[None] < torch.tensor(lengths)[:, None]
    return features.to(model.device, model.dtype), mask.long().to(model.device)


def _languages(
    model: WhisperForConditionalGeneration, features: torch.Tensor, options: GenerationOptions
) -> list[str | None]:
    """Codes of the languages of a batch, heard in its first window unless given."""
    config = model.generation_config
    language = spoken_language(config, options.language)
    if language is not None or not known_languages(config):
        return [language] * len(features)
    table: dict[str, int] = config.lang_to_id  # type: ignore[attr-defined]
    names = {token_id: token.removeprefix("<|").removesuffix("|>") for token, token_id in table.items()}
    heard = model.detect_language(
        input_features=features, generation_config=config, num_segment_frames=features.shape[-1]
    )
    return [names[token_id] for token_id in heard.tolist()]


def _generate(
    model: WhisperForConditionalGeneration, options: GenerationOptions, languages: list[str | None], **inputs: Any
) -> Any:
    if known_languages(model.generation_config):
        inputs.update(language=languages, task=options.task)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(options.seed)
        # Speculative decoding leaves a flag on its draft model that would end long audio after one window.
        return model.generate(**inputs, num_beams=options.num_beams, force_unique_generate_call=False)


def _text(processor: WhisperProcessor, tokens: list[int]) -> str:
    """The text of tokens without timestamps and other control tokens, which follow the end of text in a Whisper."""
    tokenizer = processor.tokenizer
    return tokenizer.decode([token for token in tokens if token < tokenizer.eos_token_id]).strip()


def _segment(processor: WhisperProcessor, found: dict[str, Any], language: str | None) -> Segment:
    tokens, start, end = found["tokens"].tolist(), float(found["start"]), float(found["end"])
    words = []
    if "token_timestamps" in found:
        words = _words(processor, tokens, found["token_timestamps"].tolist(), end, language)
    return Segment(_text(processor, tokens), start, end, words)


def _words(
    processor: WhisperProcessor, tokens: list[int], times: list[float], segment_end: float, language: str | None
) -> list[Word]:
    """Words of a segment: each ends where the token after it starts, the last one no earlier than the segment."""
    tokenizer = processor.tokenizer
    positions = [position for position, token in enumerate(tokens) if token < tokenizer.eos_token_id]
    texts, _, groups = _combine_tokens_into_words(
        tokenizer, [tokens[position] for position in positions], LANGUAGES[language or "en"]
    )
    words = []
    for text, group in zip(texts, groups, strict=True):
        if text.strip():
            following = positions[group[-1]] + 1
            end = times[following] if following < len(times) else segment_end
            words.append(Word(text.strip(), times[positions[group[0]]], end))
    return words
