"""Uploads that break at every point: what is said, and that a second push completes."""

import json

import pytest
from safetensors.torch import load_file, save_file

from ..fake_hub import FAIL, STUDENT_FILES, TOKEN, running_hub
from ..hub_folders import python_answer, save_student

# How often huggingface_hub tries is its own affair.
EVERY_TRY = 99
FAILURES = {
    "weights": {"route": "PUT /lfs/", "times": EVERY_TRY, "read": 5000},
    "weights once": {"route": "PUT /lfs/", "times": 1, "read": 5000},
    "weights refused": {"route": "PUT /lfs/", "times": EVERY_TRY, "status": 403},
    "weights failing": {"route": "PUT /lfs/", "times": EVERY_TRY, "status": 500},
    "preupload": {"route": "/preupload/", "times": EVERY_TRY, "read": 10},
    "batch": {"route": "/objects/batch", "times": EVERY_TRY, "read": 10},
    "commit": {"route": "/commit/", "times": EVERY_TRY, "read": 2000},
    "answer": {"route": "/commit/", "times": 1, "served": True},
}
PUSH = (
    FAIL
    + """
import contextlib, io, sys
from fastwhisper.cli.main import main

def push(folder, repository):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main(["push", folder, repository])
    return {"code": code, "error": error.getvalue()}

answers = {}
for index, (name, failure) in enumerate(json.loads(sys.argv[2]).items()):
    folder = f"{sys.argv[1]}/{index}"
    fail(**failure)
    first = push(folder, f"tester/r{index}")
    fail("nothing", 0)
    answers[name] = [first, push(folder, f"tester/r{index}")]
print(json.dumps(answers))
"""
)
SAID = {
    "weights": "push again",
    "weights refused": "may not write to tester/r2 (403)",
    "weights failing": "the Hub failed (500)",
    "preupload": "push again",
    "batch": "push again",
    "commit": "push again",
    "answer": "push again",
}


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def answers(hub, demo_tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("broken")
    for index in range(len(FAILURES)):
        folder = save_student(place / str(index), demo_tokenizer)
        # Weights of their own: the Hub asks for none that it has.
        weights = load_file(folder / "model.safetensors")
        weights["model.encoder.conv1.bias"] += index
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    client = tmp_path_factory.mktemp("client")
    return python_answer(PUSH, client, place, json.dumps(FAILURES), **hub.environment(TOKEN))


@pytest.mark.parametrize("name", SAID)
def test_a_broken_upload_says_in_one_line_what_to_do(answers, name):
    first, _ = answers[name]
    assert first["code"] == 2, first
    assert first["error"].startswith("fastwhisper push: error: ") and first["error"].count("\n") == 1
    assert SAID[name] in first["error"] and TOKEN not in first["error"]


def test_an_upload_that_broke_once_goes_on_by_itself(answers):
    assert answers["weights once"][0]["code"] == 0, answers["weights once"]


@pytest.mark.parametrize("name", FAILURES)
def test_a_second_push_completes_in_one_commit(hub, answers, name):
    index = list(FAILURES).index(name)
    assert answers[name][1]["code"] == 0, answers[name]
    assert set(hub.files(f"tester/r{index}")) >= STUDENT_FILES - {"curves.png", "training_run.json"}
    # The first commit is the empty one that every repository starts with.
    assert len(hub.history(f"tester/r{index}")) == 2


PULL_REQUEST = (
    FAIL
    + """
import contextlib, io, sys
from fastwhisper.cli.main import main

def push(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["push", sys.argv[1], "tester/request", "--create_pr", *words])
    return [code, out.getvalue().strip()]

assert main(["push", sys.argv[1], "tester/request"]) == 0
with open(sys.argv[1] + "/README.md", "a") as card:
    card.write("More of it.")
fail("/commit/", 1, served=True)
answers = [push()]
fail("nothing", 0)
answers.append(push())
with open(sys.argv[1] + "/README.md", "a") as card:
    card.write("And more.")
answers.append(push())
print(json.dumps(answers))
"""
)


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_a_second_push_goes_on_in_the_pull_request_whose_answer_was_lost(others, demo_tokenizer, tmp_path):
    folder = save_student(tmp_path / "student", demo_tokenizer)
    with running_hub() as hub:
        if others:
            row = {"createdAt": "2026-01-01T00:00:00.000Z", "repo": {"name": "tester/request", "type": "model"}}
            row = {**row, "isPullRequest": True, "title": "Upload with fastwhisper", "author": {"name": "tester"}}
            hub.pull_requests["tester/request"] = [
                {**row, "num": 1, "status": "merged"},
                {**row, "num": 2, "status": "open", "author": {"name": "somebody"}},
                {**row, "num": 3, "status": "open", "title": "Another name"},
                {**row, "num": 4, "status": "closed"},
            ]
        number = 5 if others else 1
        lost, again, more = python_answer(PULL_REQUEST, tmp_path, folder, **hub.environment(TOKEN))
    assert lost == [2, ""]
    assert again == more == [0, f"{hub.address}/tester/request/discussions/{number}"]
    assert len(hub.pull_requests["tester/request"]) == number
    # What was there before, and the two changes of the card.
    assert len(hub.history("tester/request", f"refs/pr/{number}")) == 2
    card = hub.files("tester/request", f"refs/pr/{number}")["README.md"]
    assert b"More of it.And more." in card and b"More of it." not in hub.files("tester/request")["README.md"]
