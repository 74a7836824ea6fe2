"""Every kind of audio source, and every kind of bad audio."""

import io
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
import torch

from fastwhisper.data import audio
from fastwhisper.data.audio import (
    EmptyAudioError,
    audio_duration,
    audio_path,
    check_audio,
    decoded_duration,
    load_audio,
)
from fastwhisper.errors import InputError
from fastwhisper.evaluation.measurement import resident_growth

from ..sounds import tone, write_endless, write_nan, write_noise_bytes, write_tone

GROWTH = """
import sys
from fastwhisper.data.audio import load_audio
from fastwhisper.evaluation.measurement import resident_growth
print(resident_growth(lambda: load_audio(sys.argv[1])))
"""


@dataclass
class StandInDecoder:
    """As torchcodec's AudioDecoder: samples as (channels, samples)."""

    data: torch.Tensor
    sample_rate: int

    def get_all_samples(self):
        return self


def test_every_source_gives_the_same_samples(tmp_path):
    path = tmp_path / "a.wav"
    write_tone(path)
    encoded = path.read_bytes()
    expected = load_audio(path)
    assert expected.dtype == np.float32 and expected.shape == (8000,)
    np.testing.assert_allclose(expected, tone(), atol=1e-4)
    decoder = StandInDecoder(torch.from_numpy(expected)[None], 16_000)
    sources = [str(path), encoded, io.BytesIO(encoded), {"bytes": encoded, "path": "gone.wav"}, f"file://{path}"]
    sources += [{"bytes": None, "path": str(path)}, {"array": expected.tolist(), "sampling_rate": 16_000}, decoder]
    for source in sources:
        np.testing.assert_array_equal(load_audio(source), expected)
    for source in sources:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        assert audio_duration(source) == 0.5


def test_duration_leaves_a_file_object_where_it_was(tmp_path):
    with open(write_tone(tmp_path / "a.wav"), "rb") as file:
        assert audio_duration(file) == 0.5
        assert load_audio(file).size == 8000


def test_8_khz_is_resampled(tmp_path):
    samples = load_audio(write_tone(tmp_path / "a.wav", 1.0, sampling_rate=8000))
    assert samples.shape == (16_000,)
    np.testing.assert_allclose(samples[2000:-2000], tone(1.0)[2000:-2000], atol=1e-3)
    assert load_audio(tmp_path / "a.wav", 24_000).shape == (24_000,)


def test_stereo_is_averaged(tmp_path):
    left, right = tone(), tone(frequency=700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16_000)
    expected = (left + right) / 2
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), expected, atol=1e-4)
    for array in (np.stack([left, right]), np.stack([left, right], axis=1)):
        samples = load_audio({"array": array, "sampling_rate": 16_000})
        np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_integer_arrays_are_scaled():
    samples = load_audio({"array": np.array([0, 16384, -32768], dtype=np.int16), "sampling_rate": 16_000})
    np.testing.assert_array_equal(samples, np.array([0, 0.5, -1], dtype=np.float32))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "list"])
def test_a_column_of_integers(dtype):
    """As `datasets` gives a `List(int16)`: Python integers, whatever the column's type."""
    half, scale = (128, 128) if dtype == "uint8" else (32768, 32768) if dtype == "uint16" else (0, 32768)
    scale = 128 if dtype == "int8" else scale
    values = np.round(tone() * scale * 0.9) + half
    column = values.astype(int).tolist() if dtype == "list" else values.astype(dtype)
    samples = load_audio({"array": column, "sampling_rate": 16_000})
    np.testing.assert_allclose(samples, 0.9 * tone(), atol=1 / scale)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"array": np.zeros(9, bool), "sampling_rate": 16_000}, "in memory must be an array .* axes of bool"),
        ({"array": [0.1, None], "sampling_rate": 16_000, "path": "a.wav"}, "a.wav must be an array .* of object"),
        ({"array": np.zeros(9, complex), "sampling_rate": 16_000}, "axes of complex128"),
        ({"array": np.array([1000.0]), "sampling_rate": 16_000}, "float audio is between -1 and 1"),
        ({"array": [0.1]}, "an array but no sampling_rate"),
        ({"array": [0.1], "sampling_rate": 0}, "a sampling rate of 0"),
        ({"array": [0.1], "sampling_rate": "fast"}, "a sampling rate of fast"),
        (io.StringIO("text"), "open it in binary mode"),
        ("nothing://a/b.wav", "nothing://a/b.wav cannot be read as audio: Protocol not known"),
    ],
)
def test_what_is_no_audio(source, message):
    with pytest.raises(InputError, match=message):
        load_audio(source)


