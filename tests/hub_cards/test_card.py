"""A card says what was recorded and measured, and nothing else."""

import copy
import json
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.errors import InputError
from fastwhisper.hub_cards.card import END, START, write_card
from fastwhisper.hub_cards.folder_records import count_parameters, make_public

from ..hub_folders import save_student

RUN = {
    "askd": {"teacher_weight": 0.8, "schedule": "linear", "self_teacher": "snapshot", "ema_decay": 0.999},
    "training": {"steps": 600, "learning_rate": 1e-4, "seconds": None},
    "teacher": {"name": "openai/whisper-tiny", "parameters": 37_760_640, "license": "apache-2.0"},
    "datasets": ["openslr/librispeech_asr", "my recordings"],
    "language": "English",
    "limits": ["A limit of this model."],
}
EVALUATION = {
    "command": "fastwhisper evaluate --model /home/somebody/student --against openai/whisper-tiny",
    "seed": 7,
    "versions": {"torch": "2.13.0"},
    "hardware": {"processor": "Some CPU", "cores": 2, "threads": 1, "device": "cpu", "memory_bytes": None},
    "settings": {"num_beams": 1},
    "dataset": {
        "name": "openslr/librispeech_asr",
        "config": "clean",
        "split": "test",
        "rows": 100,
        "audio_seconds": 600.0,
        "language": "en",
    },
    "models": [
        {"name": "student", "role": "student", "parameters": 85952, "wer": 0.0312, "cer": None, "words": 200},
        {"name": "openai/whisper-tiny", "role": "teacher", "parameters": 37760640, "wer": 0.0412, "words": 200},
    ],
    "speed_ratio": 2.22,
}
PLACEHOLDERS = ["None", "{{", "}}", "{%", "TODO", "Undefined", "nan", "unknown", "More Information Needed", "null"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, demo_tokenizer):
    return save_student(tmp_path_factory.mktemp("card") / "student", demo_tokenizer)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "student")


def record(folder, run=None, evaluation=None):
    for name, facts in (("training_run.json", run), ("evaluation.json", evaluation)):
        if facts is not None:
            (folder / name).write_text(json.dumps(facts))


def test_a_measured_run_fills_the_card(folder):
    record(folder, RUN, EVALUATION)
    (folder / "curves.png").write_bytes(b"png")

    text = write_card(folder, "somebody/student").read_text()

    for said in (
        "| student (student) | 85.95 k | 3.12 % | 200 |",
        "| openai/whisper-tiny (teacher) | 37.76 M | 4.12 % | 200 |",
        "1.00 points below its teacher's",
        "2.22 times as fast",
        "fastwhisper evaluate --model student --against openai/whisper-tiny\n",
        "Some CPU, device cpu, 2 cores, threads used: 1\n",
        "Decoder: layers 0, 3 of the teacher's 4",
        "| weight of the teacher at the start, λ₀ | 0.8 |",
        "(curves.png)",
        "A limit of this model.",
        "apache-2.0, the licence of its teacher openai/whisper-tiny",
        "2601.19919",
        "they are not the paper's",
    ):
        assert said in text, said
    # No self-teacher average was kept, nothing was measured for these.
    for unsaid in ("moving average", "CER", "seconds of training", "/home/", *PLACEHOLDERS):
        assert unsaid not in text, unsaid


