"""What the Hub's users do with a saved student: the stock pipeline says what `generate` says.

Plain pipelines run here; those with trusted code in an interpreter without this package.
"""

import json

import numpy as np
import pytest
import torch
import transformers
from packaging import version
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    WhisperForCausalLM,
    WhisperForConditionalGeneration,
    pipeline,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.hub_cards.export import export_folder

from .hub_folders import WITHOUT_PACKAGE, python_answer
from .tiny_models import tiny_whisper
from .whisper_assets import whisper_processor

RATE = 16_000
WINDOW = 2
# What the pipeline takes where a generation config names no beams, as Whisper's do not.
BEAMS = AutomaticSpeechRecognitionPipeline._default_generation_config.num_beams
# name: options of the pipeline, and those of `generate` that must give the same text
CASES = {
    "basic": ({}, {}),
    "language and task": (
        {"generate_kwargs": {"language": "de", "task": "translate"}},
        {"language": "de", "task": "translate"},
    ),
    "segment timestamps": (
        {"return_timestamps": True, "generate_kwargs": {"num_beams": 1}},
        {"return_timestamps": True, "num_beams": 1},
    ),
    "word timestamps": ({"return_timestamps": "word"}, {"return_timestamps": True, "return_token_timestamps": True}),
    "one chunk": ({"chunk_length_s": WINDOW}, {}),
    "language returned": ({"return_language": True}, {}),
}
RUN = (
    WITHOUT_PACKAGE
    + """
import json, numpy, torch
from transformers import pipeline

torch.set_num_threads(1)
folder, audio, cases = sys.argv[1:]
sounds = numpy.load(audio)
transcriber = pipeline("automatic-speech-recognition", model=folder, trust_remote_code=True)
answers = {"class": f"{type(transcriber.model).__module__.split('.')[0]} {type(transcriber.model).__name__}"}
for name, (sound, options) in json.loads(cases).items():
    sound = [sounds[one] for one in sound] if isinstance(sound, list) else sounds[sound]
    answers[name] = transcriber(sound, **options)
print(json.dumps(answers))
"""
)
CALLS = {
    **{name: ("short", options) for name, (options, _) in CASES.items()},
    "chunks": ("long", {"chunk_length_s": 1, "stride_length_s": 0.2}),
    "over the window": ("long", {"return_timestamps": True}),
    "batch": (["short", "other", "short"], {"batch_size": 2}),
}


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=WINDOW)


