"""What a verb draws at random follows from its seed alone: not from what was drawn before it was called."""

import random

import numpy as np
import pytest
import torch

from fastwhisper.cli.main import main

from ..fastslm_parts import tiny_encoder, tiny_language_model, tiny_processor

LORA = "distill --lora_rank 2 --max_steps 2 --per_device_train_batch_size 2 --decoder_layers 1 --language en --use_cpu"


@pytest.fixture(scope="module")
def slm_parts(tmp_path_factory):
    """A Whisper, and a language model whose embeddings must grow: new rows are drawn, too."""
    folder, processor = tmp_path_factory.mktemp("parts"), tiny_processor()
    tiny_encoder().save_pretrained(folder / "whisper")
    processor.feature_extractor.save_pretrained(folder / "whisper")
    tiny_language_model(vocab_size=len(processor.tokenizer) - 2).save_pretrained(folder / "llm")
    processor.tokenizer.save_pretrained(folder / "llm")
    return folder


@pytest.fixture
def weights(whisper_folder, speech_folder, slm_parts, tmp_path):
    """Run a verb after so and so many draws; returns the bytes of the model that it wrote."""

    def run(line, draws, *flags):
        for _ in range(draws):
            torch.rand(1), np.random.rand(), random.random()
        out = tmp_path / f"out{draws}{''.join(flags)}"
        words = line.split()
        if words[0] == "distill":
            words += ["--teacher", whisper_folder, "--dataset", speech_folder, "--output_dir", out, *flags]
        else:
            parts = ["--encoder", slm_parts / "whisper", "--language_model", slm_parts / "llm"]
            words += [*parts, "--output", out, *flags]
        assert main(list(map(str, words))) == 0
        return (out / "model.safetensors").read_bytes()

    return run


@pytest.mark.parametrize("line", [LORA, "slm init --num_queries 4"])
def test_a_verb_depends_on_its_seed_alone(weights, line):
    first = weights(line, 1)
    assert weights(line, 5) == first
    assert weights(line, 0, "--seed", "7") != first


@pytest.mark.parametrize("seed", [-1, 2**63])
@pytest.mark.parametrize("verb", ["slm", "transcribe", "evaluate"])
def test_a_seed_that_is_none_is_refused(verb, seed, refused, whisper_folder, speech_folder, slm_parts, tmp_path):
    out = tmp_path / "out"
    words = {
        "slm": ["init", "--encoder", slm_parts / "whisper", "--language_model", slm_parts / "llm", "--output", out],
        "transcribe": [speech_folder, "--model", whisper_folder, "--output", out],
        "evaluate": ["--model", whisper_folder, "--dataset", speech_folder, "--output", out],
    }[verb]
    assert "seed must be from 0" in refused(verb, *words, "--seed", seed) and not out.exists()
