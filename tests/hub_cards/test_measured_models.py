"""Which measured model is the card's own, and which its teacher: in any order, under any names, among any others."""

import copy
import hashlib
import itertools
import json

import pytest
from huggingface_hub import ModelCard

from fastwhisper.evaluation.saved_weights import weights_sha256
from fastwhisper.hub_cards.card import write_card
from fastwhisper.hub_cards.push import stage

from .records import EVALUATION, STUDENT, STUDENT_RUN, TEACHER, record

OWN = {**STUDENT, "real_time_factor": 0.05}
ITS_TEACHER = {**TEACHER, "real_time_factor": 0.111}
# As large as its teacher, which was enough to pass for it.
OTHER = {**TEACHER, "name": "openai/whisper-tiny.en", "wer": 0.5, "real_time_factor": 0.2}
OTHER_STUDENT = {**STUDENT, "name": "another-student", "wer": 0.25, "real_time_factor": 0.02}
SPEEDS = ("times as fast", "points above", "points below", "equals its teacher's")


@pytest.fixture
def folder(student_folder):
    return student_folder


def measured(folder, rows, **changes):
    """The card's text, and the word error rates in its metadata, after an evaluation of these rows."""
    record(folder, STUDENT_RUN, {**EVALUATION, "models": copy.deepcopy(rows), **changes})
    text = write_card(folder, "somebody/distilled").read_text()
    return text, [result.metric_value for result in ModelCard(text).data.eval_results or []]


def in_folder(row, name, weights):
    return {**row, "folder": name, "weights_sha256": weights}


@pytest.mark.parametrize("rows", list(itertools.permutations([OWN, ITS_TEACHER, OTHER])))
def test_the_order_of_the_rows_does_not_matter(folder, rows):
    seconds = [row["real_time_factor"] for row in rows]
    text, rates = measured(folder, rows, speed_ratio=seconds[1] / seconds[0])

    assert rates == [3.12]
    assert "1.00 points below its teacher's" in text and f"{0.111 / 0.05:.2f} times as fast as its teacher" in text
    assert "| student (student) |" in text and "| openai/whisper-tiny (teacher) |" in text
    assert "| openai/whisper-tiny.en |" in text


@pytest.mark.parametrize("rows", [[OWN, OTHER], [OTHER, OWN], [OWN, OTHER_STUDENT, OTHER], [OWN]])
def test_a_model_that_is_not_the_teacher_is_not_called_so(folder, rows):
    text, rates = measured(folder, rows)

    assert rates == [3.12] and "(teacher)" not in text
    assert not [said for said in SPEEDS if said in text]


@pytest.mark.parametrize("rows", [[OTHER_STUDENT], [OTHER_STUDENT, ITS_TEACHER], [ITS_TEACHER, OTHER]])
def test_the_results_of_others_are_not_the_folders(folder, rows, caplog):
    text, rates = measured(folder, rows)

    assert not rates and "## Measured" not in text and not (folder / ".eval_results").exists()
    assert "No word error rate has been measured" in text and "has no results for the model" in caplog.text


def test_the_teachers_folder_has_the_teachers_results(folder):
    config = json.loads((folder / "config.json").read_text())
    recorded = ("teacher", "teacher_decoder_layers", "teacher_encoder_layers", "decoder_layer_map")
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in recorded}))
    record(folder, None, {**EVALUATION, "models": [{**OWN, "name": "tiny"}, {**ITS_TEACHER, "name": "student"}]})

    card = ModelCard.load(write_card(folder))

    assert [result.metric_value for result in card.data.eval_results] == [4.12]
    assert "| student (model) |" in card.text and "teacher" not in card.text and "distillation" not in card.data.tags


def test_two_rows_of_one_name_are_told_apart_or_not_used(folder):
    assert measured(folder, [OWN, {**OTHER_STUDENT, "name": "student"}])[1] == []


@pytest.mark.parametrize("order", [1, -1])
def test_folders_of_one_name_are_told_apart_by_their_weights(folder, order):
    own = in_folder({**OWN, "name": "final"}, "final", weights_sha256(folder))
    namesake = in_folder({**OTHER_STUDENT, "name": "student"}, "student", "0" * 64)
    teacher = in_folder({**ITS_TEACHER, "name": "final"}, "final", "1" * 64)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "teacher": "final"}))

    text, rates = measured(folder, [namesake, own, teacher][::order])

    assert rates == [3.12] and "2.22 times as fast as its teacher" in text
    assert "| final (student) |" in text and "| final (teacher) |" in text and "| student |" in text


def test_weights_that_changed_since_were_not_measured(folder):
    own = in_folder(OWN, "student", weights_sha256(folder))
    assert measured(folder, [own])[1] == [3.12]

    path = folder / "model.safetensors"
    weights = path.read_bytes()
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))

    assert measured(folder, [own])[1] == []


def test_a_copy_of_the_weights_goes_by_its_folder(folder):
    copies = [in_folder(OWN, "student", weights_sha256(folder)), in_folder(OTHER, "copy", weights_sha256(folder))]

    assert measured(folder, copies)[1] == measured(folder, copies[::-1])[1] == [3.12]


def test_a_measurement_by_the_name_on_the_hub_counts(folder):
    assert measured(folder, [OTHER, {**OWN, "name": "somebody/distilled"}])[1] == [3.12]


def test_pushed_under_another_name_it_keeps_its_results(folder, tmp_path):
    record(folder, STUDENT_RUN, {**EVALUATION, "models": [OTHER, ITS_TEACHER, OWN]})
    (tmp_path / "staging").mkdir()

    staged = stage(folder, tmp_path / "staging", "somebody/distilled")

    assert [result.metric_value for result in ModelCard.load(staged / "README.md").data.eval_results] == [3.12]


@pytest.mark.parametrize(("beams", "said"), [(1, "1 beam"), (5, "5 beams")])
def test_a_speed_names_its_beams(folder, beams, said):
    text, _ = measured(folder, [OWN, ITS_TEACHER], settings={"num_beams": beams})

    assert f"2.22 times as fast as its teacher, both with {said}." in text and f"real-time factor, {said} |" in text


@pytest.mark.parametrize("changes", [{"settings": {}}, {"models": [OWN, TEACHER]}, {"models": [STUDENT, ITS_TEACHER]}])
def test_a_speed_that_cannot_be_compared_is_not(folder, changes):
    rows = changes.pop("models", [OWN, ITS_TEACHER])

    text, _ = measured(folder, rows, **changes)

    assert "times as fast" not in text and ("real-time factor" in text) == ("settings" not in changes)


def test_the_checksum_is_the_one_the_hub_shows(folder):
    content = (folder / "model.safetensors").read_bytes()

    assert weights_sha256(folder) == hashlib.sha256(content).hexdigest()

    (folder / "model.safetensors").unlink()
    (folder / "self_teacher.safetensors").write_bytes(content)
    assert weights_sha256(folder) is None
    for shard in (1, 2):
        (folder / f"model-0000{shard}-of-00002.safetensors").write_bytes(content[shard - 1 :: 2])
    assert weights_sha256(folder) == hashlib.sha256(content[::2] + content[1::2]).hexdigest()
