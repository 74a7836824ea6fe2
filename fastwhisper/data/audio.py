"""From any audio source to mono float32 samples: soundfile decodes, soxr resamples."""

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Protocol, TypeAlias, runtime_checkable

import numpy as np
import psutil
import soundfile
import soxr
import torch

from ..errors import InputError
from ..modeling.waveforms import SAMPLING_RATE, check_loudness, mono_samples

AUDIO_SUFFIXES = frozenset(
    (".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf")
    + (".w64", ".rf64", ".sph")
)
RAW_SUFFIXES = frozenset((".raw", ".pcm"))
# Audio and video that libsndfile does not read.
UNREADABLE_SUFFIXES = RAW_SUFFIXES | {
    *(".m4a", ".m4b", ".aac", ".mp4", ".wma", ".amr", ".webm", ".weba", ".mka", ".mkv", ".mov", ".avi", ".3gp"),
    *(".ac3", ".ape", ".wv", ".spx", ".ra", ".dsf", ".tta"),
}
# A header with another rate is broken; at 1 Hz a megabyte would be resampled to hours.
SAMPLING_RATES = (1_000, 1_000_000)
_BLOCK_SAMPLES = 2**18
# libsndfile's length of a FLAC written to a pipe, whose header does not know it.
_UNKNOWN_LENGTH = 2**63 - 1
# Integer and lossy formats cannot store NaN: only these must be decoded to be sure.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")


class EmptyAudioError(InputError):
    """Audio without a single sample at the requested rate."""


@runtime_checkable
class AudioDecoder(Protocol):
    """What `torchcodec.decoders.AudioDecoder` offers, and the column of `datasets.Audio` that decodes with it."""

    def get_all_samples(self) -> Any: ...


@runtime_checkable
class _Readable(Protocol):
    def read(self) -> bytes: ...


AudioSource: TypeAlias = (
    str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | Mapping[str, Any] | AudioDecoder
)
Samples: TypeAlias = np.ndarray | torch.Tensor


