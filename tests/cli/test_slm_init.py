"""`fastwhisper slm init`: a folder from parts that is complete, with its code and its card."""

from huggingface_hub import ModelCard

from fastwhisper.cli.main import main
from fastwhisper.hub_cards.remote_code import FAMILIES, PACKAGE, flattened_sources

from ..fastslm_parts import tiny_encoder, tiny_language_model, tiny_processor


def test_it_writes_a_complete_folder(tmp_path, capsys):
    processor = tiny_processor()
    tiny_encoder().save_pretrained(tmp_path / "whisper")
    processor.feature_extractor.save_pretrained(tmp_path / "whisper")
    tiny_language_model(vocab_size=900).save_pretrained(tmp_path / "llm")
    processor.tokenizer.save_pretrained(tmp_path / "llm")
    arguments = ["slm", "init", "--encoder", str(tmp_path / "whisper"), "--language_model", str(tmp_path / "llm")]
    arguments += ["--output", str(tmp_path / "out"), "--num_queries", "4", "--window_overlap", "0.5"]

    assert main(arguments) == 0

    assert "8.00 speech tokens per second" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    code = set(flattened_sources([PACKAGE / file for file in FAMILIES["fastslm"].files]))
    assert names >= code | {"README.md", "model.safetensors", "preprocessor_config.json", "processor_config.json"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the encoder of whisper," in card and "and llm." in card and "8.00 per second" in card
    assert "No training is recorded in this folder." in card
    place = str(tmp_path).encode()
    assert not [path.name for path in (tmp_path / "out").iterdir() if place in path.read_bytes()]
    assert ModelCard(card).data.pipeline_tag == "audio-text-to-text"
    assert main(["card", str(tmp_path / "out"), "--name", "somebody/slm"]) == 0
    assert 'from_pretrained("somebody/slm", trust_remote_code=True)' in (tmp_path / "out" / "README.md").read_text()
