"""The stock pipeline on a student at true length, in an interpreter without this package: it hears short clips cut."""

import json

import numpy as np
import pytest
from transformers import WhisperConfig, WhisperForConditionalGeneration, pipeline

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.hub_cards.export import export_folder

from .hub_folders import WITHOUT_PACKAGE, python_answer
from .tiny_models import tiny_whisper
from .whisper_assets import whisper_processor

RATE = 16_000
WINDOW = 4
# With a margin of 0.5 s; the last one is longer than the window.
LENGTHS = {"a": (0.3, 1), "b": (1.7, 3), "c": (1.2, 2), "d": (0.45, 1)}
CASES = {"text": {}, "segments": {"return_timestamps": True}, "words": {"return_timestamps": "word"}}
GREEDY = {"generate_kwargs": {"num_beams": 1, "language": "en"}}
RUN = (
    WITHOUT_PACKAGE
    + """
import json, numpy, torch
from transformers import pipeline

torch.set_num_threads(1)
folder, audio, cases, trust = sys.argv[1:]
sounds = numpy.load(audio)
transcriber = pipeline("automatic-speech-recognition", model=folder, trust_remote_code=trust == "yes")
seen = []

def count(layer, inputs):
    seen.extend([inputs[0].shape[1] / 50] * inputs[0].shape[0])

transcriber.model.model.encoder.layers[0].register_forward_pre_hook(count)
answers = {}
for case, options in json.loads(cases).items():
    for size in (1, 4):
        seen.clear()
        said = transcriber([sounds[name] for name in "abcd"], batch_size=size, **options)
        answers[f"{case} {size}"] = {"said": said, "seconds": list(seen)}
    seen.clear()
    options = {**options, "return_timestamps": options.get("return_timestamps", True)}
    answers[f"{case} long"] = {"said": transcriber(sounds["long"], **options), "seconds": list(seen)}
print(json.dumps(answers))
"""
)


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=WINDOW)


@pytest.fixture(scope="module")
def student(processor):
    teacher = tiny_whisper(processor.tokenizer, seconds=WINDOW, seed=4, init_std=0.6, max_target_positions=40)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student.config.true_length = True
    return student


@pytest.fixture(scope="module")
def folder(tmp_path_factory, student, processor):
    return export_folder(student, processor, tmp_path_factory.mktemp("true_length") / "student")


@pytest.fixture(scope="module")
def sounds():
    noise = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32) / 10
    places = {name: 3 * index * RATE for index, name in enumerate(LENGTHS)}
    cut = {name: noise[start : start + round(LENGTHS[name][0] * RATE)] for name, start in places.items()}
    return {**cut, "long": noise[-round(9.1 * RATE) :]}


@pytest.fixture(scope="module")
def answers(tmp_path_factory, folder, sounds):
    """What pipelines without this package say, with trust and without."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.savez(elsewhere / "sounds.npz", **sounds)
    cases = json.dumps({name: {**GREEDY, **options} for name, options in CASES.items()})
    return {
        trust: python_answer(RUN, elsewhere, folder, elsewhere / "sounds.npz", cases, trust) for trust in ("yes", "no")
    }


@pytest.mark.parametrize("case", CASES)
def test_a_batch_says_what_each_clip_says_alone(answers, case):
    trusted = answers["yes"]
    assert trusted[f"{case} 4"]["said"] == trusted[f"{case} 1"]["said"]
    assert all(said["text"].strip() for said in trusted[f"{case} 1"]["said"])


@pytest.mark.parametrize("case", CASES)
def test_the_encoder_reads_each_clip_with_its_margin(answers, case):
    expected = sorted(seconds for _, seconds in LENGTHS.values())
    for size in (1, 4):
        seconds = answers["yes"][f"{case} {size}"]["seconds"]
        # With times, `generate` goes on through the silence behind the clip, a second of it at a time.
        assert sorted(seconds)[-2:] == expected[-2:] and len(seconds) >= 4
        if case == "text":
            assert sorted(seconds) == expected
        assert set(answers["no"][f"{case} {size}"]["seconds"]) == {WINDOW}


def test_text_is_that_of_a_stock_whisper_with_that_window(answers, student, sounds):
    for (name, (_, seconds)), found in zip(LENGTHS.items(), answers["yes"]["text 4"]["said"], strict=True):
        config = WhisperConfig(**{**student.config.to_dict(), "max_source_positions": 50 * seconds})
        stock, weights = WhisperForConditionalGeneration(config).eval(), dict(student.state_dict())
        positions = "model.encoder.embed_positions.weight"
        stock.load_state_dict({**weights, positions: weights[positions][: 50 * seconds]})
        stock.generation_config = student.generation_config
        its = whisper_processor(seconds=seconds)
        parts = {"tokenizer": its.tokenizer, "feature_extractor": its.feature_extractor}
        said = pipeline("automatic-speech-recognition", model=stock, **parts)(sounds[name].copy(), **GREEDY)
        assert found == said


@pytest.mark.parametrize("case", CASES)
def test_a_long_file_is_transcribed_to_its_end_and_its_last_window_is_cut(answers, case):
    said, seconds = answers["yes"][f"{case} long"].values()
    assert said["text"].strip() and said["chunks"]
    assert seconds[0] == WINDOW and seconds[-1] < WINDOW


@pytest.mark.parametrize("case", CASES)
def test_without_trust_the_folder_is_plain_whisper_at_30_seconds(answers, student, processor, sounds, case):
    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    student.config.true_length = False
    ours = pipeline("automatic-speech-recognition", model=student, **parts)
    said = ours([sounds[name].copy() for name in LENGTHS], **{**GREEDY, **CASES[case]})
    student.config.true_length = True
    assert json.loads(json.dumps(said)) == answers["no"][f"{case} 1"]["said"]
    if case == "text":
        assert said != answers["yes"]["text 1"]["said"]
