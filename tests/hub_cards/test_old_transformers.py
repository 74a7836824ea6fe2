"""What a folder is to transformers that is too old for its code, or that knows Whisper alone."""

import ast
import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from transformers import AutoModelForSpeechSeq2Seq, WhisperForConditionalGeneration

from fastwhisper.hub_cards.remote_code import FAMILIES, PACKAGE

from ..hub_folders import save_student

# The files that AutoConfig and AutoProcessor run first.
FIRST = ("AutoConfig", "AutoProcessor")
ENTRANCES = {
    path.stem: path
    for family in FAMILIES.values()
    for path in (PACKAGE / file for file in family.files)
    if any(family.auto_map.get(name, "").startswith(f"{path.stem}.") for name in FIRST)
}
LOWEST = re.search(r'"transformers>=([\d.]+),', (PACKAGE.parent / "pyproject.toml").read_text())[1]


@pytest.mark.parametrize("path", ENTRANCES.values(), ids=ENTRANCES)
def test_code_on_old_transformers_ends_in_one_line_with_the_version_it_needs(path, monkeypatch):
    """What stands before the check is run with it: nothing that old versions lack may be there."""
    source = ast.parse(path.read_text())
    checks = [index for index, node in enumerate(source.body) if "require_version(" in ast.unparse(node)]
    before = {name for node in source.body[: checks[0]] if isinstance(node, ast.ImportFrom) for name in [node.module]}
    assert before <= {"collections.abc", "typing", "transformers.utils.versions"}
    monkeypatch.setattr(importlib.metadata, "version", lambda package: {"transformers": "4.57.6"}[package])
    with pytest.raises(ImportError) as raised:
        exec(compile(source, path, "exec"), {"__name__": path.stem})
    (line,) = str(raised.value).splitlines()
    assert f"transformers>={LOWEST} is required" in line and "4.57.6" in line


def saved_by_old_transformers(model, folder):
    """Saved as versions do that drop no setting: all that the config holds once the model is loaded."""
    model.save_pretrained(folder)
    kept = {**json.loads((folder / "config.json").read_text()), **model.config.__dict__, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def test_what_plain_whisper_saves_loads_with_trust(tmp_path, demo_tokenizer):
    """`auto_map` would name code that plain Whisper does not save."""
    folder = save_student(tmp_path / "student", demo_tokenizer)
    for turn in range(3):
        plain = WhisperForConditionalGeneration.from_pretrained(folder)
        plain.save_pretrained(tmp_path / f"new{turn}")
        assert "auto_map" not in json.loads((tmp_path / f"new{turn}" / "config.json").read_text())
        folder = saved_by_old_transformers(plain, tmp_path / f"old{turn}")
        for saved in (tmp_path / f"new{turn}", folder):
            assert not list(Path(saved).glob("*.py"))
            loaded = AutoModelForSpeechSeq2Seq.from_pretrained(saved, trust_remote_code=True)
            assert type(loaded) is WhisperForConditionalGeneration
