"""From any audio source to mono float32 samples: soundfile decodes, soxr resamples."""

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol, TypeAlias, runtime_checkable

import numpy as np
import soundfile
import soxr

from ..errors import InputError

SAMPLING_RATE = 16_000
AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
)
# Integer and lossy formats cannot store NaN: only these have to be decoded to be sure.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")


@runtime_checkable
class AudioDecoder(Protocol):
    """What `torchcodec.decoders.AudioDecoder` offers, and the column of `datasets.Audio` that decodes with it."""

    def get_all_samples(self) -> Any: ...


@runtime_checkable
class _Readable(Protocol):
    def read(self) -> bytes: ...


AudioSource: TypeAlias = str | os.PathLike | bytes | BinaryIO | Mapping[str, Any] | AudioDecoder


def load_audio(source: AudioSource, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    r"""Decode, average the channels and resample.

    Args:
        source (`AudioSource`):
            A path or an fsspec address, the bytes of an audio file, a binary file object, a dictionary with `bytes` or
            `path`, a dictionary with `array` and `sampling_rate`, or an audio decoder of `datasets`.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the result, in Hz.

    Returns:
        `np.ndarray`: float32 of shape `(samples,)`, full scale 1.

    Raises:
        InputError: for audio that cannot be read, has no samples, or has samples that are NaN or infinite; it names
            the file.
    """
    samples, source_rate = _decode(source)
    if not np.isfinite(samples).all():
        raise InputError(f"{describe_audio(source)} has samples that are NaN or infinite")
    if source_rate != sampling_rate:
        samples = soxr.resample(samples, source_rate, sampling_rate)
    if samples.size == 0:
        raise InputError(f"{describe_audio(source)} is empty: it has no samples")
    return samples


def audio_duration(source: AudioSource) -> float:
    """Seconds of audio by its header, without decoding; 0 for empty audio.

    Raises:
        InputError: for audio that cannot be read; it names the file.
    """
    if _holds_samples(source):
        samples, sampling_rate = _decode(source)
        return samples.size / sampling_rate
    return _header(source).duration


def check_audio(source: AudioSource) -> float:
    """As `audio_duration`, and finds NaN and infinite samples wherever the format could hold them.

    Raises:
        InputError: for audio that cannot be read or has samples that are NaN or infinite; it names the file.
    """
    duration = audio_duration(source)
    if duration and (_holds_samples(source) or _header(source).subtype in _FLOAT_SUBTYPES):
        load_audio(source)
    return duration


def describe_audio(source: AudioSource) -> str:
    """A name for messages: the path where there is one."""
    if isinstance(source, Mapping):
        path = source.get("path")
        return str(path) if path else "the audio in memory"
    if isinstance(source, str | os.PathLike):
        return str(source)
    return "the audio in memory" if isinstance(source, bytes | AudioDecoder) else "the audio stream"


def audio_path(source: AudioSource) -> str | None:
    """The local file that holds the audio; `None` where it is in memory or on another machine."""
    path: Any = source
    if isinstance(source, Mapping):
        path = source.get("path") if source.get("bytes") is None and "array" not in source else None
    return os.fspath(path) if isinstance(path, str | os.PathLike) and os.path.isfile(path) else None


def _holds_samples(source: AudioSource) -> bool:
    return isinstance(source, AudioDecoder) or (isinstance(source, Mapping) and "array" in source)


def _decode(source: AudioSource) -> tuple[np.ndarray, int]:
    """Mono float32 samples and their sampling rate."""
    if isinstance(source, AudioDecoder):
        decoded = source.get_all_samples()
        return _mono(np.asarray(decoded.data)), int(decoded.sample_rate)
    if isinstance(source, Mapping) and "array" in source:
        return _mono(np.asarray(source["array"])), int(source["sampling_rate"])
    try:
        samples, sampling_rate = soundfile.read(_open(source), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(source, error) from error
    return samples.mean(axis=1, dtype=np.float32), sampling_rate


def _mono(samples: np.ndarray) -> np.ndarray:
    """Signed integers scaled to full scale 1; the shorter of two axes is taken for the channels."""
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.ndim > 1:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    return samples.astype(np.float32)


def _header(source: AudioSource) -> Any:
    position = source.tell() if isinstance(source, io.IOBase) else 0
    try:
        return soundfile.info(_open(source))
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(source, error) from error
    finally:
        if isinstance(source, io.IOBase):
            source.seek(position)


def _open(source: AudioSource) -> str | io.BytesIO:
    """What soundfile can read: a local path, or the whole of a file in memory."""
    if source is None:
        raise InputError("a row has no audio")
    if isinstance(source, Mapping):
        if source.get("bytes") is None and source.get("path") is None:
            raise InputError(f"audio needs 'bytes', 'path' or 'array'; this one has {', '.join(source) or 'nothing'}")
        source = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, _Readable):
        return io.BytesIO(source.read())
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a {type(source).__name__} is no audio: give a path, bytes, or 'array' and 'sampling_rate'")
    path = os.fspath(source)
    if "://" in path:
        import fsspec

        with fsspec.open(path, "rb") as file:
            return io.BytesIO(file.read())
    if not os.path.isfile(path):
        raise InputError(f"there is no audio file {path}")
    return path


def _unreadable(source: AudioSource, error: Exception) -> InputError:
    return InputError(f"{describe_audio(source)} cannot be read as audio: {' '.join(str(error).split())}")
