"""Synthetic speech: eSpeak NG voices through the shared library of the `espeakng-loader` wheel (extra `demo`).

eSpeak NG is a formant synthesiser: its voices can prove that a pipeline works, but do not replace human speakers.
"""

import ctypes
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..data.timestamps import RESOLUTION, timestamp_token
from ..modeling.waveforms import SAMPLING_RATE, mono_samples

ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
TRAINING_VARIANTS = [
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m8",
    "f1",
    "f2",
    "f3",
    "f4",
    "Alex",
    "Andy",
    "Lee",
    "Mike",
    "Storm",
    "adam",
    "antonio",
    "belinda",
    "benjamin",
    "caleb",
    "david",
    "edward",
    "grandma",
    "iven",
    "linda",
    "marcelo",
    "michel",
    "pablo",
    "paul",
    "robert",
    "sandro",
    "steph",
    "travis",
    "victor",
]
HELD_OUT_VARIANTS = ["m7", "Gene", "Hugo", "Jacky", "anika", "max", "quincy", "shelby"]
# Their breath is random: no two processes get the same samples from these voices.
BREATHING_VARIANTS = frozenset(("f2", "f3", "sandro", "victor"))

# Constants of espeak-ng's speak_lib.h
_SYNCHRONOUS_OUTPUT = 2
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SpeechSynthesisError(RuntimeError):
    """eSpeak NG is missing, or refused a voice or a text."""


@dataclass(frozen=True)
class SyntheticVoice:
    """A voice of eSpeak NG.

    Args:
        accent (`str`): language or accent, such as `en-us`.
        variant (`str`): speaker variant, such as `f3`.
        rate (`int`, *optional*, defaults to 175): words per minute.
        pitch (`int`, *optional*, defaults to 50): base pitch, 0 to 99.
        pitch_range (`int`, *optional*, defaults to 50): intonation range, 0 (monotone) to 99.
    """

    accent: str
    variant: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50


def sample_voice(rng: random.Random, variants: list[str]) -> SyntheticVoice:
    """A voice with a random rate, pitch and range, its accent drawn from `ACCENTS`, its speaker from `variants`."""
    return SyntheticVoice(
        accent=rng.choice(ACCENTS),
        variant=rng.choice(variants),
        rate=rng.randint(165, 240),
        pitch=rng.randint(25, 75),
        pitch_range=rng.randint(30, 70),
    )


