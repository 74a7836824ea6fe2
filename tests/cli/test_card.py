"""`fastwhisper card`: rewrites a card, and says in one line why it cannot."""

import pytest

from fastwhisper.cli.main import main

from ..hub_folders import save_student


def test_it_writes_the_card_and_prints_its_path(tmp_path, capsys, demo_tokenizer):
    save_student(tmp_path, demo_tokenizer)

    assert main(["card", str(tmp_path), "--name", "somebody/student"]) == 0

    assert capsys.readouterr().out.strip() == str(tmp_path / "README.md")
    assert 'model="somebody/student"' in (tmp_path / "README.md").read_text()


def test_a_card_by_hand_needs_a_word(tmp_path, capsys, demo_tokenizer):
    save_student(tmp_path, demo_tokenizer)
    (tmp_path / "README.md").write_text("# Mine\n")

    assert main(["card", str(tmp_path)]) == 2
    assert "written by hand; --overwrite replaces it" in capsys.readouterr().err
    assert main(["card", str(tmp_path), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "said"), [([], "one folder"), (["a", "b"], "one folder"), (["a"], "no config.json")]
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)

    assert main(["card", *words]) == 2

    error = capsys.readouterr().err
    assert error.startswith("fastwhisper card: error: ") and said in error and error.count("\n") == 1
