"""The demo's target domain: its grammar, its voices, and its rooms."""

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest

from fastwhisper.synthetic_speech import commands, espeak
from fastwhisper.synthetic_speech.hotel import (
    HELD_OUT_VARIANTS,
    TRAINING_VARIANTS,
    compose_request,
    sample_request,
    vocabulary,
)
from fastwhisper.synthetic_speech.rooms import REVERBERATION_SECONDS, reverberate

HASH_OF_CLIPS = """
import hashlib
from fastwhisper.synthetic_speech.hotel import HELD_OUT_VARIANTS, TRAINING_VARIANTS, compose_request
clips = [compose_request(seed, [*TRAINING_VARIANTS, *HELD_OUT_VARIANTS], 4) for seed in range(40)]
print(hashlib.sha256(b"".join(clip.samples.tobytes() for clip in clips)).hexdigest())
"""


def test_grammar_says_its_vocabulary_and_most_of_it_is_new_to_the_teacher():
    rng = random.Random(0)
    requests = [sample_request(rng) for _ in range(20_000)]
    said = {word for request in requests for word in request.split()}
    assert said == vocabulary() and len(said) == 226
    assert len(said - commands.vocabulary()) == 134
    assert {len(request.split()) for request in requests} <= set(range(4, 10))


def test_teacher_training_and_held_out_voices_are_all_different():
    heard_by_the_teacher = {*espeak.TRAINING_VARIANTS, *espeak.HELD_OUT_VARIANTS}
    assert not set(TRAINING_VARIANTS) & set(HELD_OUT_VARIANTS)
    assert not heard_by_the_teacher & {*TRAINING_VARIANTS, *HELD_OUT_VARIANTS}


def test_every_voice_and_accent_speaks():
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")
    for index, variant in enumerate([*TRAINING_VARIANTS, *HELD_OUT_VARIANTS]):
        voice = espeak.SyntheticVoice(espeak.ACCENTS[index % len(espeak.ACCENTS)], variant)
        samples = espeak.synthesizer().speak("may i speak to the manager please", voice)
        assert 1.0 < samples.size / 16_000 < 4.0 and 0.02 < abs(samples).max() < 1.1, variant


def test_clips_fit_and_name_their_speaker():
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")
    for seed in range(30):
        clip = compose_request(seed, TRAINING_VARIANTS, 4)
        assert clip.samples.size <= 4 * 16_000 and clip.samples.dtype == "float32"
        assert clip.speaker in TRAINING_VARIANTS and clip.text
        assert np.isfinite(clip.samples).all()


def test_fresh_processes_speak_the_same():
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")
    hashes = {
        subprocess.run([sys.executable, "-c", HASH_OF_CLIPS], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1 and len(hashes.pop().strip()) == hashlib.sha256().digest_size * 2


def test_a_room_is_a_convolution_that_keeps_length_and_loudness():
    click = np.zeros(16_000, np.float32)
    click[1_000] = 1.0
    for seed in range(5):
        response = reverberate(click, np.random.default_rng(seed))
        assert response.shape == click.shape and response.dtype == np.float32
        assert not response[:1_000].round(5).any() and response[1_000] == abs(response).max()
        longest = 1_000 + round(REVERBERATION_SECONDS[1] * 16_000)
        assert not response[longest:].round(5).any() and abs(response[1_100:3_000]).max() > 1e-3
        np.testing.assert_allclose(np.linalg.norm(response), 1.0, rtol=1e-4)
        # The same of two clicks is that of each: against numpy's own convolution.
        two = click + np.roll(click, 4_000)
        heard = reverberate(two, np.random.default_rng(seed))
        expected = np.convolve(two, response[1_000:])[:16_000]
        np.testing.assert_allclose(heard / np.linalg.norm(heard), expected / np.linalg.norm(expected), atol=1e-5)
