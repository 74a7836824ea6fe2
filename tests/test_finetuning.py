"""A loaded student is fine-tuned by stock tools: the loss scale is right, LoRA trains, merges and reloads."""

import copy
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSpeechSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    WhisperForConditionalGeneration,
)

from fastwhisper import FastWhisperForConditionalGeneration

from .hub_folders import WITHOUT_PACKAGE, python_answer, save_student, tiny_student

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def rows():
    """Eight rows whose labels differ in length, so that a mean of means is not the mean."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_features": torch.randn(80, 200, generator=generator),
            "labels": torch.randint(600, (3 + 2 * index,), generator=generator),
        }
        for index in range(8)
    ]


def collate(rows):
    labels = torch.nn.utils.rnn.pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100)
    return {"input_features": torch.stack([row["input_features"] for row in rows]), "labels": labels}


def one_step(model, rows, output, batch_size):
    """Loss and gradient norm of one optimiser step over eight rows."""
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            str(output),
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=8 // batch_size,
            logging_steps=1,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=collate,
    )
    trainer.train()
    (logged,) = (row for row in trainer.state.log_history if "loss" in row)
    return logged["loss"], logged["grad_norm"]


def test_the_loss_is_the_same_however_a_batch_is_accumulated(tmp_path, demo_tokenizer, rows):
    whole = one_step(tiny_student(demo_tokenizer), rows, tmp_path, 8)

    for batch_size in (1, 2):
        assert one_step(tiny_student(demo_tokenizer), rows, tmp_path, batch_size) == pytest.approx(whole, rel=1e-4)


def test_the_stock_class_needs_ours(tmp_path, demo_tokenizer, rows):
    """Why `accepts_loss_kwargs` matters: should this fail one day, plain Whisper has been mended."""
    stock = WhisperForConditionalGeneration(tiny_student(demo_tokenizer).config)

    loss, _ = one_step(stock, rows, tmp_path, 1)

    assert loss > 4 * 6.0


def test_lora_trains_merges_and_reloads(tmp_path, demo_tokenizer, rows):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    student = FastWhisperForConditionalGeneration.from_pretrained(folder)
    before = student(**collate(rows)).logits.detach()
    adapted = get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    one_step(adapted, rows, tmp_path / "run", 8)
    adapted.eval().save_pretrained(tmp_path / "adapters")
    trained = adapted(**collate(rows)).logits.detach()
    assert not torch.allclose(trained, before)

    again = PeftModel.from_pretrained(
        FastWhisperForConditionalGeneration.from_pretrained(folder), tmp_path / "adapters"
    )
    torch.testing.assert_close(again.eval()(**collate(rows)).logits, trained)

    merged = adapted.merge_and_unload()
    assert type(merged) is FastWhisperForConditionalGeneration
    merged.save_pretrained(tmp_path / "merged")
    for kind in (FastWhisperForConditionalGeneration, WhisperForConditionalGeneration):
        reloaded = kind.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(reloaded(**collate(rows)).logits, trained, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "merged" / "modeling_fastwhisper.py").is_file()


def test_adapters_load_through_the_auto_class(tmp_path, demo_tokenizer):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    student = FastWhisperForConditionalGeneration.from_pretrained(folder)
    get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapters")

    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "adapters")

    assert any("lora_" in name for name, _ in loaded.named_parameters())


@pytest.mark.parametrize("kind", ["added", "loaded"])
def test_later_adapters_record_whisper_too(tmp_path, demo_tokenizer, kind):
    """Of those peft tells the model itself nothing."""
    folder, settings = save_student(tmp_path / "student", demo_tokenizer), LoraConfig(r=2, target_modules=["q_proj"])
    adapted = get_peft_model(FastWhisperForConditionalGeneration.from_pretrained(folder), settings)
    adapted.save_pretrained(tmp_path / "first")
    if kind == "added":
        adapted.add_adapter("second", LoraConfig(r=2, target_modules=["v_proj"]))
    else:
        adapted.load_adapter(tmp_path / "first", "second")
    adapted.save_pretrained(tmp_path / "both")
    for place in ("first", "both", "both/second"):
        loaded = AutoPeftModel.from_pretrained(tmp_path / place)
        assert type(loaded.get_base_model()) is WhisperForConditionalGeneration


# Trains nothing: adapters of random weights change what the model says, too.
ADAPT = (
    WITHOUT_PACKAGE
    + """
