"""FastSLM on the Hub: AutoClasses, remote code without this package, the any-to-any pipeline, LoRA with PEFT."""

import json
import subprocess
import sys

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
    pipeline,
)

from fastwhisper import FastSLMConfig, FastSLMForCausalLM, FastSLMModel, FastSLMProcessor
from fastwhisper.hub_cards.remote_code import write_remote_code

from .fastslm_parts import tiny_pair

REMOTE = """
import json, sys
sys.modules["fastwhisper"] = None
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor
torch.set_num_threads(1)
folder = sys.argv[1]
options = dict(trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, **options)
request = processor.apply_transcription_request(np.sin(np.arange(40_000) * 0.05).astype(np.float32))
answers = {}
for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
    model = auto.from_pretrained(folder, **options)
    assert model.lm_head.weight is model.get_input_embeddings().weight or not model.config.tie_word_embeddings
    answers[auto.__name__] = model.generate(**request, max_new_tokens=5)[0].tolist()
body = AutoModel.from_pretrained(folder, **options)
answers["AutoModel"] = [type(body).__name__, float(body(**request).last_hidden_state.detach().abs().sum())]
answers["AutoConfig"] = AutoConfig.from_pretrained(folder, **options).model_type
print(json.dumps(answers))
"""


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


def test_remote_code_in_an_interpreter_without_this_package(pair, tmp_path):
    model, processor = pair
    for part in pair:
        part.save_pretrained(tmp_path / "repo")
    write_remote_code(tmp_path / "repo")
    run = subprocess.run(
        [sys.executable, "-I", "-c", REMOTE, str(tmp_path / "repo")],
        capture_output=True,
        text=True,
        env={"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    answers = json.loads(run.stdout.splitlines()[-1])
    request = processor.apply_transcription_request(sound())
    expected = model.generate(**request, max_new_tokens=5)[0].tolist()
    assert answers["AutoModelForCausalLM"] == answers["AutoModelForMultimodalLM"] == expected
    name, total = answers["AutoModel"]
    assert name == "FastSLMModel"
    assert total == pytest.approx(float(model.model(**request).last_hidden_state.detach().abs().sum()), rel=1e-4)
    assert answers["AutoConfig"] == "fastslm"


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