@pytest.mark.parametrize("name", ["a.raw", "a.RAW", "a.pcm"])
def test_raw_samples_are_refused_in_words(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(1000))
    for load in (load_audio, audio_duration, check_audio):
        with pytest.raises(InputError, match=f"{name} holds raw samples.*convert it to WAV or FLAC"):
            load(tmp_path / name)


FORMATS = [
    *(("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE")),
    *(("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16")),
    *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    *(("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16")),
]


def encoded(format, subtype, seconds=3.0):
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone(seconds)] * 2, axis=1), 16_000, format=format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_formats_read_in_blocks_as_soundfile_reads_them_at_once(format, subtype, monkeypatch):
    monkeypatch.setattr("fastwhisper.data.audio._BLOCK_SAMPLES", 2 * 7001)
    content = encoded(format, subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_allclose(load_audio(content), expected.mean(axis=1), atol=1e-6)
    assert decoded_duration(content) == len(expected) / 16_000
    assert decoded_duration(bytearray(content)) == decoded_duration(memoryview(content)) == decoded_duration(content)


def with_length(flac: bytes, samples: int) -> bytes:
    """A FLAC file whose header claims so many samples."""
    header = int.from_bytes(flac[18:26], "big") >> 36 << 36 | samples
    return flac[:18] + header.to_bytes(8, "big") + flac[26:]


def test_a_flac_that_was_written_to_a_pipe_does_not_know_its_length(tmp_path):
    (tmp_path / "a.flac").write_bytes(with_length(encoded("FLAC", "PCM_16"), 0))
    assert load_audio(tmp_path / "a.flac").size == 48_000
    assert audio_duration(tmp_path / "a.flac") == decoded_duration(tmp_path / "a.flac") == 3.0


def test_a_wav_that_was_written_to_a_pipe():
    wav = encoded("WAV", "PCM_16")
    place = wav.index(b"data") + 4
    assert load_audio(wav[:place] + b"\xff" * 4 + wav[place + 4 :]).size == 48_000


@pytest.mark.parametrize("load", [load_audio, decoded_duration])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda flac: flac[: len(flac) // 2],
        lambda flac: flac[:-100],
        lambda flac: flac[: len(flac) // 2] + bytes(500) + flac[len(flac) // 2 + 500 :],
        lambda flac: with_length(flac, 2**36 - 1),
        lambda flac: with_length(flac, 48_001),
    ],
    ids=["half", "no end", "zeros within", "claims months", "claims a sample too many"],
)
def test_broken_flac(tmp_path, load, spoil):
    (tmp_path / "a.flac").write_bytes(spoil(encoded("FLAC", "PCM_16")))
    with pytest.raises(
        InputError, match="a.flac (cannot be read as audio|is cut off: its header promises .* after 3.00)"
    ):
        load(tmp_path / "a.flac")


def test_a_header_with_an_absurd_rate(tmp_path):
    wav = encoded("WAV", "PCM_16")
    place = wav.index(b"fmt ") + 12
    (tmp_path / "a.wav").write_bytes(wav[:place] + b"\1\0\0\0" + wav[place + 4 :])
    for load in (load_audio, audio_duration):
        with pytest.raises(InputError, match="a.wav has a sampling rate of 1: it must be from 1000"):
            load(tmp_path / "a.wav")


def test_one_sample_at_48_khz_is_nothing_at_16(tmp_path):
    path = write_tone(tmp_path / "a.wav", 1 / 48_000, sampling_rate=48_000)
    with pytest.raises(EmptyAudioError, match="a.wav is empty: nothing is left of it at 16000 Hz"):
        load_audio(path)


class BrokenDecoder(StandInDecoder):
    def get_all_samples(self):
        raise RuntimeError("Could not decode: invalid data")


def test_a_decoder_that_fails(tmp_path):
    with pytest.raises(InputError, match="in memory cannot be read as audio: Could not decode"):
        load_audio(BrokenDecoder(torch.zeros(1, 9), 16_000))


@pytest.mark.parametrize("load", [load_audio, check_audio])
def test_bad_audio_is_named(tmp_path, load):
    for write, message in ((write_nan, "NaN"), (write_noise_bytes, "cannot be read as audio")):
        path = write(tmp_path / "bad.wav")
        with pytest.raises(InputError, match=f"bad.wav .*{message}"):
            load(path)
    with pytest.raises(InputError, match="no audio file .*missing.wav"):
        load(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="audio in memory has samples that are NaN"):
        load({"array": np.array([0, np.inf]), "sampling_rate": 16_000})
    with pytest.raises(InputError, match="a list is not audio"):
        load([0.0, 0.1])
    with pytest.raises(InputError, match="a row has no audio"):
        load(None)
    with pytest.raises(InputError, match="audio needs"):
        load({"bytes": None, "path": None})


def test_empty_audio(tmp_path):
    path = write_tone(tmp_path / "empty.wav", 0.0)
    assert audio_duration(path) == check_audio(path) == 0
    with pytest.raises(InputError, match="empty.wav is empty"):
        load_audio(path)
    with pytest.raises(InputError, match="is empty"):
        load_audio({"array": [], "sampling_rate": 16_000})


def test_path_is_that_of_a_local_file_alone(tmp_path):
    path = write_tone(tmp_path / "a.wav")
    assert audio_path(path) == audio_path({"bytes": None, "path": path}) == path
    assert audio_path({"bytes": b"RIFF", "path": path}) is None
    assert audio_path({"bytes": None, "path": "hf://datasets/a.wav"}) is None
    assert audio_path(b"RIFF") is None


def test_channels_that_cancel_each_other_out_are_no_audio(tmp_path):
    samples = np.stack([tone(), tone()], axis=1)
    samples[100] = [1e30, -1e30]
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    for load in (load_audio, check_audio, decoded_duration):
        with pytest.raises(InputError, match="a.wav has samples of 1e[+]30"):
            load(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_blocks_resample_as_the_whole_does(rate, monkeypatch):
    samples = np.random.default_rng(0).normal(0, 0.1, 100_003).astype(np.float32)
    whole = soxr.resample(samples, rate, 16_000)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 7_001)
    found = load_audio(file.getvalue())
    np.testing.assert_array_equal(found, whole)
    assert found.flags.writeable


def test_an_hour_takes_little_more_memory_than_its_samples(tmp_path):
    """230 MB at 16 kHz; read as a whole at 48 kHz and resampled as a whole it was 1.6 GB."""
    quarter = tmp_path / "a.flac"
    soundfile.write(quarter, np.zeros(48_000 * 900, np.int16), 48_000)
    # In a process of its own: what earlier tests freed decides where the allocator puts samples that grow.
    done = subprocess.run([sys.executable, "-c", GROWTH, quarter], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.4 * 4 * 16_000 * 900


def test_audio_beyond_the_memory_is_refused_in_words(tmp_path, monkeypatch):
    path = write_tone(tmp_path / "a.wav", 2.0)
    monkeypatch.setattr(audio.psutil, "virtual_memory", lambda: SimpleNamespace(available=16_000))
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 1_000)
    with pytest.raises(InputError, match="a.wav is too long for the memory of this machine"):
        load_audio(path)
    assert decoded_duration(path) == 2.0


def test_a_flac_that_claims_years(tmp_path):
    path = write_endless(tmp_path / "a.flac")
    for load in (load_audio, decoded_duration):
        assert resident_growth(lambda load=load: pytest.raises(InputError, load, path)) < 50e6
        with pytest.raises(InputError, match="a.flac is cut off: its header promises 4294967.30 s"):
            load(path)
