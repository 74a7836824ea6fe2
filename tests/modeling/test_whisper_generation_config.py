"""A generation config that is old or missing is completed from the tokenizer; openai-whisper has the right ids."""

import json

import pytest
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.modeling.whisper_generation_config import complete_generation_config, lacks_prompt_tokens

from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer

KINDS = [("multilingual", 99), ("multilingual", 100), ("gpt2", 99)]
# What transformers 4.26 wrote beside a fine-tune.
OLD = {
    "_from_model_config": True,
    "begin_suppress_tokens": [220, 50257],
    "bos_token_id": 50257,
    "decoder_start_token_id": 50258,
    "eos_token_id": 50257,
    "max_length": 448,
    "pad_token_id": 50257,
    "transformers_version": "4.26.0.dev0",
}


def tiny(name="multilingual", languages=99):
    tokenizer = whisper_tokenizer(name, languages)
    return tiny_whisper(tokenizer, seconds=1, decoder_layers=2, encoder_layers=1, d_model=8, max_target_positions=8)


def save_old(folder, generation_config=None, **settings):
    """A folder of a multilingual Whisper with an old generation config, or none."""
    tiny().save_pretrained(folder)
    whisper_tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    if generation_config is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation_config))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def prompt(model, **options):
    """The ids that the decoder gets before it writes."""
    seen = []
    model.model.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    features = torch.randn(1, 80, 100, generator=torch.Generator().manual_seed(0))
    model.generate(features, max_new_tokens=1, **options)
    return seen[-1][0]


@pytest.mark.parametrize(("name", "languages"), KINDS)
def test_the_ids_are_those_of_openai_whisper(name, languages):
    from whisper.tokenizer import get_tokenizer

    reference = get_tokenizer(multilingual=name == "multilingual", num_languages=languages)
    model, completed = tiny(name, languages), GenerationConfig()
    complete_generation_config(completed, model.config, whisper_tokenizer(name, languages))

    assert completed.is_multilingual == (name == "multilingual")
    assert completed.no_timestamps_token_id == reference.no_timestamps
    assert completed.prev_sot_token_id == reference.sot_prev
    assert completed.decoder_start_token_id == reference.sot
    assert completed.eos_token_id == completed.pad_token_id == reference.eot
    assert completed.max_length == model.config.max_target_positions
    assert completed.alignment_heads == [[1, head] for head in range(4)]
    assert not lacks_prompt_tokens(completed)
    if name == "gpt2":
        # Their mere presence would make `generate` listen for a language.
        assert not {"lang_to_id", "task_to_id", "task"} & vars(completed).keys()
    else:
        codes, ids = reference.all_language_codes, reference.all_language_tokens
        assert completed.lang_to_id == {f"<|{code}|>": token for code, token in zip(codes, ids, strict=True)}
        assert completed.task_to_id == {"transcribe": reference.transcribe, "translate": reference.translate}


def test_added_tokens_do_not_make_an_english_model_multilingual():
    import copy

    tokenizer = copy.deepcopy(whisper_tokenizer("gpt2"))
    tokenizer.add_tokens(["cholecystectomy", "metoprolol"])
    completed = GenerationConfig()
    complete_generation_config(completed, tiny("gpt2").config, tokenizer)
    assert len(tokenizer) > 51865 and completed.is_multilingual is False


def test_what_a_generation_config_says_stays():
    model = tiny()
    before = model.generation_config.to_dict()
    complete_generation_config(model.generation_config, model.config, whisper_tokenizer())
    assert model.generation_config.to_dict() == before
    mine = {"lang_to_id": {"<|de|>": 50261}, "max_length": 5, "is_multilingual": True, "alignment_heads": [[0, 1]]}
    some = GenerationConfig(**mine)
    complete_generation_config(some, model.config, whisper_tokenizer())
    assert {name: getattr(some, name) for name in mine} == mine and some.no_timestamps_token_id == 50363


def test_a_tokenizer_of_nothing_adds_nothing(tmp_path):
    """transformers makes one of a folder that has none."""
    from transformers import AutoTokenizer

    model = tiny()
    model.config.save_pretrained(tmp_path)
    completed = GenerationConfig()
    complete_generation_config(completed, model.config, AutoTokenizer.from_pretrained(tmp_path))
    assert completed == GenerationConfig()


@pytest.mark.parametrize("generation_config", [None, OLD], ids=["missing", "old"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_student_knows_the_languages_of_an_old_teacher(tmp_path, generation_config, loaded):
    folder = save_old(tmp_path, generation_config)
    teacher = WhisperForConditionalGeneration.from_pretrained(folder) if loaded else folder
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1).eval()
    assert prompt(student, language="hi", task="translate") == [50258, 50276, 50358, 50363]
    heard = prompt(student)
    assert heard[0] == 50258 and heard[1] in student.generation_config.lang_to_id.values()
    assert heard[2:] == [50359, 50363]
    if loaded:
        assert lacks_prompt_tokens(teacher.generation_config)


@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_a_prompt_that_an_old_teacher_fixes_stays(tmp_path, place):
    german = [[1, 50261], [2, 50358], [3, 50363]]
    if place == "config.json":
        folder = save_old(tmp_path, OLD, forced_decoder_ids=german)
    else:
        # Beside this mark, transformers would pass over what it does not know.
        config = {name: value for name, value in OLD.items() if name != "_from_model_config"}
        folder = save_old(tmp_path, {**config, "forced_decoder_ids": german})
    teacher = WhisperForConditionalGeneration.from_pretrained(folder)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    assert prompt(student) == prompt(teacher) == [50258, 50261, 50358, 50363]
    assert prompt(student, language="hi") == [50258, 50276, 50359, 50363]


def test_an_old_teacher_without_a_tokenizer_still_has_students(tmp_path):
    folder = save_old(tmp_path, OLD)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    student = FastWhisperForConditionalGeneration.from_teacher(folder, decoder_layers=1)
    assert lacks_prompt_tokens(student.generation_config)
