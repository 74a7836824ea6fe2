"""Audio to text with any Whisper: clips of any length, in batches, with segment and word times."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor

from ..data.languages import language_code
from ..data.stored_audio import Clip
from ..data.true_length_features import sample_frames
from ..errors import InputError, check_positive
from ..modeling.waveforms import SAMPLING_RATE
from .ctranslate2_decoding import CTranslate2Decoder
from .ctranslate2_whisper import AnyWhisper, CTranslate2Whisper
from .recording_features import RecordingFeatures, context_features
from .sequential import FRAMES_PER_SECOND, Fallback, MovingClip, SequentialDecoder
from .token_kinds import Piece, TokenKinds
from .transcripts import Segment, Transcript, Transcription, Window
from .true_length import context_batches, context_of, is_true_length, most_tokens, stacked
from .word_times import words

TASKS = ("transcribe", "translate")


@dataclass(frozen=True)
class GenerationOptions:
    """How audio becomes text.

    Args:
        language (`str`, *optional*): code or English name; by default the model's own, or auto-detected.
        task (`str`, *optional*, defaults to `"transcribe"`): `transcribe` or `translate` (into English).
        timestamps (`bool`, *optional*, defaults to `False`): let the model cut its text into segments with times.
        word_timestamps (`bool`, *optional*, defaults to `False`): give times of words, and so of segments.
        num_beams (`int`, *optional*, defaults to 1): 1 is greedy.
        batch_size (`int`, *optional*, defaults to 8): clips decoded together.
        temperatures (`tuple[float, ...]`): fallback for audio over the window, and whenever times are wanted: the
            next is tried if the text repeats itself or is improbable. Plain text of short clips is decoded at 0.
        seed (`int`, *optional*, defaults to 0): fixes what temperatures above 0 draw.

    Raises:
        InputError: for a number of beams or clips below 1, or no temperatures.
    """

    language: str | None = None
    task: str = "transcribe"
    timestamps: bool = False
    word_timestamps: bool = False
    num_beams: int = 1
    batch_size: int = 8
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(num_beams=self.num_beams, batch_size=self.batch_size)
        if not self.temperatures:
            raise InputError("temperatures must not be empty; (0.0,) decodes once, without fallback")


def window_seconds(model: AnyWhisper, processor: WhisperProcessor) -> int:
    """Seconds of audio that the encoder takes at once: 30 in every Whisper of openai.

    Raises:
        InputError: if model and processor do not belong together.
    """
    extractor = processor.feature_extractor
    frames = 2 * model.config.max_source_positions
    if frames != extractor.nb_max_frames or model.config.num_mel_bins != extractor.feature_size:
        raise InputError(
            f"the processor makes {extractor.nb_max_frames} frames of {extractor.feature_size} mel bins, the model "
            f"takes {frames} of {model.config.num_mel_bins}: they do not belong together"
        )
    return extractor.chunk_length


def generate_transcripts(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[Clip],
    options: GenerationOptions | None = None,
) -> list[Transcript]:
    """Transcribe clips of any length, in order.

    Args:
        model (`WhisperForConditionalGeneration`): on any device; its mode and attention are restored afterwards.
        processor (`WhisperProcessor`): the processor of the model.
        clips (`Sequence[np.ndarray]`, `Sequence[StoredSamples]`): mono float samples `(samples,)` at 16 kHz.
        options (`GenerationOptions`, *optional*): language, task, times, beams, batch size, seed.

    Raises:
        InputError: for a language or task that the model does not know, or for a processor of another model.
    """
    windows: list[list[Window]] = [[] for _ in clips]
    for index, window in decode_windows(model, processor, clips, options):
        windows[index].append(window)
    kinds = TokenKinds(processor.tokenizer)
    return [
        Transcription(found, kinds, len(clip) / SAMPLING_RATE).transcript
        for clip, found in zip(clips, windows, strict=True)
    ]


def decode_windows(
    model: AnyWhisper,
    processor: WhisperProcessor,
    clips: Sequence[Clip],
    options: GenerationOptions | None = None,
) -> Iterator[tuple[int, Window]]:
    """As `generate_transcripts`, window by window: yields a clip's index and next window as soon as it is decoded.

    The model may also be one in CTranslate2.

    Clips that fit the model's window are decoded by `generate`, a window each; longer ones, and all clips if times are
    wanted, by Whisper's sequential decoding, which moves its window along the predicted times. At true length, clips
    of about the same length are decoded together.
    """
    options = options or GenerationOptions()
    check_prompt(model.generation_config, options.language, options.task)
    window = window_seconds(model, processor) * SAMPLING_RATE
    timed = options.timestamps or options.word_timestamps
    short = [index for index, clip in enumerate(clips) if len(clip) <= window and not timed]
    moving = [index for index, clip in enumerate(clips) if len(clip) > window or timed]
    for indices, decode in ((short, _decode_whole), (moving, _decode_moving)):
        contexts = [_context(model, processor, clips[index]) for index in indices]
        for places in context_batches(model, contexts, options.batch_size):
            batch = [indices[place] for place in places]
            for row, found in decode(model, processor, [clips[index] for index in batch], options):
                yield batch[row], found


def check_prompt(config: GenerationConfig, language: str | None, task: str) -> None:
    """Check that a model's generation config knows a language and a task.

    Raises:
        InputError: if it does not; the message names what it knows.
    """
    if task not in TASKS:
        raise InputError(f"there is no task {task!r}; the tasks are {' and '.join(TASKS)}")
    code, known = language_code(language), known_languages(config)
    if not known and code not in (None, "en"):
        raise InputError(f"the model only transcribes English, not {language!r}")
    if not known and task != "transcribe":
        raise InputError(f"the model only transcribes English: there is nothing to {task}")
    if known and code is not None and code not in known:
        raise InputError(f"the model has no language {language!r}; it has {', '.join(sorted(known))}")


def spoken_language(config: GenerationConfig, language: str | None) -> str | None:
    """The code of the language that a model will write: the one given, or its own; `None` if it is detected."""
    if not known_languages(config):
        return "en"
    return language_code(language or getattr(config, "language", None))


def known_languages(config: GenerationConfig) -> list[str]:
    """Codes of a multilingual model's languages; none for an English-only model, whose prompt names no language."""
    if not getattr(config, "is_multilingual", True):
        return []
    return [token.removeprefix("<|").removesuffix("|>") for token in getattr(config, "lang_to_id", None) or {}]


