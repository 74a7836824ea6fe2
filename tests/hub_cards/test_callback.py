"""A training run leaves behind what its card needs, in every checkpoint."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerControl, TrainerState, default_data_collator

from fastwhisper import ASKDTrainer, ASKDTrainingArguments
from fastwhisper.hub_cards.callback import ModelCardCallback

from ..hub_folders import demo_processor, tiny_student
from ..tiny_models import tiny_whisper


@pytest.fixture(scope="module")
def rows():
    row = {"input_features": torch.zeros(80, 200), "labels": torch.tensor([642, 5, 640])}
    return [row] * 4


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory, demo_tokenizer):
    """A teacher on this machine, with a card that names its licence."""
    folder = tmp_path_factory.mktemp("teachers") / "big-teacher"
    tiny_whisper(demo_tokenizer).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Teacher\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_tokenizer, teacher_folder, rows):
    """The output folder of an ASKD run of four steps, and its callback."""
    output = tmp_path_factory.mktemp("run")
    teacher = type(tiny_whisper(demo_tokenizer)).from_pretrained(teacher_folder)
    callback = ModelCardCallback(
        teacher,
        datasets=["openslr/librispeech_asr", str(output)],
        language="en",
        limits=["It is tiny."],
        preparation={"text_case": "sentence", "joined_probability": 0.5},
    )
    trainer = ASKDTrainer(
        model=tiny_student(demo_tokenizer),
        teacher_model=teacher,
        args=ASKDTrainingArguments(
            output_dir=str(output),
            max_steps=4,
            save_steps=2,
            logging_steps=1,
            per_device_train_batch_size=2,
            teacher_weight=0.6,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=rows,
        processing_class=demo_processor(demo_tokenizer),
        callbacks=[callback],
    )
    trainer.train()
    return output, callback


def test_every_checkpoint_is_ready_for_the_hub(run):
    output, _ = run
    for step in (2, 4):
        names = {path.name for path in (output / f"checkpoint-{step}").iterdir()}
        assert names >= {
            "README.md",
            "training_run.json",
            "config.json",
            "configuration_fastwhisper.py",
            "curves.png",
            "model.safetensors",
            "modeling_fastwhisper.py",
            "preprocessor_config.json",
            "processor_config.json",
        }


def test_the_run_is_recorded(run, teacher_folder, demo_tokenizer):
    output, _ = run
    facts = json.loads((output / "training_run.json").read_text())

    assert facts["askd"]["teacher_weight"] == 0.6 and facts["askd"]["schedule"] == "linear"
    assert facts["training"]["steps"] == 4 and facts["training"]["batch_size"] == 2
    assert facts["training"]["seconds"] > 0
    assert facts["teacher"] == {
        "name": "big-teacher",
        "parameters": tiny_whisper(demo_tokenizer).num_parameters(),
        "license": "mit",
    }
    assert facts["datasets"] == ["openslr/librispeech_asr", output.name]
    assert str(output.parent) not in json.dumps(facts)
    assert (output / "curves.png").stat().st_size > 10_000


_PREPARED = ("| case of the texts | sentence |", "| share of the clips joined to longer rows | 0.5 |")


def test_the_card_of_a_checkpoint_tells_of_the_run(run):
    output, _ = run
    card = ModelCard.load(output / "checkpoint-4" / "README.md")

    for said in (
        "| weight of the teacher at the start, λ₀ | 0.6 |",
        "| steps | 4 |",
        "It is tiny.",
        "(curves.png)",
        *_PREPARED,
    ):
        assert said in card.text, said
    assert card.data.license == "mit" and card.data.base_model is None


def test_a_folder_that_is_saved_later_gets_the_same_card(run, tmp_path, demo_tokenizer):
    _, callback = run
    assert callback.write(tmp_path) is None
    tiny_student(demo_tokenizer).save_pretrained(tmp_path)

    assert "| steps | 4 |" in callback.write(tmp_path).read_text()


def test_a_stock_run_with_adapters_is_let_through(tmp_path, demo_tokenizer, rows):
    model = get_peft_model(tiny_student(demo_tokenizer), LoraConfig(r=2, target_modules=["q_proj"]))
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(str(tmp_path), max_steps=1, save_steps=1, report_to=[], use_cpu=True),
        train_dataset=rows,
        processing_class=demo_processor(demo_tokenizer),
        callbacks=[ModelCardCallback()],
    )
    trainer.train()

    assert not (tmp_path / "checkpoint-1" / "config.json").exists()
    assert "askd" not in json.loads((tmp_path / "training_run.json").read_text())


@pytest.mark.parametrize("part", ["feature_extractor", "tokenizer"])
def test_a_run_with_half_a_processor_goes_on(tmp_path, caplog, demo_tokenizer, rows, part):
    """The Hub's course gives the Trainer a feature extractor."""
    trainer = Seq2SeqTrainer(
        model=tiny_student(demo_tokenizer),
        args=Seq2SeqTrainingArguments(str(tmp_path), max_steps=1, save_steps=1, report_to=[], use_cpu=True),
        train_dataset=rows,
        data_collator=default_data_collator,
        processing_class=getattr(demo_processor(demo_tokenizer), part),
        callbacks=[ModelCardCallback()],
    )
    trainer.train()

    missing = {"feature_extractor": "tokenizer.json", "tokenizer": "processor_config.json"}[part]
    assert "checkpoint-1 is not ready for the Hub" in caplog.text and f"has no {missing}" in caplog.text
    assert "| steps | 1 |" in (tmp_path / "checkpoint-1" / "README.md").read_text()


def test_a_checkpoint_that_is_pushed_is_completed_once(tmp_path, monkeypatch, demo_tokenizer):
    completed = []
    monkeypatch.setattr(
        "fastwhisper.hub_cards.callback.complete_hub_folder", lambda folder, processor: completed.append(folder.name)
    )
    arguments = Seq2SeqTrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    callback, state = ModelCardCallback(), TrainerState(max_steps=2)
    for step, pushed in ((1, True), (2, False)):
        state.global_step = step
        tiny_student(demo_tokenizer).save_pretrained(tmp_path / f"checkpoint-{step}")
        if pushed:
            callback.on_push_begin(arguments, state, TrainerControl())
        callback.on_save(arguments, state, TrainerControl())

    assert completed == ["checkpoint-1", "checkpoint-2"]
    assert all((tmp_path / name / "README.md").is_file() for name in completed)


def test_a_card_by_hand_stops_no_training(tmp_path, caplog, demo_tokenizer):
    tiny_student(demo_tokenizer).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("# Mine\n")
    arguments = Seq2SeqTrainingArguments(str(tmp_path), report_to=[], use_cpu=True)

    ModelCardCallback().on_train_end(arguments, TrainerState(), TrainerControl())

    assert (tmp_path / "README.md").read_text() == "# Mine\n" and "no model card" in caplog.text
