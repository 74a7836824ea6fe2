"""Windows that move along their times: as `generate` for one clip, and in batches as one by one."""

import copy

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, WhisperTimeStampLogitsProcessor

from fastwhisper.data.audio import load_audio
from fastwhisper.transcription import sequential
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts
from fastwhisper.transcription.token_kinds import TimestampRules, TokenKinds, pieces
from fastwhisper.transcription.word_times import token_times

from ..recordings import noise, tiny_processor, write_only_words
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer
from .openai_model import openai_model, use_plain_python

THRESHOLDS = {"compression_ratio_threshold": 1.35, "logprob_threshold": -1.0, "no_speech_threshold": 0.6}
CLIPS = [noise(seconds, seed) for seed, seconds in enumerate((0.4, 1.9, 1.31, 4.1, 0.7, 2.72))]


@pytest.fixture(scope="module")
def processor(demo_tokenizer):
    return tiny_processor(demo_tokenizer)


@pytest.fixture(scope="module")
def model(processor):
    """Sure of itself in some windows and not in others; it knows no times beyond its window of 2 s."""
    tokenizer = processor.tokenizer
    model = tiny_whisper(tokenizer, max_target_positions=24, init_std=0.5)
    write_only_words(model, tokenizer)
    late = range(tokenizer.convert_tokens_to_ids("<|2.02|>"), len(tokenizer))
    model.generation_config.suppress_tokens += list(late)
    return model


def tried(monkeypatch) -> list[tuple[float, int]]:
    """Temperature, and number of windows, of each call that decodes."""
    calls = []
    generate = sequential.SequentialDecoder._generate

    def spy(decoder, encoded, clips, temperature):
        calls.append((temperature, len(clips)))
        return generate(decoder, encoded, clips, temperature)

    monkeypatch.setattr(sequential.SequentialDecoder, "_generate", spy)
    return calls


@pytest.mark.parametrize("temperatures, beams", [((0.0,), 1), ((0.0,), 3), ((0.0, 0.4, 1.0), 1), ((0.7,), 1)])
@pytest.mark.parametrize("seconds", [3.3, 7.0])
def test_a_clip_says_what_generate_says(model, processor, temperatures, beams, seconds):
    clip = noise(seconds, 11)
    features = processor(clip, sampling_rate=16_000, truncation=False, padding=False, return_tensors="pt")
    torch.manual_seed(3)
    expected = model.generate(
        features.input_features[..., : round(100 * seconds)],
        return_timestamps=True,
        return_segments=True,
        temperature=temperatures,
        condition_on_prev_tokens=False,
        num_beams=beams,
        language="en",
        **THRESHOLDS,
    )["segments"][0]
    options = GenerationOptions(timestamps=True, temperatures=temperatures, num_beams=beams, seed=3)
    transcript = generate_transcripts(model, processor, [clip], options)[0]
    kinds = TokenKinds(processor.tokenizer)
    texts = [kinds.text(segment["tokens"].tolist()) for segment in expected]
    assert [segment.text for segment in transcript.segments] == [text for text in texts if text]
    assert len(transcript.segments) > 1
    assert transcript.text == kinds.text(torch.cat([segment["tokens"] for segment in expected]).tolist())


@pytest.mark.parametrize("beams", [1, 2])
def test_a_batch_with_words_and_fallback_equals_one_by_one(processor, monkeypatch, beams):
    model = tiny_whisper(processor.tokenizer, max_target_positions=40, init_std=1.0)
    write_only_words(model, processor.tokenizer)
    calls = tried(monkeypatch)
    options = GenerationOptions(word_timestamps=True, num_beams=beams, temperatures=(0.0, 0.6))
    together = generate_transcripts(model, processor, CLIPS, options)
    first = sum(size for temperature, size in calls if temperature == 0)
    again = sum(size for temperature, size in calls if temperature == 0.6)
    assert calls[0] == (0.0, len(CLIPS)) and 0 < again < first
    assert together == [generate_transcripts(model, processor, [clip], options)[0] for clip in CLIPS]
    assert all(any(segment.words for segment in transcript.segments) for transcript in together)


def test_real_digits_in_a_batch_have_the_words_of_one_by_one(real_model, real_speech):
    files = sorted((real_speech("fsdd") / "recordings").glob("*_jackson_0.wav"))[:3]
    model, processor = load_checkpoint(str(real_model("whisper-tiny.en")), "cpu")
    clips = [load_audio(file) for file in files]
    options = GenerationOptions(word_timestamps=True)
    together = generate_transcripts(model, processor, clips, options)
    assert together == [generate_transcripts(model, processor, [clip], options)[0] for clip in clips]
    assert all(transcript.segments[0].words for transcript in together)


