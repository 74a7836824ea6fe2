"""Recordings of more than a minute are read from a temporary file; shorter ones, and what is refused, leave none."""

import gc
import os
import resource
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from fastwhisper.data import audio, stored_audio
from fastwhisper.data.audio import EmptyAudioError, load_audio
from fastwhisper.data.stored_audio import StoredSamples, store_audio
from fastwhisper.errors import InputError
from fastwhisper.evaluation.measurement import resident_growth

from ..recordings import noise
from ..sounds import write_endless, write_nan, write_one_sample, write_tone, write_torn


def write_long(path, sampling_rate=16_000, form="FLAC"):
    """70 s: more than is held in memory."""
    soundfile.write(path, noise(70.0)[: 70 * sampling_rate], sampling_rate, format=form)
    return path


@pytest.mark.parametrize(
    "sampling_rate, form", [(8_000, "FLAC"), (11_025, "WAV"), (16_000, "FLAC"), (16_000, "OGG"), (16_000, "MP3")]
)
def test_stored_samples_are_those_in_memory(tmp_path, sampling_rate, form):
    path = write_long(tmp_path / "a", sampling_rate, form)
    expected, stored = load_audio(path), store_audio(path)
    assert isinstance(stored, StoredSamples) and len(stored) == len(expected) > 69 * 16_000
    np.testing.assert_array_equal(stored[:], expected)
    for start, stop in ((0, 1), (70_001, 70_401), (len(expected) - 5, len(expected) + 9), (9, 9), (9, 3)):
        for _ in range(2):
            np.testing.assert_array_equal(stored[start:stop], expected[start:stop])
    with pytest.raises(ValueError, match="step"):
        stored[::2]


def test_samples_may_be_deleted_once_they_are_read(tmp_path):
    path = write_long(tmp_path / "a.flac")
    expected, stored = load_audio(path), store_audio(path)
    path.unlink()
    np.testing.assert_array_equal(stored[500:900], expected[500:900])


def test_short_audio_stays_in_memory(tmp_path):
    write_tone(tmp_path / "a.wav", 2.0, 8_000)
    stored = store_audio(tmp_path / "a.wav")
    assert isinstance(stored, np.ndarray) and stored.flags.writeable
    np.testing.assert_array_equal(stored, load_audio(tmp_path / "a.wav"))


def test_audio_that_cannot_be_read_is_refused_as_in_memory(tmp_path):
    write_tone(tmp_path / "empty.wav", 0.0)
    for path in (write_torn(tmp_path / "a.flac"), write_nan(tmp_path / "a.wav"), write_one_sample(tmp_path / "b.wav")):
        with pytest.raises(InputError) as expected:
            load_audio(path)
        with pytest.raises(type(expected.value)) as found:
            store_audio(path)
        assert str(found.value) == str(expected.value)
    with pytest.raises(EmptyAudioError, match="it has no samples"):
        store_audio(tmp_path / "empty.wav")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_full_disk_is_refused_in_words(tmp_path, temporary, monkeypatch):
    path = write_long(tmp_path / "a.flac")
    monkeypatch.setattr(stored_audio.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4_200_000))
    with pytest.raises(InputError, match="a.flac is too long for the folder of temporary files, .*temporary: 0.02 h"):
        store_audio(path)
    assert list(temporary.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_a_disk_that_is_full_within_a_block(tmp_path, temporary):
    path = write_long(tmp_path / "a.flac")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_001, limits[1]))
    try:
        with pytest.raises(InputError, match="too long for the folder of temporary files"):
            store_audio(path)
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(temporary.iterdir()) == []


def test_the_file_goes_with_its_samples(tmp_path, temporary):
    opened = len(os.listdir("/proc/self/fd"))
    stored = store_audio(write_long(tmp_path / "a.flac"))
    assert len(os.listdir("/proc/self/fd")) == opened + 1 and list(temporary.iterdir()) == []
    del stored
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_flac_that_claims_years_takes_nothing(tmp_path, temporary):
    path = write_endless(tmp_path / "a.flac")
    assert resident_growth(lambda: pytest.raises(InputError, store_audio, path)) < 20e6
    with pytest.raises(InputError, match="a.flac is cut off: its header promises 4294967.30 s"):
        store_audio(path)


def test_samples_in_memory_are_stored_as_they_are(monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 5_000)
    samples = noise(70.0)
    np.testing.assert_array_equal(store_audio({"array": samples, "sampling_rate": 16_000})[:], samples)
