"""FastSLM on the Hub: AutoClasses, remote code without this package, the any-to-any pipeline, LoRA with PEFT."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoProcessor,
    Trainer,
    TrainingArguments,
    pipeline,
)

from fastwhisper import FastSLMConfig, FastSLMForCausalLM, FastSLMModel, FastSLMProcessor
from fastwhisper.hub_cards.remote_code import FAMILIES, PACKAGE, flattened_sources

from ..bare_environment import INTERPRETERS, answer_elsewhere
from ..fastslm_parts import ADAPTER, tiny_encoder, tiny_language_model, tiny_pair

READER = Path(__file__).parent / "fastslm_reader.py"


@pytest.fixture(scope="module")
def pair():
    return tiny_pair({"rates": (2, 5)})


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny-fastslm"
    for part in pair:
        part.save_pretrained(folder)
    return folder


def sound():
    return np.sin(np.arange(40_000) * 0.05).astype(np.float32)


def test_auto_classes(folder):
    assert isinstance(AutoConfig.from_pretrained(folder), FastSLMConfig)
    assert isinstance(AutoModel.from_pretrained(folder), FastSLMModel)
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        assert isinstance(auto.from_pretrained(folder), FastSLMForCausalLM)
    assert isinstance(AutoProcessor.from_pretrained(folder), FastSLMProcessor)


def test_auto_classes_after_a_light_import(folder):
    code = (
        "import sys, fastwhisper\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "for name in ('AutoConfig', 'AutoProcessor', 'AutoModelForMultimodalLM'):\n"
        "    auto = getattr(__import__('transformers'), name)\n"
        "    print(type(auto.from_pretrained(sys.argv[1])).__module__)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [line.split(".")[0] for line in run.stdout.splitlines()] == ["fastwhisper"] * 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The first checkpoint of a stock trainer."""
    output = tmp_path_factory.mktemp("run")
    model, processor = tiny_pair({"rates": (2, 5)})
    chat = [
        {"role": "user", "content": [{"type": "audio", "audio": sound()}]},
        {"role": "assistant", "content": "stop the music please"},
    ]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            str(output), max_steps=1, save_steps=1, report_to=[], use_cpu=True, remove_unused_columns=False
        ),
        train_dataset=[chat],
        data_collator=lambda chats: processor.apply_chat_template(chats, output_labels=True),
        processing_class=processor,
    )
    trainer.train()
    return output / "checkpoint-1"


@pytest.fixture(scope="module", params=INTERPRETERS)
def answers(request, tmp_path_factory, checkpoint):
    """What a fresh interpreter without this package sees, at first, and after saving what it loaded."""
    return answer_elsewhere(request.param, READER, tmp_path_factory.mktemp("elsewhere"), checkpoint)


@pytest.mark.parametrize("name", ["checkpoint", "again", "twice"])
def test_a_checkpoint_in_an_interpreter_without_this_package(answers, checkpoint, name):
    model, processor = FastSLMForCausalLM.from_pretrained(checkpoint), FastSLMProcessor.from_pretrained(checkpoint)
    request = processor.apply_transcription_request(sound())
    expected = model.generate(**request, max_new_tokens=5)[0].tolist()
    said = answers[name]
    assert said["AutoModelForCausalLM"] == said["AutoModelForMultimodalLM"] == expected
    kind, total = said["AutoModel"]
    assert kind == "FastSLMModel"
    assert total == pytest.approx(float(model.model(**request).last_hidden_state.detach().abs().sum()), rel=1e-4)
    assert said["AutoConfig"] == "fastslm" and said["classes"] == ["transformers_modules"] * 3
    assert set(flattened_sources([PACKAGE / file for file in FAMILIES["fastslm"].files])) <= set(said["saved"])


def test_a_config_saved_alone_has_its_code(tmp_path):
    FastSLMConfig().save_pretrained(tmp_path)

    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == FAMILIES["fastslm"].auto_map
    assert {f"{file.split('.')[0]}.py" for file in saved["auto_map"].values()} <= {p.name for p in tmp_path.iterdir()}


def test_the_parts_are_recorded_by_their_public_names(tmp_path):
    encoder, language_model = tiny_encoder(), tiny_language_model()
    model = FastSLMForCausalLM.from_parts(encoder, language_model, ADAPTER)
    assert (model.config.speech_encoder, model.config.language_model) == (None, None)

    encoder.save_pretrained(tmp_path / "whisper")
    language_model.save_pretrained(tmp_path / "llm")
    model = FastSLMForCausalLM.from_parts(str(tmp_path / "whisper"), tmp_path / "llm", ADAPTER)
    model.save_pretrained(tmp_path / "slm")
    config = AutoConfig.from_pretrained(tmp_path / "slm")
    assert (config.speech_encoder, config.language_model) == ("whisper", "llm")
    # Nor do the configurations of the parts say where on this machine they were.
    assert str(tmp_path) not in (tmp_path / "slm" / "config.json").read_text()

    encoder.config._name_or_path, language_model.config._name_or_path = "openai/whisper-tiny", "Qwen/Qwen3-0.6B"
    model = FastSLMForCausalLM.from_parts(encoder, language_model, ADAPTER)
    assert (model.config.speech_encoder, model.config.language_model) == ("openai/whisper-tiny", "Qwen/Qwen3-0.6B")


def test_any_to_any_pipeline(folder, tmp_path):
    soundfile.write(tmp_path / "tone.wav", sound(), 16_000)
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "audio", "path": str(tmp_path / "tone.wav")},
                {"type": "text", "text": "What is it?"},
            ],
        }
    ]
    pipe = pipeline("any-to-any", model=str(folder))
    answer = pipe(chat, max_new_tokens=5, return_full_text=False)[0]["generated_text"]
    model, processor = FastSLMForCausalLM.from_pretrained(folder), FastSLMProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)
    ids = model.generate(**inputs, max_new_tokens=5)[:, inputs["input_ids"].shape[1] :]
    assert answer.strip() == processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


def test_lora_beside_a_trained_adapter_saved_reloaded_and_merged(folder, pair, tmp_path):
    processor = pair[1]
    model = FastSLMForCausalLM.from_pretrained(folder)
    config = LoraConfig(
        r=2,
        lora_alpha=8,
        target_modules=r".*language_model.*\.(q_proj|v_proj)",
        modules_to_save=["adapter", "multi_modal_projector"],
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(model, config)
    trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert all("lora_" in n or ".adapter." in n or "multi_modal_projector" in n for n in trained)
    chat = [
        {"role": "user", "content": [{"type": "audio", "audio": sound()}]},
        {"role": "assistant", "content": "stop the music please"},
    ]
    batch = processor.apply_chat_template(chat, output_labels=True)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = tuned(**batch).loss
        loss.backward()
        assert all(p.grad is not None for n, p in tuned.named_parameters() if n in trained)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    tuned.eval().save_pretrained(tmp_path / "adapter")
    request = processor.apply_transcription_request(sound())
    expected = tuned(**request).logits
    reloaded = PeftModel.from_pretrained(FastSLMForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
    torch.testing.assert_close(reloaded(**request).logits, expected)
    with reloaded.disable_adapter():
        torch.testing.assert_close(reloaded(**request).logits, pair[0](**request).logits)
    merged = reloaded.merge_and_unload()
    assert isinstance(merged, FastSLMForCausalLM)
    torch.testing.assert_close(merged(**request).logits, expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = FastSLMForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again(**request).logits, expected, rtol=1e-4, atol=1e-4)
    assert merged.generate(**request, max_new_tokens=4).shape[0] == 1
