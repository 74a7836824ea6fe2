"""What holds for the card of every family: it says what was recorded, keeps what others wrote, refuses the rest."""

import copy
import json

import pytest
from huggingface_hub import ModelCard

from fastwhisper.errors import InputError
from fastwhisper.hub_cards.card import END, START, write_card

from .records import (
    EVALUATION,
    PLACEHOLDERS,
    SLM_EVALUATION,
    SLM_RUN,
    STUDENT_RUN,
    leaves,
    record,
)

RECORDS = {"student": (STUDENT_RUN, EVALUATION), "slm": (SLM_RUN, SLM_EVALUATION)}
TASKS = {"student": "automatic-speech-recognition", "slm": "audio-text-to-text"}
families = pytest.mark.parametrize("family", RECORDS)


@pytest.fixture
def folder(request, family):
    return request.getfixturevalue(f"{family}_folder")


ENTRIES = [(family, path) for family, records in RECORDS.items() for part in records for path in leaves(part)]


@pytest.mark.parametrize(("family", "path"), ENTRIES, ids=["/".join((family, *path)) for family, path in ENTRIES])
def test_any_record_may_be_missing(folder, family, path):
    run, evaluation = copy.deepcopy(RECORDS[family])
    inner = run if path[0] in run else evaluation
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    record(folder, run, evaluation)

    text = write_card(folder).read_text()

    assert not [word for word in PLACEHOLDERS if word in text]
    assert ModelCard(text).data.pipeline_tag == TASKS[family]


@families
def test_without_records_the_card_claims_nothing(folder):
    config = json.loads((folder / "config.json").read_text())
    for part in ("speech_encoder", "language_model"):
        config.pop(part, None)
    (folder / "config.json").write_text(json.dumps(config))

    text = write_card(folder).read_text()

    assert "No word error rate has been measured" in text
    for unsaid in ("## Measured", "ASKD", "2601.19919", "## Training data", "## Licence", *PLACEHOLDERS):
        assert unsaid not in text, unsaid
    assert set(ModelCard(text).data.to_dict()) == {"library_name", "pipeline_tag", "tags"}
    assert not (folder / ".eval_results").exists()


@families
@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_rate_that_is_not_a_number_was_not_measured(folder, family, value):
    run, evaluation = copy.deepcopy(RECORDS[family])
    for model in evaluation["models"]:
        model["wer"] = model["cer"] = value
    record(folder, run, evaluation)

    text = write_card(folder).read_text()

    assert "## Measured" not in text and ModelCard(text).data.eval_results is None


@families
def test_a_rewrite_keeps_what_stands_outside_the_marks(folder, family):
    run, evaluation = copy.deepcopy(RECORDS[family])
    record(folder, run, evaluation)
    path = write_card(folder)
    text = path.read_text().replace(f"# {family}\n", "# My model\n\nAn opening by hand.\n")
    text = text.replace("license:", "widget:\n- text: mine\nlicense:").replace("| steps | 600", "| WRONG")
    path.write_text(text + "\n## Thanks\n\nTo all.\n")
    evaluation["models"][0]["wer"] = 0.02
    record(folder, evaluation=evaluation)

    text = write_card(folder).read_text()

    assert "# My model\n\nAn opening by hand.\n" in text and "## Thanks\n\nTo all.\n" in text
    assert "2.00 %" in text and "3.12 %" not in text and "WRONG" not in text
    assert text.count(START) == text.count(END) == 1
    assert ModelCard(text).data.to_dict()["widget"] == [{"text": "mine"}]
    assert write_card(folder).read_text() == text


@families
def test_results_that_are_gone_leave_the_card(folder, family):
    record(folder, *RECORDS[family])
    write_card(folder)
    (folder / "evaluation.json").unlink()

    text = write_card(folder).read_text()

    data = ModelCard(text).data
    assert "3.12 %" not in text and data.eval_results is None and "metrics" not in data.to_dict()
    assert not (folder / ".eval_results" / "fastwhisper.yaml").exists()


@pytest.mark.parametrize("text", ["# Mine\n", "---\nlicense: [mit\n---\n\n# Mine\n", "# Größe\n"], ids=ascii)
def test_a_card_by_hand_is_not_lost(student_folder, text):
    path = student_folder / "README.md"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(InputError, match="--overwrite"):
        write_card(student_folder)
    assert path.read_bytes() == text.encode("latin-1")
    assert START in write_card(student_folder, overwrite=True).read_text()


def test_the_card_of_a_trainer_is_replaced(student_folder):
    (student_folder / "README.md").write_text(
        "<!-- This model card has been generated automatically according to the information the Trainer had access to."
        " -->\n\n# run\n"
    )

    assert "the Trainer had access to" not in write_card(student_folder).read_text()


def test_the_command_can_be_typed(student_folder):
    record(student_folder, None, {**EVALUATION, "command": "/opt/venv/lib/fastwhisper/__main__.py evaluate --model x"})

    assert "\npython -m fastwhisper evaluate --model x\n" in write_card(student_folder).read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not valid JSON"),
        ("config.json", '{"model_type": "bert"}', "bert"),
        ("evaluation.json", "[]", "JSON object"),
        ("model.safetensors", "{", "damaged"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(student_folder, name, content, message):
    (student_folder / name).unlink(missing_ok=True)
    if content is not None:
        (student_folder / name).write_text(content)

    with pytest.raises(InputError, match=message):
        write_card(student_folder)
    assert not (student_folder / "README.md").exists()
