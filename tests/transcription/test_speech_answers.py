"""A FastSLM asked in Python: windows read as they are needed, memory that stays, answers those of `generate`."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import fastwhisper
from fastwhisper.errors import InputError
from fastwhisper.transcription import speech_answers
from fastwhisper.transcription.answer_files import transcribe_files_with_fastslm
from fastwhisper.transcription.speech_answers import Answer, audio_windows, hear

from ..fastslm_parts import tiny_pair, tiny_processor
from ..sounds import write_nan

SECOND = 16_000


def tone(seconds, rate=SECOND, channels=1):
    samples = 0.1 * np.sin(np.arange(round(seconds * rate)) * 0.05 * SECOND / rate).astype(np.float32)
    return samples if channels == 1 else np.stack([samples] * channels, axis=1)


def write_tone(path, seconds, rate=SECOND, channels=1):
    soundfile.write(path, tone(seconds, rate, channels), rate)
    return str(path)


@pytest.fixture(scope="module")
def pair():
    return tiny_pair({"rates": (2, 5)})


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slm")
    for part in pair:
        part.save_pretrained(folder)
    return folder


def generated(pair, request, **settings):
    """What `generate` says of a request that holds all of the audio."""
    ids = pair[0].generate(**request, **settings)[0, request["input_ids"].shape[1] :]
    return pair[1].tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("seconds", "rate", "channels"),
    [(0.3, SECOND, 1), (2.5, SECOND, 1), (3.0, SECOND, 2), (4.1, 8_000, 1), (11.2, 44_100, 2)],
)
@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_streamed_windows_are_those_of_the_whole_file(seconds, rate, channels, overlap, tmp_path):
    path = write_tone(tmp_path / "tone.wav", seconds, rate, channels)
    processor = tiny_processor(window_overlap=overlap)
    streamed = list(audio_windows(path, SECOND, processor.step_samples))
    samples = processor.feature_extractor.fetch_audio(path)
    whole = processor.cut_windows(samples if samples.ndim == 1 else samples.mean(axis=-1))
    assert len(streamed) == len(whole)
    for ours, expected in zip(streamed[:-1], whole[:-1], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-3)
    assert abs(len(streamed[-1]) - len(whole[-1])) <= 2


def test_long_files_are_heard_block_by_block(pair, tmp_path):
    model, processor = pair
    path, seen = write_tone(tmp_path / "long.wav", 20.5), []
    heard = hear(model, processor, audio_windows(path, SECOND, SECOND), progress=seen.append)
    assert seen == [8, 8, 5]
    assert heard.window_token_counts.tolist() == [5] * 21
    inputs = processor.apply_transcription_request(path)
    whole = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
    torch.testing.assert_close(heard.pooler_output, whole, rtol=1e-3, atol=1e-3)


def test_no_more_than_a_block_is_held(pair):
    """Windows are taken from their source one block at a time, when the block before is encoded."""
    model, processor = pair
    taken, held = [], []

    def windows():
        for index in range(30):
            taken.append(index)
            yield tone(1.0)

    hear(model, processor, windows(), progress=lambda count: held.append(len(taken)))
    assert held == [8, 16, 24, 30]


def test_a_question_and_a_transcript_are_what_generate_says(pair, folder, tmp_path):
    path = write_tone(tmp_path / "a.wav", 1.4)
    content = [{"type": "audio", "audio": path}, {"type": "text", "text": "\nwho speaks"}]
    chat = [{"role": "user", "content": content}]
    request = pair[1].apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)
    expected = generated(pair, request, max_new_tokens=12)
    assert fastwhisper.ask(path, "who speaks", model=pair, max_new_tokens=12) == Answer(expected, "length")
    assert fastwhisper.ask(path, "who speaks", model=folder, device="cpu", max_new_tokens=12).text == expected
    request = pair[1].apply_transcription_request(path, language="en")
    expected = generated(pair, request, max_new_tokens=12)
    assert fastwhisper.transcribe_with_fastslm(path, model=pair, language="en", max_new_tokens=12).text == expected


@pytest.mark.parametrize("long_form", [None, "stitch"])
def test_samples_in_every_form_are_answered_as_a_file(pair, tmp_path, long_form):
    path = write_tone(tmp_path / "a.wav", 2.4)
    samples, _ = soundfile.read(path, dtype="float32")
    settings = {"model": pair, "max_new_tokens": 8, "long_form": long_form, "window_times": True}
    expected = fastwhisper.transcribe_with_fastslm(path, **settings)
    held = {"array": samples, "sampling_rate": SECOND}
    for form in (samples, torch.from_numpy(samples), (samples, SECOND), held, Path(path).read_bytes()):
        assert fastwhisper.transcribe_with_fastslm(form, **settings) == expected


def test_known_counts_reach_generate(pair, tmp_path, monkeypatch):
    """The windows that were heard are the windows that are answered, at a rate that is not the model's own too."""
    model, processor = pair
    calls = []
    generate = type(model).generate
    monkeypatch.setattr(
        type(model), "generate", lambda *args, **kwargs: calls.append(kwargs) or generate(*args, **kwargs)
    )
    path = write_tone(tmp_path / "a.wav", 3.2)
    fastwhisper.ask(path, model=pair, tokens_per_window=2, max_new_tokens=4, long_form="stitch", span_windows=3)
    assert [call["window_token_counts"] for call in calls] == [[2, 2, 2, 2], [2, 2, 2], [2]]


