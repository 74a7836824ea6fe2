"""`fastwhisper push`: what it refuses before it calls the Hub; tests/hub_cards has the pushes."""

import pytest

from fastwhisper.cli.main import main

from ..hub_folders import save_student


@pytest.mark.parametrize(("words", "said"), [([], "FOLDER and REPO"), (["a", "b/c"], "no config.json")])
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)

    assert main(["push", *words]) == 2

    error = capsys.readouterr().err
    assert error.startswith("fastwhisper push: error: ") and said in error and error.count("\n") == 1


def test_a_secret_is_named_before_anything_is_sent(tmp_path, capsys, demo_tokenizer):
    save_student(tmp_path, demo_tokenizer)
    (tmp_path / "notes.txt").write_text("hf_" + "a" * 34)

    assert main(["push", str(tmp_path), "somebody/student"]) == 2

    error = capsys.readouterr().err
    assert "notes.txt, line 1 contains a Hub token" in error and "aaa" not in error
