"""Fixtures that several rooms share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import pytest
import torch

from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer

from .tiny_models import tiny_whisper

REAL_PARTS = {"real_model", "real_speech"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark `real` whatever asks for real weights or speech: `python -m pytest -m real` runs these alone."""
    for item in items:
        if REAL_PARTS & set(item.fixturenames):
            item.add_marker("real")


def _folder_named_by(variable: str) -> Callable[[str], Path]:
    def folder(name: str) -> Path:
        if not os.environ.get(variable):
            pytest.skip(f"needs {name}: {variable} names no folder")
        path = Path(os.environ[variable], name)
        if not path.is_dir():
            pytest.skip(f"needs {name}: {variable} names {path.parent}, which has no such folder")
        return path

    return folder


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """`real_model(name)` is the folder of a published checkpoint; skips the test where it is absent."""
    return _folder_named_by("FASTWHISPER_MODELS")


@pytest.fixture(scope="session")
def real_speech() -> Callable[[str], Path]:
    """`real_speech(name)` is a folder of human recordings; skips the test where it is absent."""
    return _folder_named_by("FASTWHISPER_DATA")


@pytest.fixture(autouse=True, scope="session")
def _a_cache_of_their_own(tmp_path_factory):
    """What tests leave in the cache of `datasets` goes with their other files."""
    folder = tmp_path_factory.mktemp("datasets")
    datasets.config.HF_DATASETS_CACHE = folder
    os.environ["HF_DATASETS_CACHE"] = str(folder)  # of the processes that tests start


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