def audio_source(audio: AudioSource | Samples | tuple[Samples, int]) -> AudioSource:
    """What [`load_audio`] reads, of samples alone, which are taken to be at 16 kHz, and of samples and their rate.

    Raises:
        InputError: for any other tuple.
    """
    if isinstance(audio, np.ndarray | torch.Tensor):
        audio = (audio, SAMPLING_RATE)
    if not isinstance(audio, tuple):
        return audio
    if len(audio) != 2:
        raise InputError(f"a tuple of audio is (samples, sampling rate), not {len(audio)} values")
    samples, sampling_rate = audio
    return {"array": samples, "sampling_rate": sampling_rate}


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
        EmptyAudioError: for audio without samples; also an `InputError`.
        InputError: for audio that cannot be read or has samples that are NaN, infinite or not audio; the message names
            the file.
    """
    held, read = bytearray(), False
    for samples in resampled_blocks(source, sampling_rate):
        read = True
        try:
            held += samples.data
            # What is made of the samples takes as much again.
            fits = len(held) < psutil.virtual_memory().available
        except MemoryError:
            fits = False
        if not fits:
            seconds = len(held) / samples.itemsize / sampling_rate
            del held
            raise InputError(
                f"{describe_audio(source)} is too long for the memory of this machine: {seconds / 3600:.2f} hours of "
                "it are read, and there is more; cut it into parts"
            )
    if not held:
        raise empty_audio(source, read, sampling_rate)
    return np.frombuffer(held, np.float32)


def empty_audio(source: AudioSource, had_samples: bool, sampling_rate: int) -> EmptyAudioError:
    """The error for audio of which no samples are left, and which had some or not before it was resampled."""
    none_left = f": nothing is left of it at {sampling_rate} Hz" if had_samples else ": it has no samples"
    return EmptyAudioError(f"{describe_audio(source)} is empty{none_left}")


def resampled_blocks(source: AudioSource, sampling_rate: int = SAMPLING_RATE) -> Iterator[np.ndarray]:
    """As `decoded_blocks`, resampled to one rate; the last block may have no samples.

    Raises:
        InputError: as `decoded_blocks`.
    """
    resampler = None
    for samples, rate in decoded_blocks(source):
        if rate == sampling_rate:
            yield samples
            continue
        resampler = resampler or soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32")
        yield resampler.resample_chunk(samples)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def decoded_blocks(source: AudioSource) -> Iterator[tuple[np.ndarray, int]]:
    """Mono float32 blocks `(samples,)` of audio in order, each with the sampling rate of the source; none for
    empty audio. Files are read as needed.

    Raises:
        InputError: for audio that cannot be read or has samples that are NaN, infinite or not audio; the message names
            the file.
    """
    if _holds_samples(source):
        samples, sampling_rate = _held_samples(source)
        if samples.size:
            yield samples, sampling_rate
        return
    name = describe_audio(source)
    try:
        with _ForwardFile(_open(source)) as file:
            sampling_rate, frames = _checked_rate(file.samplerate, name), 0
            size = max(1, _BLOCK_SAMPLES // file.channels)
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                frames += len(block)
                yield _averaged(block, name), sampling_rate
            # Of the other formats libsndfile believes the length of the file, or only estimates.
            if file.format == "FLAC" and frames < file.frames < _UNKNOWN_LENGTH:
                raise InputError(
                    f"{name} is cut off: its header promises {file.frames / sampling_rate:.2f} s, but it ends after "
                    f"{frames / sampling_rate:.2f} s"
                )
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(source, error) from error


def decoded_duration(source: AudioSource) -> float:
    """Seconds of audio, found by decoding all of it block by block; 0 for empty audio.

    Raises:
        InputError: as `load_audio`, whatever the header says.
    """
    return sum(block.size / sampling_rate for block, sampling_rate in decoded_blocks(source))


def audio_duration(source: AudioSource) -> float:
    """Seconds of audio by its header, decoded only if the header does not say; 0 for empty audio.

    Raises:
        InputError: for audio that cannot be read; the message names the file.
    """
    if _holds_samples(source):
        samples, sampling_rate = _held_samples(source)
        return samples.size / sampling_rate
    header = _header(source)
    return decoded_duration(source) if header.frames == _UNKNOWN_LENGTH else header.duration


def check_audio(source: AudioSource) -> float:
    """As `audio_duration`, but also finds NaN and infinite samples in formats that can hold them.

    Raises:
        InputError: for audio that cannot be read or has samples that are NaN or infinite; the message names the file.
    """
    if _holds_samples(source):
        return audio_duration(source)
    header = _header(source)
    if header.frames == _UNKNOWN_LENGTH:
        return decoded_duration(source)
    if header.duration and header.subtype in _FLOAT_SUBTYPES:
        decoded_duration(source)
    return header.duration


def describe_audio(source: AudioSource) -> str:
    """A name for messages: the path if there is one."""
    if isinstance(source, Mapping):
        path = source.get("path")
        return str(path) if path else "the audio in memory"
    if isinstance(source, str | os.PathLike):
        return str(source)
    in_memory = isinstance(source, bytes | bytearray | memoryview | AudioDecoder)
    return "the audio in memory" if in_memory else "the audio stream"


def audio_path(source: AudioSource) -> str | None:
    """The local file that holds the audio; `None` if it is in memory or on another machine."""
    path: Any = source
    if isinstance(source, Mapping):
        path = source.get("path") if source.get("bytes") is None and not _holds_samples(source) else None
    return os.fspath(path) if isinstance(path, str | os.PathLike) and os.path.isfile(path) else None


class _ForwardFile(soundfile.SoundFile):
    """A file read from start to end.

    If a file can seek, soundfile looks up its position before and after each block, which takes time and fails at the
    end of a FLAC of unknown length.
    """

    def seekable(self) -> bool:
        return False


class _Content(io.BytesIO):
    """The bytes of a file. Broken headers send libsndfile to places before its start: it stays where it is, as in a
    file, in place of an error that a callback of C would print with its traceback."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _holds_samples(source: AudioSource) -> bool:
    return isinstance(source, AudioDecoder) or (isinstance(source, Mapping) and source.get("array") is not None)


