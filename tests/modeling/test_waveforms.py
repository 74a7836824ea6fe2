"""Every type of sample against soundfile's own scaling of it, or refused."""

import io

import numpy as np
import pytest
import soundfile
import torch

from fastwhisper.modeling.waveforms import mono_samples

from ..sounds import tone

VALUES = tone(0.01) * np.linspace(0.1, 1, 160, dtype=np.float32)


def decoded(subtype: str) -> tuple[np.ndarray, np.ndarray]:
    """What soundfile makes of `VALUES` in a WAV of this subtype: floats, and 16-bit or 32-bit integers."""
    file = io.BytesIO()
    soundfile.write(file, VALUES, 16_000, format="WAV", subtype=subtype)
    floats, integers = (
        soundfile.read(io.BytesIO(file.getvalue()), dtype=dtype)[0]
        for dtype in ("float32", "int16" if subtype == "PCM_16" else "int32")
    )
    return floats, integers


@pytest.mark.parametrize(
    "make", [np.asarray, list, lambda a: a.tolist(), lambda a: a.astype(">i2"), torch.from_numpy, np.int32, np.int64]
)
def test_16_bit_values_whatever_holds_them(make):
    floats, integers = decoded("PCM_16")
    np.testing.assert_array_equal(mono_samples(make(integers)), floats)


def test_8_bits():
    # A WAV of 8 bits has no sign: its bytes are the values.
    file = io.BytesIO()
    soundfile.write(file, VALUES, 16_000, format="WAV", subtype="PCM_U8")
    expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
    unsigned = np.frombuffer(file.getvalue()[44 : 44 + len(VALUES)], np.uint8)
    for form in (unsigned, torch.from_numpy(unsigned.copy()), unsigned.tolist(), unsigned.astype(np.int16) - 128):
        form = form.astype(np.int8) if isinstance(form, np.ndarray) and form.dtype == np.int16 else form
        np.testing.assert_array_equal(mono_samples(form), expected)
    assert not mono_samples(np.full(100, 128, np.uint8)).any() and not mono_samples([128] * 100).any()


def test_unsigned_16_bits():
    floats, integers = decoded("PCM_16")
    unsigned = (integers.astype(np.int32) + 2**15).astype(np.uint16)
    for form in (unsigned, unsigned.tolist(), unsigned.astype(np.int32)):
        np.testing.assert_array_equal(mono_samples(form), floats)


def test_24_and_32_bits():
    floats, integers = decoded("PCM_24")
    np.testing.assert_array_equal(mono_samples(integers), floats)
    # soundfile moves 24 bits to the top of 32; pydub and the wave module leave them at the bottom.
    np.testing.assert_array_equal(mono_samples(integers >> 8), floats)
    np.testing.assert_array_equal(mono_samples((integers >> 8).tolist()), floats)
    assert mono_samples(np.array([-(2**31), 2**30], np.int64)).tolist() == [-1.0, 0.5]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, torch.bfloat16])
def test_floats_are_taken_as_they_are(dtype):
    form = torch.from_numpy(VALUES).to(dtype) if isinstance(dtype, torch.dtype) else VALUES.astype(dtype)
    samples = mono_samples(form)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, VALUES, atol=2e-3)
    assert mono_samples([0.0, 1.7, -3.0]).tolist() == pytest.approx([0.0, 1.7, -3.0])


def test_channels_are_averaged():
    stereo = np.stack([np.full(9, 16384, np.int16), np.zeros(9, np.int16)])
    for form in (stereo, stereo.T, stereo.tolist(), torch.from_numpy(stereo)):
        assert mono_samples(form).tolist() == [0.25] * 9
    assert mono_samples(np.zeros((2, 0))).shape == mono_samples([]).shape == (0,)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(9, bool), "1 axes of bool"),
        ([True, False], "1 axes of bool"),
        (np.zeros(9, np.complex64), "complex64"),
        (np.array([0.1, None]), "object"),
        (["0.1", "0.2"], "<U3"),
        ([[0.1, 0.2], [0.1]], "is not an array"),
        (0.5, "0 axes"),
        (np.zeros((2, 2, 9)), "3 axes"),
        (np.zeros(9, np.uint32), "of unknown scale"),
        (np.zeros(9, np.uint64), "of unknown scale"),
        ([2**40, -(2**40)], "of unknown scale"),
        ([0.1, np.nan], "NaN or infinite"),
        (np.array([0.1, -np.inf], np.float16), "NaN or infinite"),
        (np.array([1000.0, -1000.0]), "samples of 1000, but float audio is between -1 and 1"),
        (np.array([3.0, -2.0, 0.0]), "samples of 3, but float audio is between -1 and 1"),
        (np.array([0.1, 1e300]), r"samples of 1e\+300"),
    ],
)
def test_what_is_no_audio_is_refused(audio, message):
    with pytest.raises(ValueError, match=f"^clip.wav .*{message}"):
        mono_samples(audio, "clip.wav")
