"""Clips at their own length: alone as in any batch, and as a stock Whisper with a window of that length hears them."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.decoding import GenerationOptions, decode_windows, generate_transcripts
from fastwhisper.transcription.recording_features import RecordingFeatures, context_features
from fastwhisper.transcription.true_length import context_batches

from ..recordings import noise, save_checkpoint, tiny_processor, write_only_words
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer

SECONDS = 6  # of the window
LENGTHS = (0.4, 1.9, 1.31, 4.1, 0.7, 2.72)
HEARD = (1, 3, 2, 5, 2, 4)  # seconds, with a margin of 0.5 s
CLIPS = [noise(seconds, seed) for seed, seconds in enumerate(LENGTHS)]
MODES = {"text": {}, "timestamps": {"timestamps": True}, "words": {"word_timestamps": True}}
PLAIN = GenerationOptions(language="en")
GREEDY = replace(PLAIN, temperatures=(0.0,))


def at_true_length(tokenizer, **settings) -> FastWhisperForConditionalGeneration:
    teacher = tiny_whisper(tokenizer, **{"seconds": SECONDS, "max_target_positions": 24, "init_std": 0.5, **settings})
    write_only_words(teacher, tokenizer)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student.config.true_length, student.config.true_length_margin = True, 0.5
    return student


@pytest.fixture(scope="module")
def processor(demo_tokenizer):
    return tiny_processor(demo_tokenizer, SECONDS)


@pytest.fixture(scope="module")
def student(demo_tokenizer):
    model = at_true_length(demo_tokenizer)
    late = range(demo_tokenizer.convert_tokens_to_ids("<|1.02|>"), len(demo_tokenizer))
    model.generation_config.suppress_tokens += list(late)
    return model


def stock_with_window(student, seconds: int) -> WhisperForConditionalGeneration:
    """The student's weights in the stock class, with a window of so many seconds."""
    stock = WhisperForConditionalGeneration(
        WhisperConfig(**{**student.config.to_dict(), "max_source_positions": 50 * seconds, "true_length": False})
    ).eval()
    weights = dict(student.state_dict())
    positions = "model.encoder.embed_positions.weight"
    weights[positions] = weights[positions][: 50 * seconds]
    stock.load_state_dict(weights)
    stock.generation_config = deepcopy(student.generation_config)
    # Where a random model writes times into plain text, `generate` would decode what is behind them again.
    stock.generation_config.force_unique_generate_call = True
    return stock


def encoded_seconds(model) -> list[float]:
    """Filled with the seconds of each row that the encoder's first layer reads."""
    seen: list[float] = []

    def count(layer, inputs) -> None:
        seen.extend([inputs[0].shape[1] / 50] * inputs[0].shape[0])

    seen_by = model.model.encoder.layers[0].register_forward_pre_hook(count)
    model._test_hook = seen_by
    return seen


@pytest.fixture
def heard(student):
    seen = encoded_seconds(student)
    yield seen
    student._test_hook.remove()


# ---- alone, and in any batch ----


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_a_clip_is_transcribed_alone_as_in_any_batch_and_order(student, processor, mode, beams):
    options = replace(PLAIN, num_beams=beams, temperatures=(0.0, 0.6), **MODES[mode])
    alone = [generate_transcripts(student, processor, [clip], options)[0] for clip in CLIPS]
    for size in (2, 4, 8):
        assert generate_transcripts(student, processor, CLIPS, replace(options, batch_size=size)) == alone
    assert generate_transcripts(student, processor, CLIPS[::-1], options) == alone[::-1]
    assert len({transcript.text for transcript in alone}) > 3
    if mode == "words":
        assert all(segment.words for transcript in alone for segment in transcript.segments)


