"""The plain view: what any engine's converter and vLLM read."""

import json

import pytest
import torch
from transformers import AutoConfig, WhisperConfig, WhisperForConditionalGeneration

from fastwhisper.conversion.export import export
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.transcription.checkpoints import load_checkpoint

from ..hub_folders import LOOK, demo_processor, run_python, tiny_student


@pytest.fixture(scope="module")
def folders(demo_tokenizer, tmp_path_factory):
    """A student at true length, and its plain view."""
    place = tmp_path_factory.mktemp("plain")
    student = tiny_student(demo_tokenizer)
    student.config.true_length = True
    export_folder(student, demo_processor(demo_tokenizer), place / "student")
    return place / "student", export(place / "student", "whisper", place / "plain")


def test_it_has_no_code_and_nothing_but_whispers_settings(folders):
    student, plain = folders
    assert not list(plain.glob("*.py")) and list(student.glob("*.py"))
    settings = json.loads((plain / "config.json").read_text())
    assert settings["model_type"] == "whisper"
    assert settings["architectures"] == ["WhisperForConditionalGeneration"]  # the name that vLLM looks for
    assert settings.keys() <= WhisperConfig().to_dict().keys() | {"transformers_version", "architectures"}
    assert settings["decoder_layers"] == 2 and settings["dtype"] == "float32"
    names = {path.name for path in student.iterdir() if path.suffix != ".py"}
    assert {path.name for path in plain.iterdir()} == names | {"README.md"}


def test_vllm_reads_a_config_of_transformers_own(folders):
    config = AutoConfig.from_pretrained(folders[1], trust_remote_code=False)
    assert type(config) is WhisperConfig and config.is_encoder_decoder
    # What vllm/model_executor/models/whisper.py takes from it.
    wanted = (
        *("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins"),
        *("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim", "max_source_positions"),
        *("max_target_positions", "vocab_size", "pad_token_id", "scale_embedding", "activation_function"),
    )
    student = json.loads((folders[0] / "config.json").read_text())
    for name in wanted:
        assert getattr(config, name) == student[name], name


def test_the_weights_are_the_same_without_this_package(folders, tmp_path):
    look = f"print(json.dumps([look(folder)[1] for folder in {[str(folder) for folder in folders]}]))"
    seen, plain_seen = json.loads(run_python(LOOK + look, tmp_path).stdout)
    assert seen == plain_seen and plain_seen[:2] == ["WhisperForConditionalGeneration", "transformers"]
    plain, student = (WhisperForConditionalGeneration.from_pretrained(folder) for folder in folders[::-1])
    for name, weight in student.state_dict().items():
        assert torch.equal(plain.state_dict()[name], weight), name
    assert plain.generation_config.to_dict() == student.generation_config.to_dict()
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight


def test_weights_stay_in_their_precision(demo_tokenizer, tmp_path):
    export_folder(tiny_student(demo_tokenizer).half(), demo_processor(demo_tokenizer), tmp_path / "half")
    plain = WhisperForConditionalGeneration.from_pretrained(export(tmp_path / "half", "whisper", tmp_path / "plain"))
    assert plain.dtype == torch.float16


def test_this_package_loads_it_as_an_ordinary_whisper(folders):
    model, _ = load_checkpoint(folders[1], "cpu")
    assert type(model) is WhisperForConditionalGeneration
