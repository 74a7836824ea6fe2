"""The README's code runs as it stands, in a folder where `fastwhisper demo` has run (with few steps)."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from fastwhisper.cli.main import VERBS, main

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def commands(language):
    """The commands of the blocks in a language, continuation lines joined, comments dropped."""
    text = "\n".join(body for name, body in BLOCKS if name == language).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if shlex.split(line, comments=True)]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install fastwhisper[demo]")
    folder = tmp_path_factory.mktemp("readme")
    arguments = ["--output", str(folder / "demo"), "--steps", "3", "--clips", "32", "--held_out_clips", "6"]
    assert main(["demo", *arguments]) == 0
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def test_demo_wrote_what_it_names(demo_folder):
    student = demo_folder / "demo" / "student"
    for name in ("README.md", "curves.png", "evaluation.json", "model.safetensors", "modeling_fastwhisper.py"):
        assert (student / name).stat().st_size > 0, name
    assert (demo_folder / "demo" / "recording.vtt").read_text().startswith("WEBVTT")


def test_commands_on_the_demo_run(demo_folder, monkeypatch):
    monkeypatch.chdir(demo_folder)
    (demo_folder / "home").mkdir(exist_ok=True)
    mine = [words[1:] for words in commands("bash") if words[0] == "fastwhisper"]
    assert len(mine) >= 5
    for words in mine:
        # A random order of errors would leave no row: the demo's student of three steps knows nothing.
        words = [
            ("2.0" if before == "--wer_filter" else word) for before, word in zip(["", *words], words, strict=False)
        ]
        assert main(words) == 0, words


def test_python_blocks_run(demo_folder, monkeypatch):
    monkeypatch.chdir(demo_folder)
    blocks = [body for name, body in BLOCKS if name == "python"]
    assert len(blocks) >= 2
    for body in blocks:
        exec(compile(body, "README.md", "exec"), {"__name__": "readme"})


def known_flags(words, capsys):
    assert main([*words, "--help"]) == 0
    return set(re.findall(r"--\w+", capsys.readouterr().out))


def test_commands_on_the_hub_name_true_flags(capsys):
    checked = 0
    for words in commands("sh"):
        if "fastwhisper" not in words:
            continue
        verb, *rest = words[words.index("fastwhisper") + 1 :]
        assert verb in VERBS
        known = known_flags([verb, rest[0]] if verb == "slm" else [verb], capsys)
        assert {word for word in rest if word.startswith("--")} <= known, words
        checked += 1
    assert checked >= 9


def test_recipe_has_known_keys(capsys):
    from dataclasses import fields

    from fastwhisper import ASKDTrainingArguments
    from fastwhisper.cli.distill import DistillArguments

    known = {
        field.name for argument_class in (DistillArguments, ASKDTrainingArguments) for field in fields(argument_class)
    }
    assert set(yaml.safe_load((ROOT / "examples" / "distill.yaml").read_text())) <= known


def test_first_two_commands_are_installation_with_demo_and_tests():
    first, second = [body.strip() for name, body in BLOCKS if name == "bash"][:2]
    assert "\n" not in first and first.endswith("fastwhisper demo")
    assert "\n" not in second and second.endswith("python -m pytest")


def test_no_placeholder_survives():
    text = (ROOT / "README.md").read_text()
    assert not re.search(r"\b(DEMO|TEST|BENCH|TRAINING)_[A-Z]+\b", text), sys.argv