import json, torch
from peft import AutoPeftModel, LoraConfig, get_peft_model
from transformers import AutoModelForSpeechSeq2Seq

torch.set_num_threads(1)
batch = {"input_features": torch.ones(1, 80, 200), "decoder_input_ids": torch.tensor([[641, 642, 648]])}
student = AutoModelForSpeechSeq2Seq.from_pretrained(sys.argv[1], trust_remote_code=True)
adapted = get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
adapted.save_pretrained("adapters")
loaded = AutoPeftModel.from_pretrained("adapters").eval()
print(json.dumps({
    "classes": [type(model.get_base_model()).__module__.split(".")[0] for model in (adapted, loaded)],
    "differ": float((adapted(**batch).logits - loaded(**batch).logits).abs().max()),
    "recorded": json.load(open("adapters/adapter_config.json"))["auto_mapping"],
}))
"""
)
WHISPER = {
    "base_model_class": "WhisperForConditionalGeneration",
    "parent_library": "transformers.models.whisper.modeling_whisper",
}


def test_adapters_on_trusted_code_load_by_the_usual_recipe(tmp_path, demo_tokenizer):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    answers = python_answer(ADAPT, tmp_path, folder)
    assert answers["recorded"] == WHISPER
    assert answers["classes"] == ["transformers_modules", "transformers"] and answers["differ"] == 0.0


def test_adapters_on_our_class_load_by_the_usual_recipe(tmp_path, demo_tokenizer, rows):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    student = FastWhisperForConditionalGeneration.from_pretrained(folder)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(student, config).eval()
    expected = adapted(**collate(rows)).logits.detach()
    # Copies, such as a teacher of earlier weights, are saved as what they are.
    for name, model in (("adapters", adapted), ("copied", copy.deepcopy(adapted))):
        model.save_pretrained(tmp_path / name)
        loaded = AutoPeftModel.from_pretrained(tmp_path / name).eval()
        torch.testing.assert_close(loaded(**collate(rows)).logits, expected)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**collate(rows)).logits, expected, rtol=1e-4, atol=1e-4)
    assert type(merged) is WhisperForConditionalGeneration
    saved = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert saved["auto_mapping"] == WHISPER and saved["base_model_name_or_path"] == str(folder)


def test_a_task_of_peft_stays(tmp_path, demo_tokenizer):
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj"])
    PeftModel(tiny_student(demo_tokenizer), config).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["auto_mapping"] is None and saved["task_type"] == "SEQ_2_SEQ_LM"


@pytest.fixture(scope="module")
def example_folders(tmp_path_factory, demo_tokenizer):
    """A saved student, and a folder of audio files with their texts."""
    folder = tmp_path_factory.mktemp("examples")
    save_student(folder / "student", demo_tokenizer)
    (folder / "data").mkdir()
    noise = np.random.default_rng(0).standard_normal(16_000) / 10
    lines = ["file_name,text"]
    for index in range(4):
        soundfile.write(folder / "data" / f"{index}.wav", noise, 16_000)
        lines.append(f"{index}.wav,turn on the light")
    (folder / "data" / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("name", ["finetune_seq2seq_trainer", "finetune_lora"])
def test_the_example_trains_and_saves_a_whole_folder(example_folders, tmp_path, monkeypatch, name):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    source = EXAMPLES / f"{name}.py"
    assert len(source.read_text().splitlines()) < 60
    spec = importlib.util.spec_from_file_location(name, source)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    output = tmp_path / "tuned"

    example.main([str(example_folders / "student"), str(example_folders / "data"), str(output), "--max_steps", "2"])

    assert json.loads((output / "config.json").read_text())["auto_map"]["AutoModelForSpeechSeq2Seq"]
    assert {"model.safetensors", "modeling_fastwhisper.py", "processor_config.json"} <= {
        path.name for path in output.iterdir()
    }
    tuned = FastWhisperForConditionalGeneration.from_pretrained(output).state_dict()
    start = FastWhisperForConditionalGeneration.from_pretrained(example_folders / "student").state_dict()
    assert any(not torch.equal(tuned[key], start[key]) for key in start)
    if name == "finetune_lora":
        adapters = tmp_path / "tuned-adapters"
        assert json.loads((adapters / "adapter_config.json").read_text())["auto_mapping"] == WHISPER
        again = AutoPeftModel.from_pretrained(adapters).merge_and_unload().state_dict()
        assert all(torch.equal(tuned[key], again[key]) for key in start)
