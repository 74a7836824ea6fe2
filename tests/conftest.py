"""Fixtures that several rooms share."""

import os
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer

from .tiny_models import tiny_whisper


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_tokenizer():
    """The small tokenizer of the demo: 850 ids, English, timestamps to 4 s."""
    return build_demo_tokenizer()


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """Where `fastwhisper demo` has run, with few steps."""
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")
    folder = tmp_path_factory.mktemp("demo")
    arguments = ["--output", str(folder / "demo"), "--steps", "3", "--clips", "32", "--held_out_clips", "6"]
    # In a process of its own: it quiets the loggers that other tests listen to.
    subprocess.run([sys.executable, "-m", "fastwhisper", "demo", *arguments], check=True, capture_output=True)
    return folder


@pytest.fixture
def teacher(demo_tokenizer):
    """A random 2 + 4 layer Whisper with a 2 s window and the demo's vocabulary."""
    return tiny_whisper(demo_tokenizer)