def _held_samples(source: Any) -> tuple[np.ndarray, int]:
    """Mono float32 samples of an array or a decoder, and their sampling rate."""
    name = describe_audio(source)
    if isinstance(source, AudioDecoder):
        try:
            decoded = source.get_all_samples()
        except RuntimeError as error:  # the only exception that torchcodec raises
            raise _unreadable(source, error) from error
        return _checked(decoded.data, name), _checked_rate(decoded.sample_rate, name)
    if source.get("sampling_rate") is None:
        raise InputError(f"{name} has an array but no sampling_rate")
    return _checked(source["array"], name), _checked_rate(source["sampling_rate"], name)


def _averaged(block: np.ndarray, name: str) -> np.ndarray:
    """The mean of the channels `(frames, channels)`; loud ones could cancel each other out, so it is late to look."""
    try:
        check_loudness(block, name)
    except ValueError as error:
        raise InputError(str(error)) from error
    return block.mean(axis=1, dtype=np.float32)


def _checked(samples: Any, name: str) -> np.ndarray:
    try:
        return mono_samples(samples, name)
    except ValueError as error:
        raise InputError(str(error)) from error


def _checked_rate(rate: Any, name: str) -> int:
    lowest, highest = SAMPLING_RATES
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if not lowest <= whole <= highest:
        raise InputError(f"{name} has a sampling rate of {rate}: it must be from {lowest} to {highest} Hz")
    return whole


def _header(source: AudioSource) -> Any:
    position = source.tell() if isinstance(source, io.IOBase) else 0
    try:
        header = soundfile.info(_open(source))
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(source, error) from error
    finally:
        if isinstance(source, io.IOBase):
            source.seek(position)
    _checked_rate(header.samplerate, describe_audio(source))
    return header


def _open(source: AudioSource) -> str | bytes | io.BytesIO:
    """What soundfile can read: a local path, or a whole file in memory."""
    if source is None:
        raise InputError("a row has no audio")
    if isinstance(source, Mapping):
        if source.get("bytes") is None and source.get("path") is None:
            raise InputError(f"audio needs 'bytes', 'path' or 'array'; this has {', '.join(source) or 'nothing'}")
        source = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(source, _Readable):
        source = source.read()
        if isinstance(source, str):
            raise InputError("the audio stream is in text mode: open it in binary mode")
    if isinstance(source, bytes | bytearray | memoryview):
        return _Content(source)
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a {type(source).__name__} is not audio: give a path, bytes, or 'array' and 'sampling_rate'")
    path = os.fspath(source)
    if "://" in path:
        return _download(path)
    if not os.path.isfile(path):
        raise InputError(f"there is no audio file {path}")
    if os.path.splitext(path)[1].lower() in RAW_SUFFIXES:
        raise InputError(f"{path} holds raw samples of unknown rate and type: convert it to WAV or FLAC")
    # soundfile encodes a name itself, and fails if it is not text.
    return path if os.name == "nt" else os.fsencode(path)


def _download(address: str) -> io.BytesIO:
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            return _Content(file.read())
    except (ValueError, ImportError) as error:  # no such protocol, or its package is not installed
        raise _unreadable(address, error) from error


def _unreadable(source: AudioSource, error: Exception) -> InputError:
    # libsndfile's full message repeats the name, or says where in memory the bytes are.
    reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return InputError(f"{describe_audio(source)} cannot be read as audio: {' '.join(reason.split())}")
