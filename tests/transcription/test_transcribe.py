"""`fastwhisper.transcribe`: what it takes, what it gives, and that it decodes no more than is read."""

import io

import numpy as np
import pytest
import soundfile
import torch

import fastwhisper
from fastwhisper.errors import InputError
from fastwhisper.transcription import sequential
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts

from ..recordings import noise, save_checkpoint, tiny_processor, write_only_words
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer


@pytest.fixture(scope="module")
def pair(demo_tokenizer):
    model = tiny_whisper(demo_tokenizer, max_target_positions=16)
    write_only_words(model, demo_tokenizer)
    return model, tiny_processor(demo_tokenizer)


def encoder_passes(model):
    passes = []
    hook = model.model.encoder.register_forward_hook(lambda *call: passes.append(call))
    return passes, hook


@pytest.mark.parametrize("seconds", [1.5, 7.0])
@pytest.mark.parametrize("options", [{}, {"timestamps": True}, {"word_timestamps": True, "seed": 4}])
def test_it_says_what_a_batch_says(pair, seconds, options):
    clip = noise(seconds, 3)
    expected = generate_transcripts(*pair, [clip], GenerationOptions(**options))[0]
    speech = fastwhisper.transcribe(clip, pair, **options)
    assert list(speech.segments) == list(speech.segments) == expected.segments
    assert (speech.text, speech.language, speech.duration) == (expected.text, "en", seconds)
    assert speech.transcript == expected


def test_segments_come_while_the_rest_is_not_decoded(pair):
    model, _ = pair
    passes, hook = encoder_passes(model)
    speech = fastwhisper.transcribe(noise(9.0, 3), pair, language="en", timestamps=True, temperatures=(0.0,))
    assert not passes and speech.duration == 9.0
    first = next(speech.segments)
    assert len(passes) == 1
    assert speech.text.startswith(first.text)
    assert len(passes) >= 5 and next(speech.segments) is first
    everything = len(passes)
    assert speech.text and list(speech.segments)[0] is first and len(passes) == everything
    hook.remove()


def test_reading_the_segments_leaves_the_model_as_it_was(pair):
    model, _ = pair
    model.train()
    speech = fastwhisper.transcribe(noise(5.0, 3), pair, word_timestamps=True, temperatures=(0.0, 1.0))
    state = torch.get_rng_state()
    next(speech.segments)
    assert model.training and model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()


def test_the_language_needs_one_window():
    tokenizer = whisper_tokenizer()
    model = tiny_whisper(tokenizer, init_std=0.3, max_target_positions=16)
    speech = fastwhisper.transcribe(noise(5.0, 1), (model, tiny_processor(tokenizer)), temperatures=(0.0,))
    passes, hook = encoder_passes(model)
    language = speech.language
    assert len(passes) == 2  # to detect it, and to decode
    hook.remove()
    assert language in speech.transcript.language and len(language) in (2, 3)


def test_silence_has_a_language_and_no_text(pair, monkeypatch):
    monkeypatch.setattr(sequential.SequentialDecoder, "_silence", lambda decoder, encoded, clips: [0.9] * len(clips))
    monkeypatch.setattr(sequential, "LOG_PROBABILITY", 0.0)
    speech = fastwhisper.transcribe(np.zeros(80_000, np.float32), pair, timestamps=True)
    assert (speech.language, speech.text, list(speech.segments)) == ("en", "", [])


def test_forms_of_audio(pair, tmp_path):
    clip = noise(1.5, 3)
    soundfile.write(tmp_path / "a.wav", clip, 16_000, subtype="FLOAT")
    content = (tmp_path / "a.wav").read_bytes()
    expected = fastwhisper.transcribe(clip, pair).text
    forms = [
        tmp_path / "a.wav",
        str(tmp_path / "a.wav"),
        content,
        io.BytesIO(content),
        {"array": clip, "sampling_rate": 16_000},
        {"path": str(tmp_path / "a.wav"), "bytes": None},
        (clip, 16_000),
        torch.from_numpy(clip),
        np.stack([clip, clip]),
    ]
    assert expected and [fastwhisper.transcribe(form, pair).text for form in forms] == [expected] * len(forms)
    assert fastwhisper.transcribe((clip, 8_000), pair).duration == 3.0
    whole = (clip * 32_768).astype(np.int16)
    assert fastwhisper.transcribe(whole, pair).text == fastwhisper.transcribe(whole / np.float32(32_768), pair).text


def test_a_checkpoint_by_name_or_loaded_once(pair, tmp_path):
    model, processor = pair
    save_checkpoint(model, processor.tokenizer, tmp_path)
    clip = noise(1.5, 3)
    expected = fastwhisper.transcribe(clip, pair).text
    loaded = fastwhisper.load_checkpoint(str(tmp_path), "cpu")
    assert fastwhisper.transcribe(clip, loaded).text == expected
    for name in (tmp_path, str(tmp_path)):
        assert fastwhisper.transcribe(clip, name, device="cpu", dtype="float32").text == expected


def test_what_cannot_be_used_is_said_at_once(pair, tmp_path):
    clip = noise(0.5)
    for complaint, audio, options in (
        ("there is no audio file", tmp_path / "none.wav", {}),
        ("is empty", clip[:0], {}),
        ("not 3 values", (clip, 16_000, 1), {}),
        ("no language 'de'", clip, {"language": "de"}),
        ("no task 'sing'", clip, {"task": "sing"}),
        ("num_beams must be 1 or more", clip, {"num_beams": 0}),
        ("temperatures must not be empty", clip, {"temperatures": ()}),
        ("a loaded model has its own", clip, {"device": "cpu"}),
    ):
        with pytest.raises(InputError, match=complaint):
            fastwhisper.transcribe(audio, pair, **options)
    with pytest.raises(InputError, match="nowhere"):
        fastwhisper.transcribe(clip, tmp_path / "nowhere")


def test_real_speech_comes_window_by_window_with_the_text_of_generate(real_model, real_speech):
    files = sorted((real_speech("kathleen_arctic") / "flac").glob("*.flac"))[:11]
    pause = np.zeros(4_000, np.float32)
    clip = np.concatenate([part for file in files for part in (soundfile.read(file, dtype="float32")[0], pause)])
    model, processor = fastwhisper.load_checkpoint(str(real_model("whisper-tiny.en")), "cpu")
    passes, hook = encoder_passes(model)
    speech = fastwhisper.transcribe(clip, (model, processor), word_timestamps=True)
    first = next(speech.segments)
    assert len(passes) == 1 and first.end < 30 < speech.duration
    hook.remove()
    words = [word for segment in speech.segments for word in segment.words]
    assert " ".join(word.text for word in words) == " ".join(speech.text.split())
    # Nobody speaks in a pause that is longer than a breath.
    assert len(words) > 60 and all(word.end - word.start < 2 for word in words)
    features = processor(clip, sampling_rate=16_000, truncation=False, padding="longest", return_tensors="pt")
    torch.manual_seed(0)
    ids = model.generate(
        features.input_features,
        return_timestamps=True,
        temperature=GenerationOptions.temperatures,
        condition_on_prev_tokens=False,
        compression_ratio_threshold=1.35,
        logprob_threshold=-1.0,
        no_speech_threshold=0.6,
    )
    assert speech.text == processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