def test_its_metadata_is_what_the_hub_reads(folder):
    record(folder, RUN, EVALUATION)

    data = ModelCard.load(write_card(folder, "somebody/student")).data

    assert data.to_dict() | {"model-index": None} == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "base_model": "openai/whisper-tiny",
        "base_model_relation": "finetune",
        "datasets": ["openslr/librispeech_asr"],
        "metrics": ["wer"],
        "tags": ["whisper", "fastwhisper", "distillation"],
        "model-index": None,
    }
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("wer", 3.12)
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == (
        "openslr/librispeech_asr",
        "clean",
        "test",
    )
    (entry,) = parse_eval_result_entries(yaml.safe_load((folder / ".eval_results/fastwhisper.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openslr/librispeech_asr", "clean_test", 3.12)


def test_a_licence_and_tags_that_were_given_are_said(folder):
    record(folder, {**RUN, "license": "mit", "tags": ["asr", "whisper"], "language": ["en", "de"]})

    text = write_card(folder).read_text()

    data = ModelCard(text).data.to_dict()
    assert data["license"] == "mit" and "## Licence\n\nmit.\n" in text and "apache-2.0" not in text
    assert data["tags"] == ["whisper", "fastwhisper", "distillation", "asr"] and data["language"] == ["en", "de"]


def test_without_records_the_card_claims_nothing(folder):
    text = write_card(folder).read_text()

    assert "No word error rate has been measured" in text
    for unsaid in ("## Measured", "ASKD", "2601.19919", "## Training data", "## Licence", *PLACEHOLDERS):
        assert unsaid not in text, unsaid
    data = ModelCard(text).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert not (folder / ".eval_results").exists()


def leaves(facts, path=()):
    if isinstance(facts, dict):
        return [leaf for key, value in facts.items() for leaf in leaves(value, (*path, key))]
    return [path]


@pytest.mark.parametrize("path", [*leaves(RUN), *leaves(EVALUATION)], ids="/".join)
def test_any_fact_may_be_missing(folder, path):
    run, evaluation = copy.deepcopy(RUN), copy.deepcopy(EVALUATION)
    inner = run if path[0] in RUN else evaluation
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    record(folder, run, evaluation)

    text = write_card(folder).read_text()

    assert not [word for word in PLACEHOLDERS if word in text]
    assert ModelCard(text).data.library_name == "transformers"


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_rate_that_is_no_number_was_not_measured(folder, value):
    evaluation = copy.deepcopy(EVALUATION)
    for model in evaluation["models"]:
        model["wer"] = value
    record(folder, RUN, evaluation)

    text = write_card(folder).read_text()

    assert "## Measured" not in text and ModelCard(text).data.eval_results is None


def test_a_window_that_is_not_whispers_is_said(folder):
    text = write_card(folder).read_text()
    assert "with a window of 2 seconds." in text and "window is 2 seconds of audio, not 30" in text

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_source_positions": 1500}))
    text = write_card(folder).read_text()
    assert "whatever runs a Whisper runs it." in text and "window" not in text.partition("## Limits")[2]


def test_the_command_can_be_typed(folder):
    record(folder, RUN, {**EVALUATION, "command": "/opt/venv/lib/fastwhisper/__main__.py evaluate --model x"})

    assert "\npython -m fastwhisper evaluate --model x\n" in write_card(folder).read_text()


def test_a_worse_student_is_called_worse(folder):
    evaluation = copy.deepcopy(EVALUATION)
    evaluation["models"][0]["wer"], evaluation["speed_ratio"] = 0.5, None
    record(folder, RUN, evaluation)

    text = write_card(folder).read_text()

    assert "45.88 points above its teacher's" in text and "times as fast" not in text


def test_local_folders_are_no_hub_names(folder, saved, monkeypatch, demo_tokenizer):
    (folder.parent / "data" / "speech").mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    student = FastWhisperForConditionalGeneration.from_teacher(str(saved), decoder_layers=1)
    student.save_pretrained(folder)
    evaluation = copy.deepcopy(EVALUATION)
    evaluation["dataset"]["name"] = "data/speech"
    record(folder, {"datasets": [str(folder.parent)], "teacher": {"name": "student"}}, evaluation)

    text = write_card(folder).read_text()

    data = ModelCard(text).data.to_dict()
    assert not {"base_model", "base_model_relation", "datasets"} & set(data)
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "speech"
    assert not (folder / ".eval_results").exists()
    assert str(folder.parent) not in text and "a student of student" in text
    # For good: a later rewrite, from another working folder, knows no better.
    assert json.loads((folder / "evaluation.json").read_text())["dataset"]["name"] == "speech"


def test_a_rewrite_keeps_what_stands_outside_the_marks(folder):
    record(folder, RUN, EVALUATION)
    path = write_card(folder)
    text = path.read_text().replace("# student\n", "# My student\n\nAn opening by hand.\n")
    text = text.replace("license:", "widget:\n- text: mine\nlicense:").replace("apache-2.0, the", "WRONG")
    path.write_text(text + "\n## Thanks\n\nTo all.\n")
    evaluation = copy.deepcopy(EVALUATION)
    evaluation["models"][0]["wer"] = 0.02
    record(folder, evaluation=evaluation)

    text = write_card(folder).read_text()

    assert "# My student\n\nAn opening by hand.\n" in text and "## Thanks\n\nTo all.\n" in text
    assert "2.00 %" in text and "3.12 %" not in text and "WRONG" not in text
    assert text.count(START) == text.count(END) == 1
    assert ModelCard(text).data.to_dict()["widget"] == [{"text": "mine"}]
    assert write_card(folder).read_text() == text


def test_results_that_are_gone_leave_the_card(folder):
    record(folder, RUN, EVALUATION)
    write_card(folder)
    (folder / "evaluation.json").unlink()

    data = ModelCard.load(write_card(folder)).data

    assert data.eval_results is None and "metrics" not in data.to_dict()
    assert not (folder / ".eval_results" / "fastwhisper.yaml").exists()


def test_a_card_by_hand_is_not_lost(folder):
    (folder / "README.md").write_text("# Mine\n")

    with pytest.raises(InputError, match="--overwrite"):
        write_card(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert "# Mine" not in write_card(folder, overwrite=True).read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "no JSON"),
        ("config.json", '{"model_type": "bert"}', "bert"),
        ("evaluation.json", "[]", "JSON object"),
    ],
)
def test_what_is_no_folder_of_a_student_is_refused(folder, name, content, message):
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)

    with pytest.raises(InputError, match=message):
        write_card(folder)
    assert not (folder / "README.md").exists()


def test_parameters_are_counted_from_the_weights(saved):
    student = FastWhisperForConditionalGeneration.from_pretrained(saved)

    assert count_parameters(saved) == student.num_parameters()


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("--model /home/me/runs/student --data ~/d/x.csv", "--model student --data x.csv"),
        ("--out=/tmp/o.json 'C:\\Users\\me\\x'", "--out=o.json 'x'"),
        ("https://huggingface.co/a/b a/b ./c/d 1/2", "https://huggingface.co/a/b a/b ./c/d 1/2"),
    ],
)
def test_paths_of_a_machine_are_cut(text, public):
    assert make_public({"command": [text]}) == {"command": [public]}