class EspeakSynthesizer:
    """The process-wide eSpeak NG engine; use `synthesizer()` to get it.

    Raises:
        SpeechSynthesisError: if the wheel `espeakng-loader` is not installed or the engine does not start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise SpeechSynthesisError(
                'synthetic speech needs the eSpeak NG library: pip install "fastwhisper[demo]"'
            ) from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._sampling_rate = self._library.espeak_Initialize(
            _SYNCHRONOUS_OUTPUT, 0, espeakng_loader.get_data_path().encode(), 0
        )
        if self._sampling_rate <= 0:
            raise SpeechSynthesisError("eSpeak NG did not start: its voice data could not be read")
        self._blocks: list[np.ndarray] = []
        # ctypes does not keep a callback alive; the attribute does.
        self._callback = _SynthCallback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def speak(self, text: str, voice: SyntheticVoice) -> np.ndarray:
        """Speak `text`: float32 samples at 16 kHz, leading and trailing silence removed.

        Raises:
            SpeechSynthesisError: if the voice does not exist or nothing was spoken.
        """
        import soxr

        name = f"{voice.accent}+{voice.variant}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise SpeechSynthesisError(f"eSpeak NG has no voice {name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks.clear()
        encoded = text.encode()
        status = self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        if status != 0 or not self._blocks:
            raise SpeechSynthesisError(f"eSpeak NG could not speak {text!r} with voice {name!r}")
        samples = mono_samples(np.concatenate(self._blocks))
        return trim_silence(soxr.resample(samples, self._sampling_rate, SAMPLING_RATE))


@cache
def synthesizer() -> EspeakSynthesizer:
    """The one engine of this process: the library keeps global state."""
    return EspeakSynthesizer()


def trim_silence(samples: np.ndarray, threshold: float = 0.005) -> np.ndarray:
    """Cut leading and trailing samples below `threshold` (amplitude, full scale 1)."""
    loud = np.flatnonzero(np.abs(samples) > threshold)
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


def add_noise(samples: np.ndarray, signal_to_noise_db: float, generator: np.random.Generator) -> np.ndarray:
    """Add noise, half white and half pink in amplitude, at a ratio in decibels over the whole clip."""
    white = generator.standard_normal(samples.size)
    spectrum = np.fft.rfft(generator.standard_normal(samples.size))
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(spectrum.size) + 1.0), samples.size)
    noise = white / white.std() + pink / pink.std()
    signal_power = np.mean(np.square(samples, dtype=np.float64))
    scale = np.sqrt(signal_power / np.mean(np.square(noise)) / 10 ** (signal_to_noise_db / 10))
    return (samples + scale * noise).astype(np.float32)


@dataclass(frozen=True)
class SyntheticClip:
    """A clip of synthetic speech.

    Args:
        samples (`np.ndarray`): float32 samples at 16 kHz.
        text (`str`): what is said.
        timestamped_text (`str`): the same with Whisper's timestamp tokens, times rounded to 0.02 s.
        speaker (`str`): the speaker variant.
    """

    samples: np.ndarray
    text: str
    timestamped_text: str
    speaker: str


def compose_clip(
    sample_text: Callable[[random.Random], str],
    seed: int,
    variants: list[str],
    max_seconds: float,
    signal_to_noise_db: tuple[float, float] = (10.0, 40.0),
    several: bool = True,
    room: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
) -> SyntheticClip:
    """Speak one to three texts in one voice, with pauses and noise, in at most `max_seconds`.

    With `several`, one clip in three goes on to the full length: more texts follow while they fit, and the one
    that does not fit is cut at the end of the clip and transcribed as Whisper does, by its opening timestamp only.

    Args:
        sample_text (`Callable`): draws a text from a `random.Random`, for example `sample_command`.
        seed (`int`): fixes text, voice, pauses and noise.
        variants (`list[str]`): speaker variants to draw from.
        max_seconds (`float`): longest clip, usually the window of the model.
        signal_to_noise_db (`tuple[float, float]`): range of the noise.
        several (`bool`, *optional*, defaults to `True`): allow more than one text per clip.
        room (`Callable`, *optional*): makes of samples what is heard of them, for example [`reverberate`].
    """
    rng, generator = random.Random(seed), np.random.default_rng(seed)
    voice = sample_voice(rng, variants)
    fill = several and rng.random() < 1 / 3
    limit = round(max_seconds * SAMPLING_RATE)
    pieces: list[np.ndarray] = []
    texts: list[str] = []
    stamped: list[str] = []
    position = 0
    while True:
        pause = np.zeros(_whole_frames(rng.uniform(0.02, 0.5)), np.float32)
        text = sample_text(rng)
        speech = synthesizer().speak(text, voice)
        start, end = position + pause.size, position + pause.size + speech.size
        if end > limit and not texts:
            continue  # too long for the window in this voice: draw a shorter text
        pieces += [pause, speech]
        position = end
        if end > limit:
            if start < limit:
                stamped.append(timestamp_token(start / SAMPLING_RATE))
            break
        texts.append(text)
        stamped.append(f"{timestamp_token(start / SAMPLING_RATE)} {text}{timestamp_token(end / SAMPLING_RATE)}")
        if not fill:
            pieces.append(np.zeros(min(limit - end, _whole_frames(rng.uniform(0.0, 0.4))), np.float32))
            break
    samples = np.concatenate(pieces)[:limit] * rng.uniform(0.2, 1.0)
    if room is not None:
        samples = room(samples, generator)
    samples = add_noise(samples, rng.uniform(*signal_to_noise_db), generator)
    return SyntheticClip(samples, " ".join(texts), "".join(stamped), voice.variant)


def _whole_frames(seconds: float) -> int:
    """Samples of the nearest time that has a timestamp."""
    return round(seconds / RESOLUTION) * round(RESOLUTION * SAMPLING_RATE)