def _decode_whole(
    model: AnyWhisper,
    processor: WhisperProcessor,
    clips: list[Clip],
    options: GenerationOptions,
) -> Iterator[tuple[int, Window]]:
    """One call of `generate` for clips that fit the window; text only."""
    extractor = processor.feature_extractor
    contexts = [_context(model, processor, clip) for clip in clips]
    features = stacked(
        [context_features(clip, extractor, frames) for clip, frames in zip(clips, contexts, strict=True)]
    )
    if isinstance(model, CTranslate2Whisper):
        languages, sequences = _text_of_ctranslate2(model, features, contexts, options)
    else:
        languages, sequences = _text_of_transformers(model, features, contexts, options)
    kinds = TokenKinds(processor.tokenizer)
    for row, (clip, language, tokens) in enumerate(zip(clips, languages, sequences, strict=True)):
        text, duration = kinds.text(tokens), len(clip) / SAMPLING_RATE
        segments = [Segment(text, 0.0, duration)] if text else []
        yield row, Window(tokens, segments, language, duration)


def _text_of_ctranslate2(
    model: CTranslate2Whisper, features: torch.Tensor, contexts: list[int], options: GenerationOptions
) -> tuple[list[str | None], list[list[int]]]:
    """Languages and token ids of a batch."""
    config = model.generation_config
    encoded = model.encode(features)
    languages = _languages(model, encoded, [], options)
    prompts = [[*_prompt(config, language, options.task), config.no_timestamps_token_id] for language in languages]
    # Clips of different contexts are never in one batch.
    found = model.generate(encoded, prompts, options.num_beams, most_tokens=most_tokens(model, contexts[0]))
    return languages, [each.tokens for each in found]


def _text_of_transformers(
    model: WhisperForConditionalGeneration, features: torch.Tensor, contexts: list[int], options: GenerationOptions
) -> tuple[list[str | None], list[list[int]]]:
    """Languages and token ids of a batch."""
    config = model.generation_config
    inputs: dict[str, Any] = {}
    if is_true_length(model):
        # The model would look for the end itself, and cut off a clip's own silence. Without times there is one window;
        # where a model writes some all the same, `generate` would go on behind them, with what this is not true of.
        inputs.update(context_frames=torch.tensor(contexts), force_unique_generate_call=True)
    # Which beam is best depends on where all of them end: for a row it would be another one in another batch.
    most = model.config.max_target_positions
    limits = [most_tokens(model, context) if options.num_beams == 1 else most for context in contexts]
    if config.max_new_tokens is None:
        # By default transformers stops after 20 tokens.
        inputs["max_length"] = min(max(limits), config.max_length or most)
    with _evaluating(model):
        batch = features.to(model.device, model.dtype)
        languages = _languages(model, batch, contexts, options)
        if known_languages(config):
            inputs.update(language=languages, task=options.task)
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(options.seed)
            sequences = model.generate(
                input_features=batch, return_timestamps=False, num_beams=options.num_beams, **inputs
            )
    # A row must not have more for a longer one beside it.
    return languages, [ids[:limit] for ids, limit in zip(sequences.tolist(), limits, strict=True)]


