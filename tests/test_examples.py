"""The example that trains a FastSLM runs as it stands, on a few clips; examples stay short."""

import importlib.util
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoProcessor

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_fastslm_is_trained_measured_and_saved_whole(tmp_path, capsys):
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")
    spec = importlib.util.spec_from_file_location("finetune_fastslm", EXAMPLES / "finetune_fastslm.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    output = tmp_path / "slm"

    rate = example.main(["--output", str(output), "--steps", "2", "--clips", "16", "--held_out_clips", "2"])

    assert f"WER on 2 commands of held-out voices: {100 * rate:.1f} %" in capsys.readouterr().out
    assert "| steps | 2 |" in (output / "README.md").read_text()
    model, processor = AutoModelForCausalLM.from_pretrained(output), AutoProcessor.from_pretrained(output)
    chat = example.as_chat(example.speak(1, 1, example.HELD_OUT_VARIANTS, 4.0)[0], processor)
    inputs = processor.apply_chat_template([chat], output_labels=True)
    assert model(**inputs).loss.item() > 0


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_have_under_a_hundred_lines(path):
    assert len(path.read_text().splitlines()) < 100
