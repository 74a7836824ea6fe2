"""The help of every verb: quick, without torch and transformers, and with every flag."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys

import pytest

from fastwhisper.cli.main import VERBS, main
from fastwhisper.cli.slm import VERBS as ACTIONS
from fastwhisper.trainers.askd_settings import ASKDSettings

from ..tiny_models import CHECKPOINTING

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "numpy",
    "peft",
    "evaluate",
    "matplotlib",
    "huggingface_hub",
)
CALLS = [*([verb] for verb in VERBS), *(["slm", action] for action in ACTIONS)]

# One process for all verbs: what a verb imports alone is in the time of the first that needs it.
SCRIPT = """
import contextlib, io, json, sys, time
started = time.process_time()
from fastwhisper.cli.main import main
answers = []
for call in json.loads(sys.argv[1]):
    before = started if not answers else time.process_time()
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        code = main([*call, "--help"])
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    answers.append({"code": code, "seconds": time.process_time() - before, "help": shown.getvalue(), "heavy": heavy})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(CALLS), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return dict(zip(map(" ".join, CALLS), json.loads(done.stdout), strict=True))


def groups_of(call):
    """The dataclasses of a call's flags: those of its module, and what they share."""
    verb, _, action = call.partition(" ")
    module = importlib.import_module(f"fastwhisper.cli.{verb.replace('-', '_')}")
    if verb == "distill":
        return module._verb(ASKDSettings).groups
    return module.VERBS[action].groups if action else module.VERB.groups


@pytest.mark.parametrize("call", [" ".join(call) for call in CALLS])
def test_help_is_quick_imports_nothing_heavy_and_names_every_flag(answers, call):
    answer = answers[call]
    assert answer["code"] == 0 and answer["heavy"] == [] and answer["seconds"] < 1.0
    shown = answer["help"]
    words = " ".join(shown.split())
    assert f"usage: fastwhisper {call}" in shown
    if call == "slm":
        assert all(f"  {action} " in shown for action in ACTIONS)
        return
    assert "--config FILE" in shown and "FASTWHISPER_TRACEBACK" in shown and "example:" in shown
    for field in (field for group in groups_of(call) for field in dataclasses.fields(group)):
        assert f"  --{field.name} " in shown or f"  --{field.name}\n" in shown, field.name
        described = " ".join(field.metadata["help"].split())
        assert described in words, field.name
        required = field.default is field.default_factory is dataclasses.MISSING
        assert (f"{described} (required)" in words) == required, field.name


def test_help_of_distill_names_the_usual_flags_of_a_trainer(answers):
    from transformers import Seq2SeqTrainingArguments

    shown = answers["distill"]["help"]
    named = {word.strip(",") for word in shown.split("The usual ones:")[1].split() if word.startswith("--")}
    named -= {"--multi_gpu", "--num_processes"}
    fields = {f"--{field.name}" for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    known = {"--activation_checkpointing" if field == f"--{CHECKPOINTING}" else field for field in fields}
    assert {"--output_dir", "--max_steps", "--resume_from_checkpoint"} <= named <= known


def test_the_program_alone_names_its_verbs(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown and about in shown for verb, about in VERBS.items())
    assert main([]) == 2
    assert main(["--version"]) == 0
    capsys.readouterr()
    assert main(["destill"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "there is no verb 'destill'" in captured.err
