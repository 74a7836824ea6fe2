"""The card of a FastSLM: its parts by name and size, what it has room for, and nothing that was not recorded."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import DynamicCache

from fastwhisper import FastSLMConfig, FastSLMForCausalLM
from fastwhisper.hub_cards.card import write_card
from fastwhisper.hub_cards.card_tables import count

from ..hub_folders import WITHOUT_PACKAGE, run_python
from .records import PLACEHOLDERS, SLM_EVALUATION, SLM_RUN, record

# Those of the published model: the tiny one differs in its queries.
QUERIES = [("stage_queries", "8, 8, 8", "80, 80, 80"), ("num_queries", "5", "50")]


@pytest.fixture
def folder(slm_folder):
    return slm_folder


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def row(text, first):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_measured_run_fills_the_card(folder):
    record(folder, SLM_RUN, SLM_EVALUATION)
    (folder / "curves.png").write_bytes(b"png")

    text = write_card(folder, "somebody/slm").read_text()

    for said in (
        "the encoder of [openai/whisper-tiny](https://huggingface.co/openai/whisper-tiny)",
        "[Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B)",
        "- 5 speech tokens for each window of 1 s: 5.00 per second.",
        "when calling the processor (`tokens_per_window`): 2, 5.",
        "| slm (model) | 100 k | 3.12 % | 1.00 % | 200 |",
        "| steps | 600 |",
        "(curves.png)",
        "(https://huggingface.co/datasets/openslr/librispeech_asr) (config clean, split test)",
        "- my recordings",
        "A limit of this model.",
        "Errors were measured only on openslr/librispeech_asr",
        "## Licence\n\napache-2.0.",
        "2601.06199",
        "2212.04356",
        "the fastwhisper package's own",
    ):
        assert said in text, said
    for unsaid in ("No training", "seconds of training", "teacher", "/home/", *PLACEHOLDERS):
        assert unsaid not in text, unsaid


def test_its_metadata_is_what_the_hub_reads(folder):
    record(folder, SLM_RUN, SLM_EVALUATION)

    data = ModelCard.load(write_card(folder, "somebody/slm")).data

    assert data.to_dict() | {"model-index": None} == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "audio-text-to-text",
        "base_model": ["openai/whisper-tiny", "Qwen/Qwen3-0.6B"],
        "base_model_relation": "merge",
        "datasets": ["openslr/librispeech_asr"],
        "metrics": ["cer", "wer"],
        "tags": ["fastslm", "fastwhisper", "speech", "asr"],
        "model-index": None,
    }
    assert [(result.task_type, result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("automatic-speech-recognition", "wer", 3.12),
        ("automatic-speech-recognition", "cer", 1.0),
    ]
    assert (folder / ".eval_results" / "fastwhisper.yaml").is_file()


def test_parts_without_names_are_said_by_their_kind(folder):
    change_config(folder, lambda config: [config.pop(name) for name in ("speech_encoder", "language_model")])

    text = write_card(folder).read_text()

    assert "the encoder of a Whisper," in text and "a causal language model (qwen3)." in text
    assert "No training is recorded in this folder." in text and "## How it was trained" not in text


def test_parameters_are_those_of_the_weights(folder):
    prefixes = {
        "speech encoder": ("model.audio_tower.",),
        "HFQ-Former": ("model.adapter.",),
        "projector": ("model.multi_modal_projector.",),
        "language model": ("model.language_model.", "lm_head."),
        "total": ("",),
    }
    weights = load_file(folder / "model.safetensors")

    text = write_card(folder).read_text()

    for part, prefix in prefixes.items():
        assert row(text, f"{part} |")[1] == count(sum(w.numel() for n, w in weights.items() if n.startswith(prefix)))
    shares = [float(row(text, f"{part} |")[3].removesuffix(" %")) for part in [*prefixes][:-1]]
    assert sum(shares) == pytest.approx(100, abs=0.3)


@pytest.mark.parametrize(("dtype", "words"), [("float32", "1.92 kB of float32"), ("bfloat16", "960 B of bfloat16")])
def test_the_longest_recording(folder, dtype, words):
    model = FastSLMForCausalLM.from_pretrained(folder, dtype=dtype)
    model.save_pretrained(folder)
    cache = DynamicCache(config=model.config.text_config)
    second = torch.zeros(1, 5, 48, dtype=model.dtype)
    model.model.language_model(inputs_embeds=second, past_key_values=cache, use_cache=True)
    bytes_a_second = sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))

    text = write_card(folder).read_text()

    assert row(text, "context of the language model, 512 tokens")[1] == f"{(512 - 32) / 5:.0f} s"
    for size in (24, 80):
        limit, hours = row(text, f"{size} GB of memory, ")
        assert f"{words} cache per second" in limit
        free = size * 1e9 - (folder / "model.safetensors").stat().st_size
        assert hours == f"{free / bytes_a_second / 3600:,.1f} h"
    assert "Activations and the tokens of an answer are not counted." in text


def test_weights_that_do_not_fit_are_said(folder):
    (folder / "model.safetensors").unlink()
    for shard in (1, 2):
        size = 15 * 10**9 // 8 * 8
        header = json.dumps({f"w{shard}": {"dtype": "F64", "shape": [size // 8], "data_offsets": [0, size]}}).encode()
        with open(folder / f"model-0000{shard}-of-00002.safetensors", "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)  # a hole, which takes no room

    text = write_card(folder).read_text()

    assert row(text, "24 GB of memory")[1] == "none: the weights alone take 30 GB"
    assert "80 GB of memory, 30 GB of weights" in text


@pytest.mark.parametrize("missing", ["dtype", "weights", "context"])
def test_a_bound_that_nothing_gives_is_absent(folder, missing):
    if missing == "weights":
        (folder / "model.safetensors").unlink()
    elif missing == "dtype":
        change_config(folder, lambda config: config.pop("dtype"))
    else:
        gpt = {"model_type": "mpt", "d_model": 48, "n_heads": 4, "n_layers": 2, "vocab_size": 120}
        change_config(folder, lambda config: config.update(text_config=gpt))

    text = write_card(folder).read_text()

    assert ("GB of memory" in text) == (missing == "context")
    assert ("context of the language model" in text) == (missing != "context")
    assert not [word for word in PLACEHOLDERS if word in text]


def test_options_that_are_not_the_published_ones(folder):
    options = [tuple(re.sub("`", "", cell) for cell in row(write_card(folder).read_text(), f"`{name}`"))
               for name, *_ in QUERIES]  # fmt: skip
    assert options == QUERIES

    def change(config):
        config["qformer_config"].update(query_clock="aligned", mask_padding=True, tokens_follow_length=True)
        config.update(window_overlap=0.25, tokens_per_window=2)

    change_config(folder, change)
    text = write_card(folder).read_text()
    assert row(text, "`query_clock`") == ["`query_clock`", "aligned", "index"]
    assert row(text, "`mask_padding`")[1:] == ["yes", "no"]
    assert row(text, "`window_overlap`")[1:] == ["0.25", "0"]
    assert row(text, "`tokens_per_window`")[1:] == ["2", "not used"]
    assert "2 speech tokens for each window of 1 s, 0.25 s of which overlap with the next: 2.67 per second." in text
    assert "`dropout`" not in text and "`num_blocks`" not in text


def test_the_published_model_differs_in_nothing(tmp_path):
    FastSLMConfig().save_pretrained(tmp_path)

    text = write_card(tmp_path, "somebody/published").read_text()

    assert "## Options" not in text
    assert row(text, "HFQ-Former |")[1] == "52.86 M" and row(text, "projector |")[1] == "3.28 M"
    assert "50 speech tokens for each window of 30 s: 1.67 per second" in text and "tokens_per_window" not in text
    assert row(text, "context of the language model, 40,960 tokens")[1] == "6.8 h"


def test_its_code_runs_without_this_package(folder, tmp_path):
    text = write_card(folder, str(folder)).read_text()
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.sin(np.arange(24_000) * 0.05), 16_000)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3

    done = run_python("\n".join([WITHOUT_PACKAGE, *blocks]), tmp_path)

    assert done.returncode == 0, done.stderr[-3000:]


def test_local_parts_are_not_hub_names(folder, monkeypatch):
    (folder.parent / "runs" / "student").mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    change_config(folder, lambda config: config.update(speech_encoder="runs/student", language_model="llm"))

    text = write_card(folder).read_text()

    assert not {"base_model", "base_model_relation"} & set(ModelCard(text).data.to_dict())
    assert "(https://huggingface.co/runs" not in text and str(Path.cwd()) not in text
