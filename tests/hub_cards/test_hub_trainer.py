"""`trainer.push_to_hub()` and the pushes of a training under way, to a Hub on this machine."""

import json

import pytest
import torch
import yaml

from ..fake_hub import FAIL, STUDENT_FILES, TOKEN
from ..hub_folders import LOOK, python_answer, save_student

TRAIN = (
    FAIL
    + """
import logging, sys
import torch
from peft import LoraConfig, get_peft_model
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.hub_cards.callback import ModelCardCallback

torch.set_num_threads(1)
folder, answers, logged = sys.argv[1], {}, []
processor = WhisperProcessor.from_pretrained(folder)
row = {"input_features": torch.zeros(80, 200), "labels": torch.tensor([642, 5, 640])}

class Log(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())

logging.getLogger("fastwhisper").addHandler(Log())

def trainer(name, lora=None, card=True, **settings):
    teacher = WhisperForConditionalGeneration.from_pretrained(folder)
    student = FastWhisperForConditionalGeneration.from_pretrained(folder)
    if lora:
        student.name_or_path = student.config._name_or_path = lora
        student = get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj"]))
    args = ASKDTrainingArguments(
        os.path.abspath(name), max_steps=2, save_steps=1, logging_steps=1, per_device_train_batch_size=2,
        report_to=[], use_cpu=True, disable_tqdm=True, **settings,
    )
    callbacks = [ModelCardCallback(teacher, datasets=["openslr/librispeech_asr"])] if card else []
    return ASKDTrainer(
        student, teacher, args, train_dataset=[row] * 4, processing_class=processor, callbacks=callbacks
    )

run = trainer("run", push_to_hub=True, hub_model_id="tester/run", hub_token=sys.argv[2], save_total_limit=1)
run.train()
answers["commit"] = run.push_to_hub("Done", language="en", license="mit", tags="coffee").oid
run.push_to_hub("Once more")
answers["output"] = sorted(os.listdir("run"))
answers["token in arguments"] = sys.argv[2].encode() in open("run/training_args.bin", "rb").read()

plain = trainer("plain", card=False, save_strategy="no")
plain.train()
answers["future"] = plain.push_to_hub(blocking=False, revision="main").result().oid

os.mkdir("hand")
open("hand/README.md", "w").write("# By hand\\n")
trainer("hand").push_to_hub()

fail("/commit/", 1, 500)
unlucky = trainer("unlucky", push_to_hub=True, hub_model_id="tester/unlucky")
unlucky.train()
unlucky._finish_current_push()
answers["steps"] = unlucky.state.global_step
answers["logged"] = [line for line in logged if "push of step" in line]

lora = trainer("lora", lora="tester/base", push_to_hub=True, hub_model_id="tester/lora")
lora.train()
lora.push_to_hub()
trainer("own", lora=folder, push_to_hub=True, hub_model_id="tester/own").train()
answers["base"] = [line for line in logged if "was not pushed" in line]

def said(call):
    try:
        call()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"

answers["checkpoint"] = said(lambda: trainer("c", push_to_hub=True, hub_strategy="checkpoint"))
fail("/api/repos/create", 1, 401)
answers["401"] = said(lambda: trainer("d", push_to_hub=True, hub_model_id="tester/d"))
with torch.no_grad():
    next(plain.model.parameters()).add_(1.0)  # there is something to push
fail("/commit/", 1, None)
answers["dropped"] = said(plain.push_to_hub)
fail("/commit/", 1, 500)
answers["500"] = said(plain.push_to_hub)
answers["second"] = plain.push_to_hub().oid
answers["left over"] = [name for run in ("run", "plain", "unlucky") for name in os.listdir(run) if ".push" in name]
with open("plain/normalizer.json", "w") as file:
    file.write('"' + sys.argv[2] + '"')
answers["secret"] = said(plain.push_to_hub)
print(json.dumps(answers))
"""
)

