"""Pushing to a Hub on this machine: what arrives, what never does, and what is said when it goes wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastwhisper.errors import InputError
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.hub_cards.push import stage

from ..fake_hub import FAIL, STUDENT_FILES, TOKEN
from ..fastslm_parts import tiny_pair
from ..hub_folders import LOOK, python_answer, save_student

ARRIVES = STUDENT_FILES | {"evaluation.json"}

PUSH = (
    FAIL
    + """
import contextlib, io, sys
from fastwhisper.cli.main import main

answers = {}

def push(name, *arguments):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main(["push", *arguments])
    answers[name] = {"code": code, "out": out.getvalue(), "error": error.getvalue()}

folder = sys.argv[1]
push("first", folder, "tester/student", "--private")
push("again", folder, "tester/student")
push("branch", folder, "tester/student", "--revision", "next")
push("request", folder, "tester/student", "--create_pr")
for status in (401, 404, 500):
    fail("/api/repos/create", 1, status)
    push(f"create {status}", folder, f"tester/c{status}")
    push(f"create {status}, again", folder, f"tester/c{status}")
for status in (403, 500):
    fail("/commit/", 1, status)
    push(f"commit {status}", folder, f"tester/d{status}")
    push(f"commit {status}, again", folder, f"tester/d{status}")
fail("/api/validate-yaml", 1, 400)
push("metadata 400", folder, "tester/m400")
push("metadata 400, again", folder, "tester/m400")
fail("/commit/", 1)
push("dropped", folder, "tester/dropped")
push("dropped, again", folder, "tester/dropped")
push("speech", sys.argv[2], "tester/speech")
push("no name", folder, "a/b/c")
push("no owner", folder, "student")
push("other family", sys.argv[3], "tester/other")
push("no folder", folder + "-missing", "tester/student")
push("one word", folder)

from fastwhisper import FastWhisperForConditionalGeneration
model = FastWhisperForConditionalGeneration.from_pretrained(folder)
model.push_to_hub("tester/direct")
model.config.save_pretrained("config", push_to_hub=True, repo_id="tester/config", commit_message="The config alone")
print(json.dumps(answers))
"""
)

LOAD = (
    LOOK
    + """
import numpy
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

answers = {}
for name, repo, options in (
    ("plain", "tester/student", {}),
    ("trusted", "tester/student", {"trust_remote_code": True}),
    ("AutoModel", "tester/student", {"trust_remote_code": True, "load": AutoModel}),
    ("pinned", "tester/student", {"trust_remote_code": True, "revision": sys.argv[1]}),
    ("direct", "tester/direct", {"trust_remote_code": True}),
):
    answers[name] = look(repo, **options)[1]
answers["config"] = type(AutoConfig.from_pretrained("tester/config", trust_remote_code=True)).__name__
speech = AutoModelForCausalLM.from_pretrained("tester/speech", trust_remote_code=True).eval()
listener = AutoProcessor.from_pretrained("tester/speech", trust_remote_code=True)
request = listener.apply_transcription_request(numpy.sin(numpy.arange(40_000) * 0.05).astype(numpy.float32))
answers["speech"] = [type(speech).__name__, type(listener).__name__, speech(**request).logits[0, -1, :8].tolist()]
answers["processor"] = type(AutoProcessor.from_pretrained("tester/student")).__name__
answers["library"] = ModelCard.load("tester/student").data.library_name
print(json.dumps(answers))
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, demo_tokenizer):
    """A folder that a training left behind: a model, and much that is nobody else's business."""
    folder = save_student(tmp_path_factory.mktemp("push") / "student", demo_tokenizer)
    (folder / "preprocessor_config.json").unlink()
    (folder / "curves.png").write_bytes(b"\x89PNG")
    (folder / "training_run.json").write_text(json.dumps({"teacher": {"license": "apache-2.0"}}))
    (folder / "evaluation.json").write_text(json.dumps({"command": f"fastwhisper evaluate --model {folder}"}))
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "self_teacher.safetensors"):
        (folder / name).write_bytes(TOKEN.encode())
    for name in ("trainer_state.json", "askd_state.json", ".env", "notes.py"):
        (folder / name).write_text(TOKEN)
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "config.json").write_text(TOKEN)
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def speech_pair():
    return tiny_pair()


@pytest.fixture(scope="module")
def speech_folder(tmp_path_factory, speech_pair):
    return export_folder(*speech_pair, tmp_path_factory.mktemp("push") / "speech")


@pytest.fixture(scope="module")
def pushed(hub, folder, content, speech_folder, tmp_path_factory):
    """What each call of `fastwhisper push` said."""
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "config.json").write_text('{"model_type": "bert"}')
    client = tmp_path_factory.mktemp("client")
    return python_answer(PUSH, client, folder, speech_folder, other, **hub.environment(TOKEN))


@pytest.fixture(scope="module")
def loaded(hub, pushed, tmp_path_factory):
    """What a machine without this package gets from the Hub."""
    commit = hub.history("tester/student")[1]
    return python_answer(LOAD, tmp_path_factory.mktemp("reader"), commit, **hub.environment())