def _decode_moving(
    model: AnyWhisper,
    processor: WhisperProcessor,
    clips: list[Clip],
    options: GenerationOptions,
) -> Iterator[tuple[int, Window]]:
    """Whisper's sequential decoding, with the fallback on temperatures; text, segments and, if asked for, words."""
    kinds = TokenKinds(processor.tokenizer)
    extractor = processor.feature_extractor
    contexts = [_context(model, processor, clip) for clip in clips]
    features = [RecordingFeatures(clip, extractor, frames) for clip, frames in zip(clips, contexts, strict=True)]
    with _evaluating(model):
        first = stacked([each.window(0, frames) for each, frames in zip(features, contexts, strict=True)])
        languages = _languages(model, first, contexts, options)
    moving = [
        MovingClip(each, _prompt(model.generation_config, language, options.task))
        for each, language in zip(features, languages, strict=True)
    ]
    fallback = Fallback(options.temperatures, options.num_beams, options.seed)
    decoder: SequentialDecoder
    if isinstance(model, CTranslate2Whisper):
        decoder = CTranslate2Decoder(model, kinds, fallback, options.word_timestamps)
    else:
        decoder = SequentialDecoder(model, kinds, fallback, options.word_timestamps)
    while waiting := [row for row, clip in enumerate(moving) if not clip.is_done]:
        with _evaluating(model):
            decoded = decoder.decode_windows([moving[row] for row in waiting])
        for row, found in zip(waiting, decoded, strict=True):
            segments = [_segment(processor, kinds, piece, languages[row]) for piece in found]
            yield (
                row,
                Window(
                    [token for piece in found for token in piece.tokens],
                    [segment for segment in segments if segment.text],
                    languages[row],
                    moving[row].position / FRAMES_PER_SECOND,
                ),
            )


@contextmanager
def _evaluating(model: AnyWhisper) -> Iterator[None]:
    """Evaluation mode; the previous mode is restored afterwards."""
    if isinstance(model, CTranslate2Whisper):  # which has no other
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _context(model: AnyWhisper, processor: WhisperProcessor, clip: Clip) -> int:
    """Feature frames that the model is given of a clip, or of its first window."""
    return context_of(model, sample_frames(len(clip), processor.feature_extractor))


@torch.no_grad()
def _languages(
    model: AnyWhisper, features: torch.Tensor, contexts: list[int], options: GenerationOptions
) -> list[str | None]:
    """Codes of the languages of a batch, detected in its first window unless given.

    For CTranslate2 `features` may also be what it made of them.
    """
    config: Any = model.generation_config
    language = spoken_language(config, options.language)
    if language is not None or not known_languages(config):
        return [language] * len(features)
    if isinstance(model, CTranslate2Whisper):
        return list(model.languages(features))
    features = features.to(model.device, model.dtype)
    table: dict[str, int] = config.lang_to_id
    names = {token_id: token.removeprefix("<|").removesuffix("|>") for token, token_id in table.items()}
    heard: dict[str, Any] = {"input_features": features, "num_segment_frames": features.shape[-1]}
    if is_true_length(model):
        heard = {"encoder_outputs": model.model.encoder(features, context_frames=contexts)}
    found = model.detect_language(generation_config=config, **heard)
    return [names[token_id] for token_id in found.tolist()]


def _prompt(config: Any, language: str | None, task: str) -> list[int]:
    """The ids after which a text with times begins."""
    start = [config.decoder_start_token_id]
    if not known_languages(config):
        return start
    return [*start, config.lang_to_id[f"<|{language}|>"], config.task_to_id[task]]


def _segment(processor: WhisperProcessor, kinds: TokenKinds, piece: Piece, language: str | None) -> Segment:
    segment = Segment(kinds.text(piece.tokens), piece.start, piece.end)
    if not piece.times:
        return segment
    return replace(segment, words=words(processor.tokenizer, piece.text_tokens, piece.times, segment, language))
