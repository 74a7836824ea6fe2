"""A saved folder loads where this package is not installed, and survives being saved again."""

import json
import shutil
import sys

import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from fastwhisper import FastWhisperConfig, FastWhisperForConditionalGeneration
from fastwhisper.errors import InputError
from fastwhisper.hub_cards.export import complete_hub_folder
from fastwhisper.hub_cards.remote_code import (
    ALLOWED_PACKAGES,
    FAMILIES,
    PACKAGE,
    NotFlattenableError,
    flattened_sources,
    write_remote_code,
)

from ..hub_folders import LOOK, demo_processor, python_answer, save_student, tiny_student

CODE = {
    "configuration_fastwhisper.py",
    "modeling_fastwhisper.py",
    "greedy_whisper.py",
    "one_token_whisper.py",
    "saved_folder.py",
    "true_length_whisper.py",
    "whisper_generation_config.py",
}
# What a process that imported nothing but these modules saves.
SAVE = """
import json, os, sys
import transformers
from fastwhisper.modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.configuration.configuration_fastslm import FastSLMConfig

assert not [name for name in sys.modules if name.startswith("fastwhisper.hub_cards")]
FastWhisperForConditionalGeneration.from_pretrained(sys.argv[1]).save_pretrained("model")
FastSLMConfig().save_pretrained("config")
print(json.dumps([os.listdir("model"), os.listdir("config")]))
"""
LOAD = (
    LOOK
    + """
import os
from transformers import AutoConfig, AutoModel, AutoProcessor, WhisperForConditionalGeneration

answers = {}

def try_out(name, folder, save_as=None, **options):
    model, (kind, module, logits) = look(folder, **options)
    answers[name] = {
        "class": kind,
        "remote": module == "transformers_modules",
        "logits": logits,
        "decoder_layers": model.config.decoder_layers,
    }
    if save_as:
        model.save_pretrained(save_as)
        answers[name]["saved"] = sorted(os.listdir(save_as))
        with open(os.path.join(save_as, "config.json")) as file:
            answers[name]["auto_map"] = json.load(file).get("auto_map")

folder, checkpoint = sys.argv[1:]
try_out("trusted", folder, save_as="trusted_again", trust_remote_code=True)
try_out("trusted, AutoModel", folder, load=AutoModel, trust_remote_code=True)
try_out("trusted, saved again", "trusted_again", save_as="trusted_twice", trust_remote_code=True)
try_out("trusted, saved twice", "trusted_twice", load=AutoModel, trust_remote_code=True)
try_out("plain", folder, save_as="plain_again")
try_out("plain, stock class", folder, load=WhisperForConditionalGeneration)
try_out("plain, saved again", "plain_again", trust_remote_code=True)
try_out("trusted then plain", "trusted_twice", "plain_twice", load=WhisperForConditionalGeneration)
try_out("checkpoint, trusted", checkpoint, trust_remote_code=True)
try_out("checkpoint, plain", checkpoint)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
answers["config"] = [type(config).__name__, config.decoder_layer_map]
answers["processors"] = [type(AutoProcessor.from_pretrained(path)).__name__ for path in (folder, checkpoint)]
print(json.dumps(answers))
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, demo_tokenizer):
    return save_student(tmp_path_factory.mktemp("hub") / "student", demo_tokenizer)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, demo_tokenizer):
    """The first checkpoint of a stock trainer."""
    output = tmp_path_factory.mktemp("run")
    row = {"input_features": torch.zeros(80, 200), "labels": torch.tensor([642, 5, 640])}
    trainer = Seq2SeqTrainer(
        model=tiny_student(demo_tokenizer),
        args=Seq2SeqTrainingArguments(str(output), max_steps=1, save_steps=1, report_to=[], use_cpu=True),
        train_dataset=[row, row],
        processing_class=demo_processor(demo_tokenizer),
    )
    trainer.train()
    return output / "checkpoint-1"


@pytest.fixture(scope="module")
def answers(tmp_path_factory, folder, checkpoint):
    """What a fresh interpreter without this package sees."""
    return python_answer(LOAD, tmp_path_factory.mktemp("elsewhere"), folder, checkpoint)


TRUSTED = ["trusted", "trusted, AutoModel", "trusted, saved again", "trusted, saved twice", "checkpoint, trusted"]
PLAIN = ["plain", "plain, stock class", "plain, saved again", "trusted then plain", "checkpoint, plain"]


@pytest.mark.parametrize("name", TRUSTED)
def test_trusted_code_gives_our_class(answers, name):
    assert answers[name]["class"] == "FastWhisperForConditionalGeneration"
    assert answers[name]["remote"] and answers[name]["decoder_layers"] == 2


@pytest.mark.parametrize("name", PLAIN)
def test_without_trust_it_is_plain_whisper(answers, name):
    assert answers[name]["class"] == "WhisperForConditionalGeneration" and not answers[name]["remote"]


def test_all_ways_of_loading_give_the_same_logits(answers):
    for name in TRUSTED + PLAIN:
        if "checkpoint" not in name:
            assert answers[name]["logits"] == answers["trusted"]["logits"], name
    assert answers["checkpoint, trusted"]["logits"] == answers["checkpoint, plain"]["logits"]


def test_saved_again_as_remote_code_it_keeps_its_code(answers):
    for name in ("trusted", "trusted, saved again"):
        assert set(answers[name]["saved"]) > CODE
        assert answers[name]["auto_map"] == FAMILIES["whisper"].auto_map


@pytest.mark.parametrize("name", ["plain", "trusted then plain"])
def test_saved_again_as_plain_whisper_no_auto_map_dangles(answers, name):
    assert not CODE & set(answers[name]["saved"])
    assert answers[name]["auto_map"] is None


def test_config_and_processor_load(answers):
    assert answers["config"] == ["FastWhisperConfig", [0, 3]]
    assert answers["processors"] == ["WhisperProcessor"] * 2


def test_the_folder_is_complete_and_flat(folder):
    assert {path.name for path in folder.iterdir()} == CODE | {
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    # The name that engines which know Whisper alone look for.
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["WhisperForConditionalGeneration"]


def test_shipped_code_imports_only_its_own_folder(folder):
    for name in CODE:
        assert {f"{module}.py" for module in get_relative_imports(folder / name)} <= CODE
        assert set(get_imports(folder / name)) <= ALLOWED_PACKAGES | set(sys.stdlib_module_names)


def test_the_normaliser_map_is_shipped_where_there_is_one(tmp_path, demo_tokenizer):
    spelling = {"colour": "color"}
    save_student(tmp_path, demo_tokenizer)
    (tmp_path / "normalizer.json").write_text(json.dumps(spelling))
    processor = demo_processor(type(demo_tokenizer).from_pretrained(tmp_path))
    (tmp_path / "normalizer.json").unlink()

    complete_hub_folder(tmp_path, processor)

    assert json.loads((tmp_path / "normalizer.json").read_text()) == spelling
    assert type(demo_tokenizer).from_pretrained(tmp_path).normalize("Colour!") == "color"


def test_a_process_that_imported_one_module_saves_the_code_too(tmp_path, folder):
    model, config = python_answer(SAVE, tmp_path, folder)

    assert set(model) == CODE | {"config.json", "generation_config.json", "model.safetensors"}
    files = [PACKAGE / file for file in FAMILIES["fastslm"].files]
    assert set(config) == flattened_sources(files).keys() | {"config.json"}


def test_a_config_saved_alone_has_its_code(tmp_path, folder):
    FastWhisperConfig.from_pretrained(folder).save_pretrained(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == CODE | {"config.json"}


def test_a_student_of_a_saved_student_inherits_no_auto_map(folder):
    student = FastWhisperForConditionalGeneration.from_teacher(folder, decoder_layers=1)

    assert "auto_map" not in student.config.to_dict()
    assert "attribute_map" not in student.config.to_dict()
    assert student.config.hidden_size == 32


def test_writing_again_changes_nothing_and_leaves_nothing_beside(tmp_path, folder):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    write_remote_code(copy)

    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_folder_of_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')

    with pytest.raises(InputError, match="bert"):
        write_remote_code(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_shipped_file_can_be_flattened(family):
    files = [PACKAGE / file for file in FAMILIES[family].files]
    if not all(file.exists() for file in files):
        pytest.skip(f"{family} is not written yet")
    sources = flattened_sources(files)
    for reference in FAMILIES[family].auto_map.values():
        stem, name = reference.split(".")
        assert f"class {name}(" in sources[f"{stem}.py"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("from ..data.synthetic import x", "rooms whose files are shipped"),
        ("from ..errors import InputError", "rooms whose files are shipped"),
        ("from . import configuration_a", "names from a module"),
        ("from fastwhisper.configuration.configuration_a import A", "not 'fastwhisper"),
        ("import librosa", "not 'librosa'"),
        ("def f():\n    import peft", "line 3"),
        ('"""Text.\n\nfrom .nothere import x\n"""', "nothere"),
        ("from ..configuration.configuration_a \\\n    import A", "on one line"),
    ],
)
def test_what_cannot_be_flattened_is_refused(tmp_path, line, reason):
    (tmp_path / "configuration").mkdir()
    (tmp_path / "modeling").mkdir()
    (tmp_path / "configuration" / "configuration_a.py").write_text("A = 1\n")
    path = tmp_path / "modeling" / "modeling_a.py"
    path.write_text(f"import torch\n{line}\n")

    with pytest.raises(NotFlattenableError, match=reason):
        flattened_sources([path], tmp_path)


def test_imports_are_followed_and_made_flat(tmp_path):
    (tmp_path / "configuration").mkdir()
    (tmp_path / "modeling").mkdir()
    (tmp_path / "configuration" / "configuration_a.py").write_text("A = 1\n")
    (tmp_path / "modeling" / "modeling_b.py").write_text("from ..configuration.configuration_a import (\n    A,\n)\n")
    path = tmp_path / "modeling" / "modeling_a.py"
    path.write_text("import torch\nfrom .modeling_b import A\n")

    assert flattened_sources([path], tmp_path) == {
        "modeling_a.py": "import torch\nfrom .modeling_b import A\n",
        "modeling_b.py": "from .configuration_a import (\n    A,\n)\n",
        "configuration_a.py": "A = 1\n",
    }
