"""The README's code runs as it stands, in a folder where `fastwhisper demo` has run (with few steps)."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fastwhisper.cli.main import VERBS, main

from .bare_environment import script_with_only
from .fake_hub import running_hub
from .hub_folders import run_python

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Each section runs as one: that about the Hub with a Hub on this machine.
HUB = re.search(r"^## On the Hub\n.*?(?=^## )", README, re.MULTILINE | re.DOTALL)[0]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS, HUB_BLOCKS = FENCED.findall(README.replace(HUB, "")), FENCED.findall(HUB)
TOKEN = "hf_" + "eF5" * 12

COMMAND = "import sys; from fastwhisper.cli.main import main; sys.exit(main(sys.argv[1:]))"
CLASSES = "print(type(model).__module__.partition('.')[0], type(transcriber.model).__name__)\n"


def commands(language):
    """The commands of the blocks in a language, continuation lines joined, comments dropped."""
    text = "\n".join(body for name, body in BLOCKS if name == language).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if shlex.split(line, comments=True)]


@pytest.fixture(scope="module")
def readme_folder(demo_folder, tmp_path_factory):
    """A copy of the demo's folder, with the examples in it, and what that of FastSLM writes (with few steps)."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(demo_folder / "demo", folder / "demo")
    shutil.copytree(ROOT / "examples", folder / "examples")
    few = ["--steps", "2", "--clips", "16", "--held_out_clips", "2"]
    command = [sys.executable, ROOT / "examples" / "finetune_fastslm.py", "--output", "tiny_fastslm", *few]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_demo_wrote_what_it_names(readme_folder):
    student = readme_folder / "demo" / "student"
    for name in ("README.md", "curves.png", "evaluation.json", "model.safetensors", "modeling_fastwhisper.py"):
        assert (student / name).stat().st_size > 0, name
    assert (readme_folder / "demo" / "recording.vtt").read_text().startswith("WEBVTT")


def test_commands_on_the_demo_run(readme_folder, monkeypatch):
    monkeypatch.chdir(readme_folder)
    (readme_folder / "home").mkdir(exist_ok=True)
    mine = [words[1:] for words in commands("bash") if words[0] == "fastwhisper"]
    assert len(mine) >= 5
    for words in mine:
        assert main(words) == 0, words


def test_python_blocks_run(readme_folder, monkeypatch):
    monkeypatch.chdir(readme_folder)
    blocks = [body for name, body in BLOCKS if name == "python"]
    assert len(blocks) >= 2
    for body in blocks:
        exec(compile(body, "README.md", "exec"), {"__name__": "readme"})


def test_hub_section_runs_with_a_hub_on_this_machine(readme_folder, demo_folder):
    push, *python, push_tuned = [body for _, body in HUB_BLOCKS]
    assert [language for language, _ in HUB_BLOCKS] == ["bash", "python", "python", "bash"]
    (readme_folder / "section.py").write_text("\n".join([*python, CLASSES]))
    script = script_with_only(readme_folder / "section.py", "transformers", "torch", "accelerate", "soundfile")
    printed = []
    with running_hub() as hub:
        for code, words in ((COMMAND, shlex.split(push)[1:]), (script, []), (COMMAND, shlex.split(push_tuned)[1:])):
            done = run_python(code, readme_folder, *words, **hub.environment(TOKEN))
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
    assert printed[1].splitlines()[-1] == "transformers_modules WhisperForConditionalGeneration"
    assert "YOUR_NAME/student" in hub.private
    pushed, tuned = hub.files("YOUR_NAME/student"), hub.files("YOUR_NAME/student", "tuned")
    for files in (pushed, tuned):
        assert {"README.md", "model.safetensors", "modeling_fastwhisper.py", "preprocessor_config.json"} <= set(files)
        for name, content in files.items():
            assert name != "training_args.bin" and TOKEN.encode() not in content
            assert str(readme_folder).encode() not in content and str(demo_folder).encode() not in content
    assert pushed["model.safetensors"] != tuned["model.safetensors"]


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
    from fastwhisper.cli.distill import _verb

    known = {field.name for group in _verb(ASKDTrainingArguments).groups for field in fields(group)}
    assert set(yaml.safe_load((ROOT / "examples" / "distill.yaml").read_text())) <= known