def test_spans_of_a_window(pair, tmp_path):
    model, processor = pair
    path = write_tone(tmp_path / "a.wav", 2.6)
    settings = {"model": pair, "long_form": "stitch", "span_windows": 1, "max_new_tokens": 4}
    said = fastwhisper.transcribe_with_fastslm(path, **settings).text
    samples, _ = soundfile.read(path, dtype="float32")
    texts = []
    for window in processor.cut_windows(samples):
        request = processor.apply_transcription_request(window)
        ids = model.generate(**request, max_new_tokens=4)[0, request["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(ids, skip_special_tokens=True))
    space = processor.tokenizer.decode(processor.tokenizer.encode(" ", add_special_tokens=False))
    assert said == space.join(texts).strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens_per_window": 3}, r"rates \[2, 5\]"),
        ({"span_windows": 2}, "span_windows needs long_form"),
        ({"long_form": "glue"}, "long_form='glue' is unknown"),
        ({"long_form": "stitch", "span_windows": 0}, "span_windows must be 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more"),
        ({"question": "what is <|AUDIO|>?"}, "stands for the audio"),
        ({"device": "cpu"}, "to a model given by name"),
    ],
)
def test_options_that_cannot_be_used(pair, options, message):
    with pytest.raises(InputError, match=message):
        fastwhisper.ask(tone(0.3), model=pair, **options)


def test_audio_and_models_that_cannot_be_used(pair, folder, tmp_path, demo_tokenizer):
    (tmp_path / "noise.wav").write_bytes(b"noise")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), SECOND)
    for name, message in (("noise.wav", "noise.wav cannot be read"), ("empty.wav", "empty.wav is empty")):
        with pytest.raises(InputError, match=message):
            fastwhisper.ask(tmp_path / name, model=pair)
    with pytest.raises(InputError, match="NaN"):
        fastwhisper.ask(write_nan(tmp_path / "nan.wav"), model=pair)
    with pytest.raises(InputError, match="600 of speech.* 512 are available.*stitch"):
        fastwhisper.ask(tone(120), model=pair)
    with pytest.raises(InputError, match="not a checkpoint"):
        fastwhisper.ask(tone(0.3), model=tmp_path / "nothing")
    with pytest.raises(InputError, match="there is no dtype 'int3'"):
        fastwhisper.ask(tone(0.3), model=folder, dtype="int3")
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(InputError, match="not a FastSLM: its model_type is 'whisper'"):
        fastwhisper.ask(tone(0.3), model=tmp_path / "whisper")


def test_one_bad_recording_ends_nothing(pair, tmp_path):
    """A header says nothing of what lies behind it: a cut FLAC is found while it is read."""
    write_tone(tmp_path / "a.flac", 1.3)
    write_tone(tmp_path / "cut.flac", 30, 44_100)
    whole = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    write_tone(tmp_path / "long.flac", 120)
    write_tone(tmp_path / "z.flac", 0.6)
    results = dict(
        transcribe_files_with_fastslm(
            [tmp_path, tmp_path / "missing.wav"], model=pair, output=tmp_path / "texts", max_new_tokens=4
        )
    )
    bad = {name.rsplit("/")[-1] for name, result in results.items() if isinstance(result, InputError)}
    assert bad == {"cut.flac", "long.flac", "missing.wav"}
    assert {path.name for path in (tmp_path / "texts").iterdir()} == {"a.txt", "z.txt"}
    assert (tmp_path / "texts" / "a.txt").read_text() == results[str(tmp_path / "a.flac")].text + "\n"


@pytest.mark.parametrize("window_times", [False, True])
@pytest.mark.parametrize("hours", [0.05, 3, 400])
def test_audio_that_does_not_fit_is_refused_by_its_header(pair, tmp_path, monkeypatch, hours, window_times):
    """Nothing behind the header is looked at: there it claims more than the file has."""
    path = Path(write_tone(tmp_path / "a.flac", 0.5))
    content = bytearray(path.read_bytes())
    frames = round(hours * 3600 * SECOND)
    content[21] = content[21] & 0xF0 | frames >> 32
    content[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)
    monkeypatch.setattr(pair[0], "get_audio_features", lambda *arguments, **settings: pytest.fail("encoded"))
    for audio in (path, path.read_bytes(), {"path": str(path)}):
        with pytest.raises(InputError, match="does not fit the language model"):
            fastwhisper.ask(audio, model=pair, window_times=window_times)


def test_the_refusal_by_the_header_says_what_generate_says(pair, monkeypatch):
    with pytest.raises(InputError) as early:
        fastwhisper.ask(tone(120), model=pair, window_times=True)
    monkeypatch.setattr(speech_answers, "_check_fits", lambda *arguments: None)
    with pytest.raises(InputError) as late:
        fastwhisper.ask(tone(120), model=pair, window_times=True)
    assert str(early.value) == str(late.value)
