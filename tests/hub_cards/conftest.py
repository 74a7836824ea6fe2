"""A Hub on this machine for the tests that push, and saved folders for those that write cards."""

import shutil

import pytest

from fastwhisper.hub_cards.export import export_folder

from ..fake_hub import running_hub
from ..fastslm_parts import tiny_pair
from ..hub_folders import save_student


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def saved_student(tmp_path_factory, demo_tokenizer):
    return save_student(tmp_path_factory.mktemp("card") / "student", demo_tokenizer)


@pytest.fixture(scope="session")
def saved_slm(tmp_path_factory):
    model, processor = tiny_pair({"rates": (2, 5)})
    model.config.speech_encoder, model.config.language_model = "openai/whisper-tiny", "Qwen/Qwen3-0.6B"
    return export_folder(model, processor, tmp_path_factory.mktemp("card") / "slm")


@pytest.fixture
def student_folder(saved_student, tmp_path):
    return shutil.copytree(saved_student, tmp_path / "student")


@pytest.fixture
def slm_folder(saved_slm, tmp_path):
    return shutil.copytree(saved_slm, tmp_path / "slm")