def test_a_push_is_one_complete_commit(hub, pushed):
    assert pushed["first"]["code"] == 0, pushed["first"]["error"]
    # The first commit is the empty one that every repository starts with.
    assert len(hub.history("tester/student")) == 2
    assert set(hub.files("tester/student")) == ARRIVES
    assert pushed["first"]["out"].strip().endswith(hub.history("tester/student")[1])
    assert "tester/student" in hub.private


def test_nothing_private_arrives(hub, pushed, folder):
    hub.check_nothing_private(folder.parent)


def test_the_card_names_the_repository(hub, pushed):
    assert b'model="tester/student"' in hub.files("tester/student")["README.md"]


def test_the_folder_is_left_as_it_was(pushed, folder, content):
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == content


def test_pushed_again_nothing_is_sent_twice(hub, pushed):
    assert pushed["again"]["code"] == 0
    assert len(hub.history("tester/student")) == 2
    (weights,) = {oid for oid in hub.large if hub.large[oid] == hub.files("tester/student")["model.safetensors"]}
    assert hub.requests.count(f"PUT /lfs/{weights}") == 1


def test_a_branch_and_a_pull_request(hub, pushed):
    assert pushed["branch"]["code"] == pushed["request"]["code"] == 0
    assert set(hub.files("tester/student", "next")) == ARRIVES
    assert len(hub.history("tester/student")) == 2


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("create 401", "hf auth login"),
        ("create 404", "the Hub has no tester/c404"),
        ("create 500", "the Hub failed (500)"),
        ("commit 403", "may not write to tester/d403"),
        ("commit 500", "push again"),
        ("metadata 400", "the Hub did not accept tester/m400: Invalid metadata in README.md."),
        ("dropped", "the connection to http://127.0.0.1"),
    ],
)
def test_a_failure_is_one_clear_line_and_a_second_try_succeeds(hub, pushed, failure, said):
    first, second = pushed[failure], pushed[f"{failure}, again"]

    assert first["code"] == 2
    assert first["error"].startswith("fastwhisper push: error: ") and said in first["error"]
    assert first["error"].count("\n") == 1 and "Traceback" not in first["error"]
    assert second["code"] == 0, second["error"]
    repo = f"tester/{failure.replace('create ', 'c').replace('commit ', 'd').replace('metadata ', 'm')}"
    assert set(hub.files(repo)) == ARRIVES and len(hub.history(repo)) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no name", "OWNER/NAME"),
        ("no owner", "OWNER/NAME"),
        ("no folder", "no config.json"),
        ("other family", "'bert'"),
        ("one word", "FOLDER and REPO"),
    ],
)
def test_wrong_arguments_are_one_line(pushed, name, said):
    assert pushed[name]["code"] == 2
    assert said in pushed[name]["error"] and pushed[name]["error"].count("\n") == 1


def test_it_loads_from_the_hub_with_and_without_our_code(loaded):
    assert loaded["plain"][:2] == ["WhisperForConditionalGeneration", "transformers"]
    for name in ("trusted", "AutoModel", "pinned", "direct"):
        assert loaded[name][:2] == ["FastWhisperForConditionalGeneration", "transformers_modules"], name
        torch.testing.assert_close(loaded[name][2], loaded["plain"][2], rtol=0, atol=0)
    assert loaded["processor"] == "WhisperProcessor" and loaded["config"] == "FastWhisperConfig"
    assert loaded["library"] == "transformers"


def test_a_fastslm_is_pushed_with_its_card_and_loads(hub, pushed, loaded, speech_pair):
    assert pushed["speech"]["code"] == 0, pushed["speech"]["error"]
    assert b"tester/speech is a FastSLM" in hub.files("tester/speech")["README.md"]
    model, processor = speech_pair
    request = processor.apply_transcription_request(np.sin(np.arange(40_000) * 0.05).astype(np.float32))
    assert loaded["speech"][:2] == ["FastSLMForCausalLM", "FastSLMProcessor"]
    torch.testing.assert_close(loaded["speech"][2], model(**request).logits[0, -1, :8].tolist(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "secret", "what"),
    [
        ("README.md", TOKEN, "a Hub token"),
        ("evaluation.json", '{"key": "ghp_' + "a" * 36 + '"}', "a GitHub token"),
        ("notes.txt", "-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("chat_template.jinja", "\n{{ '/home/somebody/secret' }}", "line 2 contains a local path"),
        ("tokenizer_config.json", "{own}", "a local path"),
        ("model.safetensors", TOKEN, "model.safetensors contains a Hub token"),
    ],
)
def test_a_file_with_something_private_is_refused_by_name(tmp_path, demo_tokenizer, name, secret, what):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    if name == "tokenizer_config.json":
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, "name_or_path": str(folder)}))
    elif name == "model.safetensors":
        save_file(load_file(folder / name), folder / name, metadata={"format": "pt", "note": secret})
    else:
        with (folder / name).open("a") as file:
            file.write(secret)
    (tmp_path / "staging").mkdir()

    with pytest.raises(InputError, match=what) as refused:
        stage(folder, tmp_path / "staging", "tester/student")
    assert name in str(refused.value) and TOKEN not in str(refused.value)


def test_a_folder_without_weights_is_refused(tmp_path, demo_tokenizer):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    shutil.move(folder / "model.safetensors", folder / "self_teacher.safetensors")
    (tmp_path / "staging").mkdir()

    with pytest.raises(InputError, match="no safetensors weights"):
        stage(folder, tmp_path / "staging", "tester/student")
