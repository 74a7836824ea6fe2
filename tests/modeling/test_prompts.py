"""A student of all layers is prompted as its teacher, whatever the configs of a Hub checkpoint say."""

import itertools

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, pipeline

from fastwhisper import FastWhisperForConditionalGeneration

from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer

# Of the Hub: openai/whisper-base has the first of each kind, fine-tunes have any of them.
IN_CONFIG = {"multilingual": [[1, 50259], [2, 50359], [3, 50363]], "gpt2": [[1, 50362]]}
IN_GENERATION_CONFIG = {
    "multilingual": [[[1, None], [2, 50359]], [[1, 50261], [2, 50358]]],
    "gpt2": [[[1, 50362]]],
}
COMBINATIONS = [
    (name, in_config, in_generation_config)
    for name in IN_CONFIG
    for in_config, in_generation_config in itertools.product(
        [None, IN_CONFIG[name]], [None, *IN_GENERATION_CONFIG[name]]
    )
]
CALLS = {
    "multilingual": [
        {},
        {"language": "de"},
        {"task": "translate"},
        {"language": "french", "task": "transcribe"},
        {"return_timestamps": True},
    ],
    "gpt2": [{}, {"return_timestamps": True}],
}


def build_teacher(name, in_config, in_generation_config):
    teacher = tiny_whisper(
        whisper_tokenizer(name), seconds=1, decoder_layers=2, encoder_layers=1, d_model=8, max_target_positions=8
    )
    if name == "gpt2":
        teacher.generation_config.is_multilingual = False
        del teacher.generation_config.lang_to_id, teacher.generation_config.task_to_id
    if in_config is not None:
        teacher.config.forced_decoder_ids = in_config
    if in_generation_config is not None:
        teacher.generation_config.forced_decoder_ids = in_generation_config
    return teacher


def decoder_inputs(model, call):
    """The ids of each run of the decoder during a call: those of language detection, then the prompt."""
    seen = []
    hook = model.model.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    call(model)
    hook.remove()
    return seen


@pytest.mark.parametrize(("name", "in_config", "in_generation_config"), COMBINATIONS)
def test_generate_prompts_a_student_as_its_teacher(tmp_path, name, in_config, in_generation_config):
    teacher = build_teacher(name, in_config, in_generation_config)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    features = torch.randn(1, 80, 100, generator=torch.Generator().manual_seed(0))

    for options in CALLS[name]:
        expected, *others = (
            decoder_inputs(model, lambda model: model.generate(features, max_new_tokens=1, **options))  # noqa: B023
            for model in (teacher, student, loaded)
        )
        assert others == [expected, expected], options


@pytest.mark.parametrize(("name", "in_config", "in_generation_config"), COMBINATIONS)
def test_the_pipeline_prompts_and_searches_with_a_student_as_with_its_teacher(name, in_config, in_generation_config):
    teacher = build_teacher(name, in_config, in_generation_config)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    sound = np.random.default_rng(0).standard_normal(12_000).astype(np.float32)

    def transcribe(model):
        transcriber = pipeline(
            "automatic-speech-recognition",
            model=model,
            tokenizer=whisper_tokenizer(name),
            feature_extractor=WhisperFeatureExtractor(feature_size=80, chunk_length=1),
        )
        transcriber(sound.copy(), generate_kwargs={"max_new_tokens": 2})

    # Rows of the decoder's input are beams, too.
    assert decoder_inputs(student, transcribe) == decoder_inputs(teacher, transcribe)
