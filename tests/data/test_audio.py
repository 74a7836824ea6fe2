"""Every kind of audio source, and every kind of bad audio."""

import io
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
import torch

from fastwhisper.data.audio import audio_duration, audio_path, check_audio, load_audio
from fastwhisper.errors import InputError

from ..sounds import tone, write_nan, write_noise_bytes, write_tone


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
    with pytest.raises(InputError, match="a list is no audio"):
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
