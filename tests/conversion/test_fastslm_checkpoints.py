"""Published FastSLM checkpoints and back: whole models, adapters, LoRA merged and kept, what does not fit."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from fastwhisper import FastSLMForCausalLM, HFQFormer
from fastwhisper.cli.main import main
from fastwhisper.conversion.fastslm_checkpoints import convert_adapter, convert_checkpoint, publish
from fastwhisper.conversion.published_fastslm import publish_hfq_state_dict
from fastwhisper.errors import InputError

from ..fastslm_parts import QUERIES, tiny_fastslm, tiny_language_model, tiny_pair, windows

HEADS = ["--attention_heads", "4"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A FastSLM of ours, its language model alone, and its weights under their published names."""
    folder = tmp_path_factory.mktemp("published")
    model, processor = tiny_pair()
    model.save_pretrained(folder / "ours")
    processor.save_pretrained(folder / "ours")
    language_model = AutoModelForCausalLM.from_config(model.config.text_config)
    language_model.model.load_state_dict(model.model.language_model.state_dict())
    language_model.lm_head.load_state_dict(model.lm_head.state_dict())
    language_model.save_pretrained(folder / "language_model")
    processor.tokenizer.save_pretrained(folder / "language_model")
    assert main(["convert-fastslm", str(folder / "ours"), str(folder / "published.safetensors"), "--reverse"]) == 0
    return folder


def convert(folders, checkpoint, output, *more):
    names = ["--language_model", str(folders / "language_model")]
    return main(["convert-fastslm", str(checkpoint), str(output), *names, *HEADS, *more])


def speech(model):
    ids = torch.tensor([[3, *[model.config.audio_token_id] * QUERIES, 4, 5]])
    with torch.no_grad():
        return model(ids, input_features=windows(1)).logits


def lora_weights(model, rank=2):
    generator = torch.Generator().manual_seed(0)
    names = [n.removesuffix(".weight") for n, _ in model.named_parameters() if n.endswith(("q_proj.weight",))]
    names = [name.removeprefix("model.language_model.") for name in names if "language_model" in name]
    weights = {}
    for name in names:
        linear = model.get_submodule(f"model.language_model.{name}")
        prefix = f"llm.base_model.model.model.{name}"
        weights[f"{prefix}.lora_A.default.weight"] = torch.randn(rank, linear.in_features, generator=generator)
        weights[f"{prefix}.lora_B.default.weight"] = torch.randn(linear.out_features, rank, generator=generator)
    return weights


def wrapped(published, lora):
    """The names that PEFT gives to a model whose `lora` modules carry adapters."""
    modules = {name.split(".lora_")[0] for name in lora}
    renamed = {}
    for name, weight in published.items():
        module, _, kind = name.rpartition(".")
        renamed[f"{module}.base_layer.{kind}" if module in modules else name] = weight
    return {**renamed, **lora}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_whole_model_there_and_back(folders, tmp_path, suffix):
    checkpoint = folders / "published.safetensors"
    published = load_file(checkpoint)
    assert "encoder.compressor1.q_pos_embeds" in published and "encoder.whisper.positional_embedding" in published
    if suffix == "pt":
        checkpoint = tmp_path / "published.pt"
        torch.save({"model": published}, checkpoint)
    assert convert(folders, checkpoint, tmp_path / "again") == 0
    ours, again = (FastSLMForCausalLM.from_pretrained(path) for path in (folders / "ours", tmp_path / "again"))
    assert torch.equal(speech(again), speech(ours))
    written = {path.name for path in (tmp_path / "again").iterdir()}
    assert written >= {"README.md", "modeling_fastslm.py", "preprocessor_config.json", "processor_config.json"}
    assert main(["convert-fastslm", str(tmp_path / "again"), str(tmp_path / "back.safetensors"), "--reverse"]) == 0
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == published.keys() and all(torch.equal(back[name], published[name]) for name in back)


def test_lora_merged_and_kept(folders, tmp_path):
    ours = FastSLMForCausalLM.from_pretrained(folders / "ours")
    lora = lora_weights(ours)
    save_file(wrapped(load_file(folders / "published.safetensors"), lora), tmp_path / "lora.safetensors")
    assert convert(folders, tmp_path / "lora.safetensors", tmp_path / "merged", "--lora_alpha", "8") == 0
    options = ["--lora", "keep", "--lora_alpha", "8"]
    assert convert(folders, tmp_path / "lora.safetensors", tmp_path / "kept", *options) == 0
    merged = FastSLMForCausalLM.from_pretrained(tmp_path / "merged")
    kept = FastSLMForCausalLM.from_pretrained(tmp_path / "kept")
    assert torch.equal(speech(kept), speech(ours))
    adapted = PeftModel.from_pretrained(kept, tmp_path / "kept" / "lora").eval()
    torch.testing.assert_close(speech(adapted), speech(merged), rtol=1e-4, atol=1e-4)
    by_hand = FastSLMForCausalLM.from_pretrained(folders / "ours")
    for name in (name for name in lora if "lora_A" in name):
        inner = name.removeprefix("llm.base_model.model.model.").split(".lora_A")[0]
        module = by_hand.get_submodule(f"model.language_model.{inner}")
        module.weight.data += 8 / 2 * lora[name.replace("lora_A", "lora_B")] @ lora[name]
    torch.testing.assert_close(speech(merged), speech(by_hand), rtol=1e-4, atol=1e-4)