LOAD = (
    LOOK
    + """
print(json.dumps({
    f"{revision} {trust}": look("tester/run", revision=revision, trust_remote_code=trust)[1]
    for revision in ("main", *sys.argv[1:]) for trust in (False, True)
}))
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def answers(hub, folder, tmp_path_factory, demo_tokenizer):
    student = save_student(tmp_path_factory.mktemp("trained") / "student", demo_tokenizer)
    return python_answer(TRAIN, folder, student, TOKEN, **hub.environment(TOKEN))


def metadata(hub, repo):
    card = hub.files(repo)["README.md"].decode()
    return card, yaml.safe_load(card.split("---")[1])


def test_every_save_and_the_end_are_one_complete_commit_each(hub, answers):
    commits = hub.history("tester/run")
    # The empty one, two checkpoints (the second may find the first under way), the end; "once more" changes nothing.
    assert 3 <= len(commits) <= 4 and commits[-1] == answers["commit"]
    for commit in commits[1:]:
        assert set(hub.commits[commit]) == STUDENT_FILES


def test_the_card_tells_of_the_run_and_of_what_was_given(hub, answers):
    card, data = metadata(hub, "tester/run")
    assert 'model="tester/run"' in card and "| steps | 2 |" in card and "# run\n" in card
    assert data["license"] == "mit" and data["language"] == "en" and "coffee" in data["tags"]
    assert data["datasets"] == ["openslr/librispeech_asr"]
    first = hub.commits[hub.history("tester/run")[1]]["README.md"].decode()
    assert "| steps | 1 |" in first or "| steps | 2 |" in first


def test_nothing_private_arrives(hub, answers, folder):
    assert len(hub.commits) > 8
    hub.check_nothing_private(folder)
    for name in {name for commit in hub.commits.values() for name in commit}:
        assert name != "training_args.bin" and "optimizer" not in name and "self_teacher" not in name


def test_the_arguments_beside_a_checkpoint_hold_no_token(answers):
    assert "training_args.bin" in answers["output"]
    assert answers["token in arguments"] is False


def test_without_a_callback_the_folder_is_complete_too(hub, answers):
    files = hub.commits[answers["future"]]
    assert set(files) == STUDENT_FILES - {"curves.png"}
    assert b'model="tester/plain"' in files["README.md"]


def test_a_card_by_hand_is_pushed_as_it_is(hub, answers):
    assert hub.files("tester/hand")["README.md"] == b"# By hand\n"


def test_a_failed_push_stops_no_training_and_is_said(answers):
    assert answers["steps"] == 2
    (said,) = answers["logged"]
    assert said.startswith("the push of step 1 failed: the Hub failed (500); the folder is as it was")


def test_an_adapter_is_pushed_as_peft_saved_it(hub, answers):
    names = set(hub.files("tester/lora"))
    assert {"adapter_config.json", "adapter_model.safetensors", "processor_config.json"} <= names
    assert "training_args.bin" not in names and "config.json" not in names


def test_an_adapter_of_a_folder_on_this_machine_is_not_pushed_and_stops_no_training(hub, answers):
    assert len(hub.history("tester/own")) == 1 and len(answers["base"]) == 2
    assert "contains a local path: nothing was uploaded" in answers["base"][0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("checkpoint", "InputError: hub_strategy='checkpoint' would upload optimiser states"),
        ("401", "PushError: no valid token for tester/d (401)"),
        ("dropped", "PushError: the connection to http://127.0.0.1"),
        ("500", "PushError: the Hub failed (500)"),
        ("secret", "InputError: normalizer.json, line 1 contains a Hub token: nothing was uploaded"),
    ],
)
def test_what_goes_wrong_is_said(answers, name, said):
    assert answers[name].startswith(said)


def test_after_a_failure_a_second_try_succeeds_and_nothing_is_left_over(hub, answers):
    assert answers["second"] == hub.history("tester/plain")[-1]
    assert answers["left over"] == []


def test_every_revision_loads_without_this_package(hub, answers, tmp_path):
    first = hub.history("tester/run")[1]
    loaded = python_answer(LOAD, tmp_path, first, **hub.environment())
    for revision in ("main", first):
        plain, trusted = loaded[f"{revision} False"], loaded[f"{revision} True"]
        assert (plain[0], trusted[0]) == ("WhisperForConditionalGeneration", "FastWhisperForConditionalGeneration")
        torch.testing.assert_close(plain[2], trusted[2], rtol=0, atol=0)
    assert json.dumps(loaded[f"{first} True"]) != json.dumps(loaded["main True"])
