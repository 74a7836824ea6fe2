"""A tiny teacher and a little speech as folders, and the one line of an error."""

import pytest

from fastwhisper.cli.main import main

from ..recordings import save_checkpoint
from ..sounds import write_speech_folder
from ..tiny_models import tiny_whisper

SENTENCES = ["turn on the lamp", "never mind", "yes please", "turn off the fan", "good night", "open the door"]


@pytest.fixture(scope="session")
def whisper_folder(demo_tokenizer, tmp_path_factory):
    """A 2 + 4 layer teacher with a 2 s window and its processor."""
    teacher = tiny_whisper(demo_tokenizer, max_target_positions=24)
    return save_checkpoint(teacher, demo_tokenizer, tmp_path_factory.mktemp("whisper") / "teacher")


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Six rows with text, 0.3 to 1.3 s long."""
    seconds = [0.3, 0.5, 0.7, 0.9, 1.1, 1.3]
    return write_speech_folder(tmp_path_factory.mktemp("speech") / "speech", seconds, SENTENCES)


@pytest.fixture
def refused(capsys):
    """Run the program with words that it refuses; returns what the one line says."""

    def refused(verb, *words):
        capsys.readouterr()
        assert main([verb, *map(str, words)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1, captured
        assert captured.err.startswith(f"fastwhisper {verb}: error: ")
        return captured.err

    return refused