@pytest.mark.parametrize("mode", MODES)
def test_the_encoder_reads_no_more_than_clip_and_margin(student, processor, heard, mode):
    windows = list(decode_windows(student, processor, CLIPS, replace(GREEDY, **MODES[mode])))
    expected = list(HEARD)
    ends = dict.fromkeys(range(len(CLIPS)), 0.0)
    for index, window in windows:
        left = LENGTHS[index] - window.end
        ends[index] = window.end
        if left > 0.005:
            expected.append(-(-round(100 * left + 50) // 100))
    assert sorted(heard) == sorted(expected)
    assert len(windows) == len(expected) and all(ends[index] >= LENGTHS[index] - 0.01 for index in ends)


def test_at_30_seconds_the_same_student_reads_whole_windows(student, processor, heard):
    at_true_length = generate_transcripts(student, processor, CLIPS, PLAIN)
    heard.clear()
    student.config.true_length = False
    student.generation_config.force_unique_generate_call = True
    found = generate_transcripts(student, processor, CLIPS, PLAIN)
    student.config.true_length = True
    del student.generation_config.force_unique_generate_call
    assert heard == [SECONDS] * len(CLIPS)
    assert found == generate_transcripts(stock_with_window(student, SECONDS), processor, CLIPS, PLAIN)
    assert found != at_true_length


# ---- against the stock class ----


@pytest.mark.parametrize("beams", [1, 2])
def test_text_is_that_of_a_stock_whisper_with_that_window(student, demo_tokenizer, processor, beams):
    options = replace(PLAIN, num_beams=beams)
    together = generate_transcripts(student, processor, CLIPS, options)
    for clip, seconds, found in zip(CLIPS, HEARD, together, strict=True):
        stock, its = stock_with_window(student, seconds), tiny_processor(demo_tokenizer, seconds)
        assert [found] == generate_transcripts(stock, its, [clip], options)


@pytest.mark.parametrize("margin", [0, 0.25, 0.5, 1.3])
def test_generate_finds_the_same_end_in_whole_windows(student, processor, heard, margin):
    student.config.true_length_margin = margin
    found = generate_transcripts(student, processor, CLIPS, PLAIN)
    ours = sorted(heard)
    heard.clear()
    features = processor.feature_extractor(CLIPS, sampling_rate=16_000, return_tensors="pt").input_features
    tokens = student.generate(features, language="en", force_unique_generate_call=True)
    student.config.true_length_margin = 0.5
    assert sorted(heard) == ours
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    assert [each.text for each in found] == [text.strip() for text in texts]


@pytest.mark.parametrize("mode", ["timestamps", "words"])
def test_a_window_with_times_is_that_of_a_stock_whisper_with_that_window(student, demo_tokenizer, processor, mode):
    # Clips of whole seconds that end in silence, without a margin: nothing is padded on either side.
    student.config.true_length_margin = 0
    options = replace(GREEDY, **MODES[mode])
    lengths = (3, 1, 2, 4)
    clips = [np.pad(noise(length - 0.1, length), (0, 1600)) for length in lengths]
    first: dict = {}
    for index, window in decode_windows(student, processor, clips, options):
        first.setdefault(index, window)
    student.config.true_length_margin = 0.5
    for index, (length, clip) in enumerate(zip(lengths, clips, strict=True)):
        stock, its = stock_with_window(student, length), tiny_processor(demo_tokenizer, length)
        _, window = next(iter(decode_windows(stock, its, [clip], options)))
        assert first[index].segments == window.segments and window.segments
        assert first[index].end == window.end


def test_the_language_is_heard_at_true_length():
    tokenizer = whisper_tokenizer()
    model, processor = at_true_length(tokenizer, max_target_positions=12), tiny_processor(tokenizer, SECONDS)
    for options in (GenerationOptions(), GenerationOptions(timestamps=True, temperatures=(0.0,))):
        seen = encoded_seconds(model)
        found = generate_transcripts(model, processor, CLIPS, options)
        model._test_hook.remove()
        assert max(seen) == max(HEARD)
        expected = [
            generate_transcripts(stock_with_window(model, seconds), tiny_processor(tokenizer, seconds), [clip])[0]
            for clip, seconds in zip(CLIPS, HEARD, strict=True)
        ]
        assert [each.language for each in found] == [each.language for each in expected]
        assert len({each.language for each in found}) > 1


def test_a_text_that_never_ends_stops_where_nobody_could_have_said_more(demo_tokenizer, processor):
    model = at_true_length(demo_tokenizer, max_target_positions=448)
    model.generation_config.suppress_tokens += [demo_tokenizer.eos_token_id]
    alone = [next(iter(decode_windows(model, processor, [clip], PLAIN)))[1].tokens for clip in CLIPS]
    assert [len(tokens) for tokens in alone] == [32 + 24 * seconds for seconds in HEARD]
    together = {index: window.tokens for index, window in decode_windows(model, processor, CLIPS, PLAIN)}
    assert [together[index] for index in range(len(CLIPS))] == alone
    model.config.true_length, model.generation_config.force_unique_generate_call = False, True
    (_, whole) = next(iter(decode_windows(model, processor, CLIPS[:1], PLAIN)))
    assert len(whole.tokens) == 448


# ---- what is heard ----


def test_silence_at_the_end_of_a_clip_belongs_to_it(student, processor, heard):
    clip = np.concatenate([noise(0.9), np.zeros(32_000, np.float32)])
    generate_transcripts(student, processor, [clip, CLIPS[0]], PLAIN)
    assert sorted(heard) == [1, 4]


def test_the_last_window_of_a_long_recording_is_cut(student, processor, heard):
    transcript = generate_transcripts(student, processor, [noise(13.3, 4)], GREEDY)[0]
    assert heard[0] == SECONDS and heard[-1] < SECONDS and len(heard) > 2
    assert transcript.duration == pytest.approx(13.3) and transcript.segments[-1].end <= 13.3


@pytest.mark.parametrize("samples", [200, 16_000, 23_999, 24_001, 47_980, 48_000, 100_000])
def test_features_of_a_context_are_the_first_of_the_window(samples):
    clip = noise(samples / 16_000, 3)
    extractor = WhisperFeatureExtractor()
    whole = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features[0]
    context = -(-samples // 16_000) * 100
    torch.testing.assert_close(context_features(clip, extractor, context), whole[:, :context], rtol=0, atol=1e-6)
    moving = RecordingFeatures(clip, extractor, context)
    assert moving.frames <= context
    torch.testing.assert_close(moving.padded_window(0, 2000), whole[:, :2000], rtol=0, atol=1e-6)


@pytest.mark.parametrize("loudness", [1.0, 0.0, 1e-6])
def test_silence_behind_a_long_recording_is_that_of_the_extractor(loudness):
    extractor = WhisperFeatureExtractor(chunk_length=2)
    samples = np.float32(loudness) * noise(3.0, 1)
    padded = np.pad(samples, (0, 16_000))
    expected = extractor(padded, sampling_rate=16_000, truncation=False, padding=False, return_tensors="pt")
    window = RecordingFeatures(samples, extractor, 200).padded_window(250, 130)
    # The recording's last frames see it mirrored.
    torch.testing.assert_close(window[:, 55:], expected.input_features[0][:, 305:380], rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention, mixed", [("sdpa", True), ("eager", True), ("flash_attention_2", False)])
def test_lengths_are_joined_only_where_attention_can_mask(attention, mixed):
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation=attention))
    expected = [[1, 3, 4], [0, 2]] if mixed else [[1, 3], [4], [0, 2]]
    assert context_batches(model, [300, 100, 300, 100, 200], 3) == expected
    assert context_batches(model, [600] * 5, 2) == [[0, 1], [2, 3], [4]]


# ---- which class a checkpoint is loaded as ----


def test_a_folder_of_a_student_is_loaded_at_true_length(student, demo_tokenizer, processor, tmp_path):
    folder = save_checkpoint(student, demo_tokenizer, tmp_path / "student")
    WhisperProcessor(WhisperFeatureExtractor(chunk_length=SECONDS), demo_tokenizer).save_pretrained(folder)
    loaded, its = load_checkpoint(folder, "cpu")
    assert type(loaded) is FastWhisperForConditionalGeneration
    assert loaded.config.true_length and loaded.config.true_length_margin == 0.5
    assert generate_transcripts(loaded, its, CLIPS) == generate_transcripts(student, processor, CLIPS)


def test_plain_whisper_stays_the_stock_class(demo_tokenizer, tmp_path):
    folder = save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, tmp_path / "plain")
    assert type(load_checkpoint(folder, "cpu")[0]) is WhisperForConditionalGeneration


# ---- a real Whisper ----


@pytest.fixture(scope="module")
def real_clips(real_speech):
    files = sorted((real_speech("kathleen_arctic") / "flac").glob("*.flac"))[:3]
    return [load_audio(file) for file in files]


@pytest.fixture
def real_student(real_model):
    teacher, processor = load_checkpoint(str(real_model("whisper-tiny.en")), "cpu")
    model = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    model.config.true_length = True
    return teacher, model, processor


def test_a_margin_of_the_whole_window_is_the_stock_model(real_student, real_clips):
    teacher, model, processor = real_student
    model.config.true_length_margin = 30
    assert generate_transcripts(model, processor, real_clips) == generate_transcripts(teacher, processor, real_clips)


@pytest.mark.parametrize("mode", ["timestamps", "words"])
def test_with_times_silence_behind_a_real_clip_is_heard_as_the_stock_model_hears_it(real_student, real_clips, mode):
    teacher, model, processor = real_student
    model.config.true_length_margin = 30
    options = GenerationOptions(**MODES[mode])
    padded = [np.pad(clip, (0, 30 * 16_000 - len(clip))) for clip in real_clips]
    found = generate_transcripts(model, processor, real_clips, options)
    expected = generate_transcripts(teacher, processor, padded, options)
    assert [each.text for each in found] == [each.text for each in expected]
    ours, theirs = (
        [word for each in all_ for part in each.segments for word in part.words or ()] for all_ in (found, expected)
    )
    assert [word.text for word in ours] == [word.text for word in theirs] and bool(ours) == (mode == "words")
    # The stock model aligns them with 30 s, and ours with the clip.
    assert [word.start for word in ours] == pytest.approx([word.start for word in theirs], abs=0.25)


def test_a_small_margin_is_what_a_real_encoder_reads(real_student, real_clips):
    _, model, processor = real_student
    model.config.true_length_margin = 0.25
    model.generation_config.max_length = 8  # untrained, it would not stop
    seen = encoded_seconds(model)
    generate_transcripts(model, processor, real_clips)
    assert sorted(seen) == sorted(-(-round(len(clip) / 160 + 25.499) // 100) for clip in real_clips)