def test_adapter_alone(folders, tmp_path):
    published = load_file(folders / "published.safetensors")
    names = ("encoder.compressor", "encoder.stage", "encoder.out_attn", "encoder.llm_proj")
    save_file({n: w for n, w in published.items() if n.startswith(names)}, tmp_path / "adapter.safetensors")
    arguments = ["convert-fastslm", str(tmp_path / "adapter.safetensors"), str(tmp_path / "adapter"), *HEADS]
    assert main(arguments) == 0
    adapter = HFQFormer.from_pretrained(tmp_path / "adapter")
    projector = load_file(tmp_path / "adapter" / "multi_modal_projector.safetensors")
    assert torch.equal(projector["weight"], published["encoder.llm_proj.weight"])
    ours = FastSLMForCausalLM.from_pretrained(folders / "ours").model.adapter
    assert all(torch.equal(weight, ours.state_dict()[name]) for name, weight in adapter.state_dict().items())
    settings = json.loads((tmp_path / "adapter" / "config.json").read_text())
    assert (settings["query_clock"], settings["mask_padding"], settings["rates"]) == ("index", False, None)
    back = publish_hfq_state_dict(adapter.state_dict(), settings["max_source_positions"])
    assert all(torch.equal(back[name], published[name]) for name in back)


def test_without_sinusoids_a_lone_adapter_is_of_whispers_windows(folders):
    published = load_file(folders / "published.safetensors")
    older = {name: weight for name, weight in published.items() if "pos_embeds" not in name}
    for weights, positions in ((published, 50), (older, 1500)):
        assert convert_adapter(weights, attention_heads=4)[0].config.max_source_positions == positions


def test_encoder_from_elsewhere(folders, tmp_path, capsys):
    published = load_file(folders / "published.safetensors")
    light = {name: weight for name, weight in published.items() if ".whisper." not in name}
    save_file(light, tmp_path / "light.safetensors")
    assert convert(folders, tmp_path / "light.safetensors", tmp_path / "none") == 2
    assert "--encoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.compressor1.gate": torch.zeros(2)}, "unknown weights: compressor1.gate"),
        ({"encoder.whisper.blocks.0.attn.key.bias": torch.zeros(2)}, "unknown weights: whisper.blocks.0.attn.key.bias|"
                                                                     "unknown weights: blocks.0.attn.key.bias"),
        ({"encoder.stage1.conv1.bias": None}, "missing weights: stage1.conv1.bias"),
    ],
)  # fmt: skip
def test_unknown_and_missing_names_are_listed(folders, tmp_path, capsys, change, message):
    published = {**load_file(folders / "published.safetensors"), **change}
    save_file({n: w for n, w in published.items() if w is not None}, tmp_path / "wrong.safetensors")
    assert convert(folders, tmp_path / "wrong.safetensors", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|")), error
    assert not (tmp_path / "out").exists()


def test_a_weight_that_the_checkpoint_lacks_does_not_overwrite_the_one_tied_to_it(folders, tmp_path):
    """safetensors drops one of two tied weights: the base model's must not come back in its place."""
    language_model = AutoModelForCausalLM.from_pretrained(folders / "language_model")
    language_model.config.tie_word_embeddings = True
    language_model.tie_weights()
    language_model.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders / "language_model" / name, tmp_path / "base")
    published = load_file(folders / "published.safetensors")
    del published["llm.base_model.model.lm_head.weight"]
    trained = published["llm.base_model.model.model.embed_tokens.weight"]
    trained += 1.0
    model = convert_checkpoint(published, tmp_path / "base", attention_heads=4).model
    assert torch.equal(model.get_input_embeddings().weight, trained)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_a_language_model_of_another_size_is_refused(folders, tmp_path, capsys):
    tiny_language_model(vocab_size=300, intermediate_size=32).save_pretrained(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders / "language_model" / name, tmp_path / "other")
    arguments = ["convert-fastslm", str(folders / "published.safetensors"), str(tmp_path / "out"), *HEADS]
    assert main([*arguments, "--language_model", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "weights of the wrong size" in error and "(64, 48) instead of (32, 48)" in error
    assert main([*arguments, "--language_model", str(tmp_path / "none")]) == 2
    assert "none is not a checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("adapter", "settings", "named"),
    [
        ({"query_clock": "aligned"}, {}, "query_clock='aligned'"),
        ({"mask_padding": True}, {}, "mask_padding=True"),
        ({"tokens_follow_length": True}, {}, "tokens_follow_length=True"),
        ({}, {"window_overlap": 0.5}, "window_overlap=0.5"),
        ({"intermediate_size": 8}, {}, "unknown weights: blocks.0.feed_forward"),
    ],
)
def test_what_the_published_code_cannot_compute_is_not_published(adapter, settings, named):
    with pytest.raises(InputError, match=named):
        publish(tiny_fastslm(adapter, **settings))


def test_files_that_are_no_checkpoints(tmp_path, capsys):
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    (tmp_path / "noise.pt").write_bytes(b"noise")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, message in (("noise.safetensors", "of weights"), ("noise.pt", "of weights"),
                          ("list.pt", "does not map"), ("missing.pt", "there is no"), (".", "a file")):  # fmt: skip
        assert main(["convert-fastslm", str(tmp_path / name), str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
