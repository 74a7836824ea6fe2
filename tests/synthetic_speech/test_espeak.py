"""The demo's grammar and voices."""

import hashlib
import random
import re
import subprocess
import sys

import pytest

from fastwhisper.synthetic_speech.commands import sample_command, vocabulary
from fastwhisper.synthetic_speech.espeak import (
    ACCENTS,
    BREATHING_VARIANTS,
    HELD_OUT_VARIANTS,
    TRAINING_VARIANTS,
    SpeechSynthesisError,
    SyntheticVoice,
    compose_clip,
    synthesizer,
)

pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")

HASH_OF_CLIPS = """
import hashlib
from fastwhisper.synthetic_speech.commands import sample_command
from fastwhisper.synthetic_speech.espeak import HELD_OUT_VARIANTS, compose_clip
clips = [compose_clip(sample_command, seed, HELD_OUT_VARIANTS, 4) for seed in range(12)]
print(hashlib.sha256(b"".join(clip.samples.tobytes() for clip in clips)).hexdigest())
"""


def test_grammar_says_its_vocabulary_and_nothing_else():
    rng = random.Random(0)
    said = {word for _ in range(20_000) for word in sample_command(rng).split()}
    assert said == vocabulary() and len(said) == 269


def test_no_held_out_voice_is_trained_on():
    assert not set(HELD_OUT_VARIANTS) & set(TRAINING_VARIANTS)
    assert set(TRAINING_VARIANTS) >= BREATHING_VARIANTS


def test_every_voice_speaks():
    for variant in [*TRAINING_VARIANTS, *HELD_OUT_VARIANTS]:
        samples = synthesizer().speak("yes please", SyntheticVoice(random.Random(variant).choice(ACCENTS), variant))
        assert 0.2 < samples.size / 16_000 < 2.0 and 0.02 < abs(samples).max() < 1.1, variant


def test_clips_fit_and_their_timestamps_rise():
    for seed in range(60):
        clip = compose_clip(sample_command, seed, TRAINING_VARIANTS, 4)
        times = [float(time) for time in re.findall(r"<\|(\d\.\d\d)\|>", clip.timestamped_text)]
        assert clip.samples.size <= 4 * 16_000 and clip.samples.dtype == "float32"
        assert times == sorted(times) and times[-1] <= clip.samples.size / 16_000 + 0.02
        assert re.sub(r"<\|\d\.\d\d\|>", "", clip.timestamped_text).split() == clip.text.split()


def test_a_fresh_process_speaks_the_same():
    hashes = {
        subprocess.run([sys.executable, "-c", HASH_OF_CLIPS], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1 and len(hashes.pop().strip()) == hashlib.sha256().digest_size * 2


def test_unknown_voice_is_named():
    with pytest.raises(SpeechSynthesisError, match="no-such"):
        synthesizer().speak("yes", SyntheticVoice("no-such", "m1"))
