"""The folder that `fastwhisper demo` writes, where this package is not: with transformers and torch alone.

`FASTWHISPER_PYTHONS` may name interpreters of other environments, such as those with the lowest and the newest
transformers, separated as in PATH: the same programs then run there, too.
"""

import os
from pathlib import Path

import pytest
import torch

from .bare_environment import script_with_only
from .hub_folders import python_answer

HERE = Path(__file__).parent
OTHERS = [path for path in os.environ.get("FASTWHISPER_PYTHONS", "").split(os.pathsep) if path]
NO_OTHERS = pytest.param(None, marks=pytest.mark.skip(reason="FASTWHISPER_PYTHONS names no other interpreter"))
RUN_FILE = "import runpy; runpy.run_path({path!r}, run_name='__main__')"


@pytest.fixture(scope="module", params=["", *(OTHERS or [NO_OTHERS])])
def answers(request, demo_folder, tmp_path_factory):
    """What `hub_reader.py` answered: here, with the rest of what is installed hidden, or in another environment."""
    path, folder = HERE / "hub_reader.py", demo_folder / "demo"
    arguments = (folder / "student", folder / "teacher", folder / "recording.wav")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    if request.param:
        return python_answer(RUN_FILE.format(path=str(path)), elsewhere, *arguments, executable=request.param)
    return python_answer(script_with_only(path, "transformers", "torch"), elsewhere, *arguments)


def test_every_way_of_loading_gives_the_same_logits(answers):
    loaded = answers["loaded"]
    remote = ["FastWhisperForConditionalGeneration", "transformers_modules"]

    assert loaded["AutoModelForSpeechSeq2Seq True"][:2] == loaded["AutoModel True"][:2] == remote
    assert loaded["AutoModelForSpeechSeq2Seq False"][:2] == ["WhisperForConditionalGeneration", "transformers"]
    for _, _, logits in loaded.values():
        torch.testing.assert_close(logits, loaded["AutoModelForSpeechSeq2Seq False"][2], rtol=0, atol=0)


def test_saved_again_it_loads_again(answers):
    again, logits = answers["saved again"], answers["loaded"]["AutoModel True"][2]

    assert again["True"][0] == "FastWhisperForConditionalGeneration" and again["True"][2] == logits
    assert again["False"][0] == "WhisperForConditionalGeneration" and again["False"][2] == logits
    assert again["True auto_map"] and not again["False auto_map"]


def test_the_pipelines_agree_and_say_what_generate_says(answers):
    said = answers["said"]
    plain = said["pipeline False"]

    assert said["pipeline True"] == plain
    for name, text in said["generate"].items():
        assert [one["text"] for one in plain[name]] == text if name == "batch" else plain[name]["text"] == text
    assert plain["basic"]["text"].strip() and plain["chunks"]["text"].strip()
    assert plain["language"]["chunks"][0]["language"] == "english"


def test_timestamps_lie_in_the_audio_and_join_to_the_text(answers):
    plain = answers["said"]["pipeline False"]

    # Not "over the window": the pipeline counts 30 s for each window before, and the demo's has 4 s.
    for name in ("segments", "words"):
        assert "".join(chunk["text"] for chunk in plain[name]["chunks"]) == plain[name]["text"]
        stamps = [stamp for chunk in plain[name]["chunks"] for stamp in chunk["timestamp"]]
        assert stamps and all(0 <= stamp <= 9 for stamp in stamps), stamps


def test_speculative_decoding_is_token_exact(answers):
    assert answers["speculative"]["assisted"] == answers["speculative"]["alone"]


def test_stock_training_and_lora(demo_folder, tmp_path):
    packages = ("transformers", "torch", "accelerate", "peft")
    script = script_with_only(HERE / "hub_finetuner.py", *packages)
    trained = python_answer(script, tmp_path, demo_folder / "demo" / "student")

    torch.testing.assert_close(trained["2 x 4"], trained["8 x 1"], rtol=1e-3, atol=1e-4)
    assert trained["checkpoint"] == "FastWhisperForConditionalGeneration"
    assert trained["checkpoint differs"] == 0
    assert trained["LoRA changes"] > 1e-3 > 1e-4 > trained["merged differs"]