def our_times(model, processor, clips, texts, prompt):
    """Features, their frames of audio, start of each text token and the end of the last, in a batch."""
    features = processor.feature_extractor(clips, sampling_rate=16_000, return_tensors="pt").input_features
    frames = [len(clip) // 160 for clip in clips]
    with torch.no_grad():
        encoded = model.model.encoder(features)
        kinds = TokenKinds(processor.tokenizer)
        return features, frames, token_times(model, encoded, [prompt] * len(clips), texts, frames, kinds)


def check_word_times(monkeypatch, model, processor, clips, texts, multilingual):
    """Each word begins and ends where openai's code has it."""
    use_plain_python(monkeypatch)
    from whisper.timing import find_alignment
    from whisper.tokenizer import get_tokenizer

    theirs = get_tokenizer(multilingual, language="en" if multilingual else None, task="transcribe")
    reference = openai_model(model)
    ids = [processor.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    features, frames, times = our_times(model, processor, clips, ids, list(theirs.sot_sequence))
    for row, tokens in enumerate(ids):
        expected = find_alignment(reference, theirs, tokens, features[row], frames[row])
        _, groups = theirs.split_to_word_tokens(tokens)
        first = np.cumsum([0, *map(len, groups)])
        assert len(expected) == len(groups) > 0 and len(times[row]) == len(tokens) + 1
        assert [times[row][place] for place in first[:-1]] == pytest.approx([word.start for word in expected])
        assert [times[row][place] for place in first[1:]] == pytest.approx([word.end for word in expected])


def test_word_times_are_those_of_openai(monkeypatch):
    """On random weights, in a batch with shorter and longer neighbours."""
    tokenizer = whisper_tokenizer()
    model = tiny_whisper(tokenizer, init_std=0.5, max_target_positions=48, ffn_dim=128)
    texts = [" turn on the lamp", " no", " it is \u4eca\u65e5 a good night, is it not?"]
    clips = [noise(seconds, 7) for seconds in (1.9, 0.5, 1.2)]
    check_word_times(monkeypatch, model, tiny_processor(tokenizer), clips, texts, multilingual=True)


def test_word_times_are_those_of_openai_on_real_speech(monkeypatch, real_model, real_speech):
    model, processor = load_checkpoint(str(real_model("whisper-tiny.en")), "cpu")
    files = sorted((real_speech("kathleen_arctic") / "flac").glob("*.flac"))[:2]
    texts = [" Author of the danger trail, Philip Steels, etc.", " Not at this particular case, Tom, apologized."]
    check_word_times(monkeypatch, model, processor, [load_audio(file) for file in files], texts, multilingual=False)


def test_a_text_that_fills_the_decoder_has_times(processor):
    tokenizer = processor.tokenizer
    model = tiny_whisper(tokenizer, max_target_positions=12)
    text = tokenizer(" turn on the lamp and turn off the fan now", add_special_tokens=False).input_ids[:8]
    prompt = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|en|>", "<|transcribe|>"])
    _, _, times = our_times(model, processor, [noise(1.0)], [text], prompt)
    assert len(text) == 8 and len(times[0]) == 9 and times[0] == sorted(times[0]) and times[0][-1] <= 1.0


def test_times_need_no_alignment_heads_on_record(model, processor):
    bare = copy.deepcopy(model)
    del bare.generation_config.alignment_heads
    found = generate_transcripts(bare, processor, [noise(1.5, 2)], GenerationOptions(word_timestamps=True))
    assert found[0].segments[0].words


def stamps(kinds, *seconds):
    return [kinds.first_time + round(each / 0.02) for each in seconds]


def test_pieces(demo_tokenizer):
    kinds = TokenKinds(demo_tokenizer)
    zero, one, half, last = stamps(kinds, 0.0, 1.0, 1.5, 2.0)

    def cut(tokens):
        found, moved = pieces(tokens, kinds, 200)
        return [(round(piece.start, 2), round(piece.end, 2), piece.text_tokens) for piece in found], moved

    assert cut([zero, 5, one, one, 6, half]) == ([(0.0, 1.0, [5]), (1.0, 1.5, [6])], 200)
    assert cut([zero, 5, one, one, 6, half, half]) == ([(0.0, 1.0, [5]), (1.0, 1.5, [6])], 150)
    assert cut([zero, 5, one, one, 6]) == ([(0.0, 1.0, [5])], 100)
    assert cut([zero, 5]) == ([(0.0, 2.0, [5])], 200)
    assert cut([zero, 5, half]) == ([(0.0, 1.5, [5])], 200)
    assert cut([zero, 5, zero, zero]) == ([(0.0, 0.0, [5])], 200)  # else the window would stand still
    assert cut([zero, 5, last + 50, last + 50]) == ([(0.0, 3.0, [5])], 200)  # else audio would be passed over


@pytest.mark.parametrize("seconds", [1.5, 5.0])
@pytest.mark.parametrize("timed", [{}, {"timestamps": True}, {"word_timestamps": True}])
def test_added_words_are_text(demo_tokenizer, seconds, timed):
    """A fine-tune with two domain words, which says nothing else."""
    tokenizer = copy.deepcopy(demo_tokenizer)
    tokenizer.add_tokens(["zorbax", "qiln"])
    model = tiny_whisper(tokenizer, max_target_positions=16, init_std=0.5)
    kinds = TokenKinds(tokenizer)
    spoken = {len(tokenizer) - 2, len(tokenizer) - 1}
    if seconds > 2 or timed:
        spoken.update(range(kinds.first_time, kinds.first_time + 101))
    model.generation_config.suppress_tokens = sorted(set(range(len(tokenizer))) - spoken)
    options = GenerationOptions(temperatures=(0.0,), **timed)
    transcript = generate_transcripts(model, tiny_processor(tokenizer), [noise(seconds, 3)], options)[0]
    assert transcript.text and not transcript.text.replace("zorbax", "").replace("qiln", "")
    # With the words taken for times no time could follow one, and a window would be a single segment.
    assert len(transcript.segments) > (2 if seconds > 2 else 0)
    if "word_timestamps" in timed:
        assert "".join(word.text for segment in transcript.segments for word in segment.words) == transcript.text


def test_special_tokens_are_no_text(demo_tokenizer):
    tokenizer = copy.deepcopy(demo_tokenizer)
    tokenizer.add_tokens(["zorbax"])
    tokenizer.add_tokens(["[noise]"], special_tokens=True)
    kinds, ids = TokenKinds(tokenizer), tokenizer.convert_tokens_to_ids
    spoken = ["<|startoftranscript|>", "<|en|>", "<|0.00|>", "zorbax", "[noise]", "<|4.00|>", "<|endoftext|>"]
    assert kinds.text(map(ids, spoken)) == "zorbax"
    assert kinds.is_time(ids("<|4.00|>")) and not kinds.is_time(ids("zorbax"))


def test_the_rules_of_times_are_those_of_transformers(demo_tokenizer):
    kinds = TokenKinds(demo_tokenizer)
    vocabulary, zero = len(demo_tokenizer), kinds.first_time
    config = GenerationConfig(
        eos_token_id=kinds.end_of_text, no_timestamps_token_id=kinds.no_timestamps, max_initial_timestamp_index=50
    )
    stock = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    for written in ([], [zero], [zero, 5], [zero, 5, zero + 9], [zero, 5, zero + 9, zero + 9], [zero, 5, 6, 7]):
        ids = torch.tensor([[1, *written]])
        scores = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(len(written)))
        expected = stock(ids, scores)
        assert torch.equal(TimestampRules(config, kinds, vocabulary, 1)(ids, scores), expected)
        # Two words behind the times change nothing for the other ids, and are allowed where words are.
        wider = TimestampRules(config, kinds, vocabulary + 2, 1)(
            ids, torch.nn.functional.pad(scores, (0, 2), value=-9.0)
        )
        assert torch.equal(wider[:, :vocabulary].isinf(), expected.isinf())
        assert wider[0, -1].isinf() == expected[0, : kinds.end_of_text].isinf().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_batch_on_cuda_equals_one_by_one(processor):
    model = tiny_whisper(processor.tokenizer, max_target_positions=40, init_std=1.0).to("cuda")
    write_only_words(model, processor.tokenizer)
    options = GenerationOptions(word_timestamps=True, temperatures=(0.0, 0.6, 1.0))
    state = torch.cuda.get_rng_state()
    together = generate_transcripts(model, processor, CLIPS, options)
    assert together == [generate_transcripts(model, processor, [clip], options)[0] for clip in CLIPS]
    assert torch.equal(torch.cuda.get_rng_state(), state)
    half = generate_transcripts(model.half(), processor, CLIPS, options)
    assert all(any(segment.words for segment in transcript.segments) for transcript in half)
