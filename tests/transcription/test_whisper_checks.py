"""Parts of a checkpoint that are not of one model are refused when they are loaded, by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastwhisper.errors import InputError
from fastwhisper.transcription.checkpoints import check_device, load_checkpoint

from ..recordings import save_checkpoint
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory, demo_tokenizer):
    model = tiny_whisper(demo_tokenizer, d_model=16, decoder_layers=2, encoder_layers=1)
    return save_checkpoint(model, demo_tokenizer, tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def edit(path, **settings):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **settings}))


def refusal(folder):
    with pytest.raises(InputError) as refused:
        load_checkpoint(str(folder), "cpu")
    return " ".join(str(refused.value).split())


def test_the_whole_folder_loads(folder):
    assert load_checkpoint(str(folder), "cpu")


def test_a_folder_without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in refusal(folder)


@pytest.mark.parametrize("ranks", ["gpt2", "multilingual"])
def test_the_tokenizer_of_another_model(folder, ranks):
    whisper_tokenizer(ranks).save_pretrained(folder)
    assert "the tokenizer of" in refusal(folder)


def test_the_tokenizer_of_an_english_model_in_a_multilingual_one(tmp_path):
    model = tiny_whisper(whisper_tokenizer(), d_model=8, decoder_layers=1, encoder_layers=1)
    folder = save_checkpoint(model, whisper_tokenizer("gpt2"), tmp_path)
    assert "gives <|startoftranscript|> the id 50257" in refusal(folder)


@pytest.mark.parametrize(("rows", "loads"), [(64, True), (-1, False)])
def test_an_embedding_may_be_padded_and_not_too_small(folder, demo_tokenizer, rows, loads):
    weights = load_file(folder / "model.safetensors")
    name = "model.decoder.embed_tokens.weight"
    table = weights[name]
    weights[name] = torch.cat([table, torch.zeros(rows, table.shape[1])]) if rows > 0 else table[:rows].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=len(weights[name]))
    if loads:
        assert load_checkpoint(str(folder), "cpu")
    else:
        assert "vocab_size" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "settings", "said"),
    [
        ("config.json", {"vocab_size": 9999}, "has vocab_size 9999, but the weights have"),
        ("config.json", {"d_model": -16}, "config.json has d_model -16"),
        ("config.json", {"d_model": "x"}, "d_model"),
        ("config.json", {"encoder_layers": 10**9}, "config.json has encoder_layers 1000000000"),
        ("config.json", {"decoder_layers": 1}, "layers that config.json does not count"),
        ("config.json", {"encoder_layers": 2}, "the weights lack model.encoder.layers.1."),
        ("config.json", {"encoder_attention_heads": 3}, "has encoder_attention_heads 3"),
        ("config.json", {"dropout": 7}, "config.json has dropout 7"),
        ("config.json", {"pad_token_id": -1}, "config.json has pad_token_id -1"),
        ("config.json", {"activation_function": "x"}, "the weights"),
        ("generation_config.json", {"suppress_tokens": [10**6]}, "generation_config.json has suppress_tokens 1000000"),
        ("generation_config.json", {"eos_token_id": -1}, "generation_config.json has eos_token_id -1"),
        ("generation_config.json", {"lang_to_id": {"<|en|>": 3}}, "not of one model"),
        ("generation_config.json", {"lang_to_id": [3]}, "generation_config.json has lang_to_id [3]"),
        ("generation_config.json", {"no_timestamps_token_id": 3}, "not of one model"),
        ("generation_config.json", {"num_beams": "x"}, "generation_config.json has num_beams 'x'"),
        ("generation_config.json", {"alignment_heads": [[9, 9]]}, "generation_config.json has alignment_heads"),
        ("processor_config.json", {"feature_extractor": {"feature_size": 128}}, "feature_size 128"),
        ("processor_config.json", {"feature_extractor": {"n_fft": 10**9}}, "processor_config.json has n_fft"),
        ("processor_config.json", {"feature_extractor": {"hop_length": -1}}, "processor_config.json has hop_length"),
        ("processor_config.json", {"feature_extractor": {"sampling_rate": 8000}}, "sampling_rate 8000"),
        ("processor_config.json", {"feature_extractor": {"chunk_length": 30}}, "nb_max_frames 3000"),
        ("processor_config.json", {"feature_extractor": []}, "feature_extractor must be a JSON object"),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}, "must name WhisperTokenizer"),
        ("tokenizer_config.json", {"model_max_length": []}, "the tokenizer"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(folder, file, settings, said):
    if "feature_extractor" in settings and isinstance(settings["feature_extractor"], dict):
        own = json.loads((folder / file).read_text())["feature_extractor"]
        settings = {"feature_extractor": {**own, **settings["feature_extractor"]}}
    edit(folder / file, **settings)
    assert said in refusal(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["", "[]", '{"a": ', "\x00"])
def test_a_cut_file_is_named(folder, file, text):
    (folder / file).write_text(text)
    assert f"{folder / file} " in refusal(folder)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_cut_weights_are_named(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(folder).startswith(f"{path} is damaged")


def test_missing_weights_are_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.encoder.layers.0.fc1.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "the weights lack model.encoder.layers.0.fc1.bias" in refusal(folder)


@pytest.mark.parametrize("device", ["meta", "mps", "xpu", "nonsense", "cuda:99", "cpu:7", "hip", ""])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(InputError, match="there is no device"):
        check_device(device)
