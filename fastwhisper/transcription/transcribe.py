"""`fastwhisper.transcribe`: the text of a recording, in Python."""

import os
from collections.abc import Sequence
from typing import TypeAlias

from transformers import WhisperProcessor

from ..data.audio import SAMPLING_RATE, AudioSource, Samples, audio_source
from ..data.stored_audio import store_audio
from ..errors import InputError
from ..modeling.whisper_generation_config import complete_generation_config
from .checkpoints import load_checkpoint
from .ctranslate2_whisper import AnyWhisper, is_ctranslate2, load_ctranslate2
from .decoding import GenerationOptions, check_prompt, decode_windows, window_seconds
from .token_kinds import TokenKinds
from .transcripts import Transcription

Checkpoint: TypeAlias = str | os.PathLike | tuple[AnyWhisper, WhisperProcessor]
ENGINES = ("transformers", "ctranslate2")


def transcribe(
    audio: AudioSource | Samples | tuple[Samples, int],
    model: Checkpoint,
    *,
    language: str | None = None,
    task: str = "transcribe",
    timestamps: bool = False,
    word_timestamps: bool = False,
    num_beams: int = 1,
    temperatures: Sequence[float] = GenerationOptions.temperatures,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    engine: str = "transformers",
) -> Transcription:
    r"""Transcribe a recording of any length with a Whisper or a student of one.

    The audio is read and the model loaded at once; decoding starts when the result is read, and goes window by
    window (30 s of audio). The text is that of transformers' own `generate`.

    ```python
    speech = fastwhisper.transcribe("talk.flac", model="openai/whisper-small", word_timestamps=True)
    for segment in speech.segments:
        print(segment.start, segment.end, segment.text, [word.text for word in segment.words])
    print(speech.language, speech.duration, speech.text)
    ```

    Args:
        audio (`AudioSource`, `np.ndarray`, `torch.Tensor` or `tuple`):
            Anything that [`load_audio`] reads: a path, the bytes of a file, a dictionary with `array` and
            `sampling_rate`; just samples, assumed to be at 16 kHz; or samples and their sampling rate.
        model (`str`, `os.PathLike` or `tuple[AnyWhisper, WhisperProcessor]`):
            Name on the Hub or folder; for several recordings the pair that [`load_checkpoint`] or [`load_ctranslate2`]
            returns, so that it is loaded once.
        language (`str`, *optional*):
            Code or English name; by default the model's own, or auto-detected.
        task (`str`, *optional*, defaults to `"transcribe"`):
            `transcribe`, or `translate` into English.
        timestamps (`bool`, *optional*, defaults to `False`):
            Let the model cut its text into segments with times. Without it, audio that fits one window is a single
            segment; longer audio always has them.
        word_timestamps (`bool`, *optional*, defaults to `False`):
            Give times of words, and so of segments.
        num_beams (`int`, *optional*, defaults to 1):
            Beams; 1 is greedy.
        temperatures (`Sequence[float]`, *optional*, defaults to 0.0 to 1.0 in steps of 0.2):
            If segments have times, the next is tried if the text repeats itself or is improbable.
        seed (`int`, *optional*, defaults to 0):
            Seed for sampling at temperatures above 0.
        device, dtype, trust_remote_code (*optional*):
            As for [`load_checkpoint`] or [`load_ctranslate2`], if `model` is a name or folder.
        engine (`str`, *optional*, defaults to `"transformers"`):
            Or `ctranslate2`, for a folder that `fastwhisper export --to ctranslate2` wrote.

    Returns:
        [`Transcription`]: `segments`, decoded as they are read; `text`, `language`, `duration`.

    Raises:
        InputError: for audio, a model or an option that cannot be used.
    """
    options = GenerationOptions(
        language=language,
        task=task,
        timestamps=timestamps,
        word_timestamps=word_timestamps,
        num_beams=num_beams,
        temperatures=tuple(temperatures),
        seed=seed,
    )
    samples = store_audio(audio_source(audio))
    whisper, processor = load_pair(model, device, dtype, trust_remote_code, engine)
    check_prompt(whisper.generation_config, language, task)
    window_seconds(whisper, processor)
    windows = (window for _, window in decode_windows(whisper, processor, [samples], options))
    return Transcription(windows, TokenKinds(processor.tokenizer), len(samples) / SAMPLING_RATE)


def load_pair(
    model: Checkpoint,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    engine: str = "transformers",
) -> tuple[AnyWhisper, WhisperProcessor]:
    """A model and its processor, loaded unless they are given; a generation config is completed if needed.

    Raises:
        InputError: for a checkpoint that cannot be loaded, an unknown engine, or for a device or dtype with a loaded
            model.
    """
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if isinstance(model, str | os.PathLike):
        if engine == "ctranslate2":
            return load_ctranslate2(model, device, dtype)
        if is_ctranslate2(model):
            raise InputError(f"{model} holds a model of CTranslate2: add --engine ctranslate2")
        return load_checkpoint(os.fspath(model), device, dtype, trust_remote_code)
    if device is not None or dtype is not None:
        raise InputError("device and dtype only apply to a model given by name; a loaded model has its own")
    whisper, processor = model
    complete_generation_config(whisper.generation_config, whisper.config, processor.tokenizer)
    return whisper, processor
