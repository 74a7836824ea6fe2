"""`fastwhisper card`: writes a card, and says in one line why it cannot."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.cli.main import main

from ..hub_folders import save_student
from ..recordings import save_checkpoint, write_noise
from ..tiny_models import tiny_whisper


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


@pytest.mark.parametrize("order", [1, -1])
def test_what_evaluate_measured_is_told_of_the_right_folder(tmp_path, monkeypatch, capsys, demo_tokenizer, order):
    """Both folders are called `final`, and the student is carded under a third name."""
    teacher = save_checkpoint(
        tiny_whisper(demo_tokenizer, max_target_positions=16), demo_tokenizer, tmp_path / "t/final"
    )
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1)
    student = save_checkpoint(student, demo_tokenizer, tmp_path / "s/final")
    write_noise(tmp_path / "speech" / "0.wav", 0.6)
    (tmp_path / "speech" / "metadata.csv").write_text("file_name,text\n0.wav,turn on the lamp\n")
    model, against = [str(student), str(teacher)][::order]
    report = student / "evaluation.json"
    argv = ["--model", model, "--against", against, "--dataset", str(tmp_path / "speech"), "--output", str(report)]
    assert main(["evaluate", *argv]) == 0
    shutil.copyfile(report, teacher / "evaluation.json")

    for folder in (student, teacher):
        assert main(["card", str(folder.rename(folder.with_name("carded")))]) == 0

    cards = [ModelCard.load(tmp_path / place / "carded" / "README.md") for place in ("s", "t")]
    rows = {row["role"]: row for row in json.loads((tmp_path / "s/carded/evaluation.json").read_text())["models"]}
    for card, row in zip(cards, (rows["student"], rows["teacher"]), strict=True):
        assert [result.metric_value for result in card.data.eval_results] == [
            round(100 * row[metric], 2) for metric in ("wer", "cer")
        ]
    ratio = rows["teacher"]["real_time_factor"] / rows["student"]["real_time_factor"]
    assert f"{ratio:.2f} times as fast as its teacher, both with 1 beam." in cards[0].text
    assert "times as fast" not in cards[1].text and "(teacher)" not in cards[1].text


def test_a_folder_that_cannot_be_written_in_is_one_line(tmp_path, capsys, demo_tokenizer):
    save_student(tmp_path, demo_tokenizer)
    (tmp_path / "README.md").mkdir()

    assert main(["card", str(tmp_path)]) == 2
    assert f"the card of {tmp_path} cannot be written" in capsys.readouterr().err
