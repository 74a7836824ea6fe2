"""The folder that `fastwhisper demo` writes, where this package is not: with transformers and torch alone."""

from pathlib import Path

import pytest
import torch

from .bare_environment import INTERPRETERS, answer_elsewhere, script_with_only
from .hub_folders import python_answer

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=INTERPRETERS)
def answers(request, demo_folder, tmp_path_factory):
    """What `hub_reader.py` answered."""
    folder = demo_folder / "demo"
    arguments = (folder / "student", folder / "teacher", folder / "recording.wav")
    return answer_elsewhere(request.param, HERE / "hub_reader.py", tmp_path_factory.mktemp("elsewhere"), *arguments)


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
