"""The card of a student: its layers, its teacher, how it was distilled and how it does beside its teacher."""

import copy
import json

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.hub_cards.card import write_card

from .records import EVALUATION, PLACEHOLDERS, STUDENT_RUN, record


@pytest.fixture
def folder(student_folder):
    return student_folder


def test_a_measured_run_fills_the_card(folder):
    record(folder, STUDENT_RUN, EVALUATION)
    (folder / "curves.png").write_bytes(b"png")

    text = write_card(folder, "somebody/student").read_text()

    for said in (
        "| model | parameters | WER | words | real-time factor, 1 beam |",
        "| student (student) | 85.95 k | 3.12 % | 200 | 0.0500 |",
        "| openai/whisper-tiny (teacher) | 37.76 M | 4.12 % | 200 | 0.1110 |",
        "1.00 points below its teacher's",
        "2.22 times as fast as its teacher, both with 1 beam.",
        "fastwhisper evaluate --model student --against openai/whisper-tiny\n",
        "Some CPU, device cpu, 2 cores, threads used: 1\n",
        "distilled with adaptive self-knowledge distillation",
        "Decoder: layers 0, 3 of the teacher's 4",
        "Encoder: all layers of the teacher (2)",
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
    record(folder, STUDENT_RUN, EVALUATION)

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
    record(folder, {**STUDENT_RUN, "license": "mit", "tags": ["asr", "whisper"], "language": ["en", "de"]})

    text = write_card(folder).read_text()

    data = ModelCard(text).data.to_dict()
    assert data["license"] == "mit" and "## Licence\n\nmit.\n" in text and "apache-2.0" not in text
    assert data["tags"] == ["whisper", "fastwhisper", "distillation", "asr"] and data["language"] == ["en", "de"]


def test_trained_on_the_gold_text_alone_it_was_not_distilled(folder):
    record(folder, {**STUDENT_RUN, "askd": {"teacher_weight": 0.0, "self_weight": 0.0}})

    text = write_card(folder).read_text()

    assert "distilled with" not in text and "2601.19919" not in text
    assert "| weight of the teacher at the start, λ₀ | 0 |" in text


def test_a_window_that_is_not_whispers_is_said(folder):
    text = write_card(folder).read_text()
    assert "with a window of 2 seconds." in text and "window is 2 seconds of audio, not 30" in text

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_source_positions": 1500}))
    (folder / "model.safetensors").unlink()  # which has positions for 2 seconds
    text = write_card(folder).read_text()
    assert "any engine that runs Whisper." in text and "window" not in text.partition("## Limits")[2]


def test_a_worse_student_is_called_worse(folder):
    evaluation = copy.deepcopy(EVALUATION)
    evaluation["models"][0]["wer"] = 0.5
    record(folder, STUDENT_RUN, evaluation)

    assert "45.88 points above its teacher's" in write_card(folder).read_text()


def test_local_folders_are_not_hub_names(folder, saved_student, monkeypatch):
    (folder.parent / "data" / "speech").mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    student = FastWhisperForConditionalGeneration.from_teacher(str(saved_student), decoder_layers=1)
    student.save_pretrained(folder)
    evaluation = copy.deepcopy(EVALUATION)
    evaluation["dataset"]["name"] = "data/speech"
    record(folder, {"datasets": [str(folder.parent)], "teacher": {"name": "student"}}, evaluation)

    text = write_card(folder).read_text()

    data = ModelCard(text).data.to_dict()
    assert not {"base_model", "base_model_relation", "datasets"} & set(data)
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "speech"
    assert not (folder / ".eval_results").exists()
    assert str(folder.parent) not in text and "a student of `student`" in text
    # For good: a later rewrite, from another working folder, knows no better.
    assert json.loads((folder / "evaluation.json").read_text())["dataset"]["name"] == "speech"