@pytest.fixture(scope="module")
def teacher(processor):
    """A random model; with these settings it says a few words between two timestamps, and stops."""
    return tiny_whisper(processor.tokenizer, seconds=WINDOW, seed=4, init_std=0.6, max_target_positions=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, processor, teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    return export_folder(student, processor, tmp_path_factory.mktemp("pipelines") / "student")


@pytest.fixture(scope="module")
def sounds():
    noise = np.random.default_rng(0).standard_normal(9 * RATE).astype(np.float32) / 10
    return {"short": noise[: int(1.5 * RATE)], "other": noise[2 * RATE : 4 * RATE], "long": noise[4 * RATE :]}


@pytest.fixture(scope="module")
def plain(folder, sounds):
    """What a stock pipeline answers to each call, without trust."""
    transcriber = pipeline("automatic-speech-recognition", model=str(folder))
    assert type(transcriber.model) is WhisperForConditionalGeneration
    answers = {}
    for name, (sound, options) in CALLS.items():
        given = [sounds[one].copy() for one in sound] if isinstance(sound, list) else sounds[sound].copy()
        answers[name] = transcriber(given, **options)
    return json.loads(json.dumps(answers))


@pytest.fixture(scope="module")
def trusted(tmp_path_factory, folder, sounds):
    """What a pipeline with the folder's own code answers."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.savez(elsewhere / "sounds.npz", **sounds)
    return python_answer(RUN, elsewhere, folder, elsewhere / "sounds.npz", json.dumps(CALLS))


@pytest.fixture(scope="module")
def student(folder):
    return FastWhisperForConditionalGeneration.from_pretrained(folder).eval()


def features_of(processor, sound):
    over = len(sound) > WINDOW * RATE
    return processor(
        sound,
        sampling_rate=RATE,
        return_tensors="pt",
        return_attention_mask=True,
        truncation=not over,
        padding="longest" if over else "max_length",
    )


def generated(student, processor, sound, **options):
    output = student.generate(**features_of(processor, sound), **{"num_beams": BEAMS, **options})
    tokens = output["sequences"] if isinstance(output, dict) else output
    return processor.batch_decode(tokens, skip_special_tokens=True)[0]


@pytest.mark.parametrize("case", CASES)
def test_the_pipeline_says_what_generate_says(plain, trusted, student, processor, sounds, case):
    _, options = CASES[case]
    text = generated(student, processor, sounds["short"], **options)

    assert text.strip()
    assert plain[case]["text"] == trusted[case]["text"] == text


def test_the_pipelines_with_and_without_trust_agree_in_everything(plain, trusted):
    assert trusted.pop("class") == "transformers_modules FastWhisperForConditionalGeneration"
    assert trusted == plain


def test_language_and_task_change_the_text(plain):
    assert plain["language and task"]["text"] != plain["basic"]["text"]


def test_segment_timestamps_are_those_of_generate(plain, student, processor, sounds):
    features = features_of(processor, sounds["short"])
    (segments,) = student.generate(**features, return_timestamps=True, return_segments=True)["segments"]

    stamps = [chunk["timestamp"] for chunk in plain["segment timestamps"]["chunks"]]
    assert stamps == [pytest.approx([float(segment["start"]), float(segment["end"])]) for segment in segments]


def test_word_timestamps_lie_in_the_audio_one_for_each_word(plain):
    chunks = plain["word timestamps"]["chunks"]

    assert "".join(chunk["text"] for chunk in chunks) == plain["word timestamps"]["text"]
    assert len(chunks) > 1
    assert all(0 <= stamp <= WINDOW for chunk in chunks for stamp in chunk["timestamp"])


def test_the_language_is_returned(plain, student, processor, sounds):
    detected = student.detect_language(features_of(processor, sounds["short"]).input_features)
    code = processor.tokenizer.convert_ids_to_tokens(detected.tolist())[0].strip("<|>")

    assert {chunk["language"] for chunk in plain["language returned"]["chunks"]} == {LANGUAGES[code]}


def test_chunks_are_each_transcribed(plain):
    assert plain["chunks"]["text"].strip() and plain["chunks"]["text"] != plain["over the window"]["text"]


def test_audio_over_the_window(plain, student, processor, sounds):
    assert plain["over the window"]["text"] == generated(student, processor, sounds["long"], return_timestamps=True)


def test_a_batch_gives_each_file_its_own_text(plain, student, processor, sounds):
    texts = [answer["text"] for answer in plain["batch"]]

    assert texts == [generated(student, processor, sounds[name]) for name in ("short", "other", "short")]


def test_a_student_of_all_layers_says_what_its_teacher_says(teacher, processor, sounds):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    its, mine = (pipeline("automatic-speech-recognition", model=model, **parts) for model in (teacher, student))
    for name in ("basic", "word timestamps", "over the window"):
        sound, options = CALLS[name]
        assert mine(sounds[sound].copy(), **options) == its(sounds[sound].copy(), **options), name


@pytest.mark.parametrize("kind", [WhisperForCausalLM, FastWhisperForConditionalGeneration])
def test_speculative_decoding_is_token_exact(teacher, folder, processor, sounds, kind):
    if kind is FastWhisperForConditionalGeneration and version.parse(transformers.__version__) < version.parse("5.22"):
        pytest.skip("before 5.22 a whole Whisper as assistant drafts past its last position; its decoder does not")
    assistant = kind.from_pretrained(folder).eval()
    features = processor(sounds["short"], sampling_rate=RATE, return_tensors="pt").input_features
    wanted = teacher.generate(features, language="en", num_beams=1)

    drafted = teacher.generate(features, language="en", num_beams=1, assistant_model=assistant)

    torch.testing.assert_close(drafted, wanted, rtol=0, atol=0)
