"""Audio to text: batches, windows, long audio, word times, languages."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.errors import InputError
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts, window_seconds
from fastwhisper.transcription.transcripts import Segment
from fastwhisper.transcription.word_times import words as split_words

from ..recordings import noise, tiny_processor, write_only_words
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer


@pytest.fixture
def processor(demo_tokenizer):
    return tiny_processor(demo_tokenizer)


@pytest.fixture(scope="module")
def multilingual():
    return tiny_whisper(whisper_tokenizer(), init_std=0.3, max_target_positions=16)


@pytest.fixture(scope="module")
def multilingual_processor():
    return tiny_processor(whisper_tokenizer())


CLIPS = [noise(0.4, 1), noise(2.0, 2), noise(1.31, 3), noise(0.01, 4), noise(1.7, 5)]
GREEDY = (0.0,)


def test_plain_text_is_what_generate_writes(teacher, processor):
    features = processor(CLIPS[2], sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    expected = processor.batch_decode(teacher.generate(**features, language="en"), skip_special_tokens=True)[0].strip()
    transcript = generate_transcripts(teacher, processor, [CLIPS[2]])[0]
    assert expected and transcript.text == expected
    assert transcript.duration == pytest.approx(1.31) and transcript.language == "en"
    assert [segment.text for segment in transcript.segments] == [expected]


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_batch_equals_one_by_one(teacher, processor, timestamps):
    clips = [*CLIPS, noise(3.3, 6)]
    options = {"timestamps": timestamps, "temperatures": GREEDY}
    together = generate_transcripts(teacher, processor, clips, GenerationOptions(batch_size=4, **options))
    alone = [generate_transcripts(teacher, processor, [clip], GenerationOptions(**options))[0] for clip in clips]
    assert together == alone
    assert len({transcript.text for transcript in together}) > 2


def test_long_audio_moves_the_window_over_all_of_it(teacher, processor):
    windows = []
    hook = teacher.model.encoder.register_forward_hook(lambda *call: windows.append(call))
    transcript = generate_transcripts(teacher, processor, [noise(7.0)], GenerationOptions(temperatures=GREEDY))[0]
    hook.remove()
    ends = [segment.end for segment in transcript.segments]
    assert len(windows) >= 4 and len(ends) > 2 and ends[-1] > 6
    assert ends == sorted(ends) and ends[-1] <= transcript.duration == 7.0
    assert all(
        left.end <= right.start for left, right in zip(transcript.segments[:-1], transcript.segments[1:], strict=True)
    )


def test_fallback_is_the_same_under_a_seed_and_leaves_the_random_state(teacher, processor):
    options = GenerationOptions(timestamps=True, seed=5, temperatures=(0.0, 1.0))
    torch.manual_seed(1)
    first = generate_transcripts(teacher, processor, [CLIPS[4]], options)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert generate_transcripts(teacher, processor, [CLIPS[4]], options) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert generate_transcripts(teacher, processor, [CLIPS[4]], replace(options, seed=6)) != first


@pytest.mark.parametrize("decoder_layers", [1, 2, 4])
@pytest.mark.parametrize("seconds", [1.5, 4.6])
def test_word_times_of_students(processor, decoder_layers, seconds):
    teacher = tiny_whisper(processor.tokenizer)
    write_only_words(teacher, processor.tokenizer)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=decoder_layers)
    options = GenerationOptions(word_timestamps=True, temperatures=GREEDY)
    found = []
    clips = [noise(seconds, 8), noise(1.02, 9), noise(seconds, 10)]
    for transcript in generate_transcripts(student, processor, clips, options):
        words = [word for segment in transcript.segments for word in segment.words]
        times = [time for word in words for time in (word.start, word.end)]
        assert "".join("".join(word.text for word in words).split()) == "".join(transcript.text.split())
        assert times == sorted(times)
        assert all(0 <= time <= transcript.duration for time in times)
        found += words
    assert len(found) > 4 and any(word.end > word.start for word in found)


def test_word_times_of_a_rest_of_one_frame(processor):
    # Too few tokens for a second timestamp: the window moves by its whole length, to the last frame of the audio.
    teacher = tiny_whisper(processor.tokenizer, max_target_positions=6)
    write_only_words(teacher, processor.tokenizer)
    options = GenerationOptions(word_timestamps=True, temperatures=GREEDY)
    transcript = generate_transcripts(teacher, processor, [noise(2.01)], options)[0]
    assert len(transcript.segments) == 2
    assert transcript.duration == 2.01


def test_attention_and_mode_are_restored_after_words(teacher, processor):
    teacher.set_attn_implementation("sdpa")
    teacher.train()
    generate_transcripts(teacher, processor, CLIPS[:1], GenerationOptions(word_timestamps=True, temperatures=GREEDY))
    assert teacher.config._attn_implementation == teacher.model.decoder.config._attn_implementation == "sdpa"
    assert teacher.training
    teacher.eval()


def test_the_language_is_heard_unless_given(multilingual, multilingual_processor):
    heard = generate_transcripts(multilingual, multilingual_processor, CLIPS[:2])
    for clip, transcript in zip(CLIPS, heard, strict=False):
        features = multilingual_processor(clip, sampling_rate=16_000, return_tensors="pt").input_features
        token_id = multilingual.detect_language(features, num_segment_frames=200)[0]
        assert f"<|{transcript.language}|>" == multilingual_processor.tokenizer.convert_ids_to_tokens(int(token_id))
    german = generate_transcripts(
        multilingual, multilingual_processor, CLIPS[:1], GenerationOptions(language="German")
    )
    assert german[0].language == "de"


def test_words_of_a_language_without_spaces(multilingual_processor):
    tokenizer = multilingual_processor.tokenizer
    tokens = tokenizer(" 今日は、世界 good day", add_special_tokens=False).input_ids
    times = [0.1 * index for index in range(len(tokens) + 1)]
    segment = Segment("", 0.0, 9.0)
    found = split_words(tokenizer, tokens, times, segment, "ja")
    assert "".join(word.text for word in found) == "今日は、世界goodday"
    assert len(found) == 4 and found[-1].end == times[-1]
    assert [word.text for word in split_words(tokenizer, tokens, times, segment, "en")][1:] == ["good", "day"]


@pytest.mark.parametrize("language, task", [("de", "transcribe"), (None, "translate")])
def test_an_english_model_refuses_other_prompts(teacher, processor, language, task):
    teacher.generation_config.is_multilingual = False
    with pytest.raises(InputError, match="only transcribes English"):
        generate_transcripts(teacher, processor, CLIPS[:1], GenerationOptions(language=language, task=task))
    assert generate_transcripts(teacher, processor, CLIPS[:1], GenerationOptions(language="en"))[0].language == "en"


def test_unknown_prompts_are_named(teacher, processor):
    with pytest.raises(InputError, match="no language 'de'; it has en"):
        generate_transcripts(teacher, processor, CLIPS[:1], GenerationOptions(language="de"))
    with pytest.raises(InputError, match="no task 'sing'"):
        generate_transcripts(teacher, processor, CLIPS[:1], GenerationOptions(task="sing"))


def test_a_foreign_processor_is_refused(teacher, processor, demo_tokenizer):
    assert window_seconds(teacher, processor) == 2
    foreign = WhisperProcessor(WhisperFeatureExtractor(chunk_length=4, feature_size=128), demo_tokenizer)
    with pytest.raises(InputError, match="400 frames of 128 mel bins, the model takes 200 of 80"):
        generate_transcripts(teacher, foreign, CLIPS[:1])


def test_silence_and_no_clips(teacher, processor):
    assert generate_transcripts(teacher, processor, []) == []
    silence = np.zeros(64_000, np.float32)
    for transcript in generate_transcripts(
        teacher, processor, [silence], GenerationOptions(word_timestamps=True, temperatures=(0.0, 1.0))
    ):
        assert transcript.duration == 4.0
