"""Generation from speech: budgets, loop guard, finish reasons, refusals, stitching, beams, assistants, streams."""

import threading

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, TextIteratorStreamer

from fastwhisper.modeling.answer_budget import EXTRA_TEXT_TOKENS, TEXT_TOKENS_PER_SECOND
from fastwhisper.modeling.finish_reasons import LoopGuard

from ..fastslm_parts import AUDIO_ID, QUERIES, mask_of, prompts, tiny_fastslm, tiny_language_model, tiny_pair, windows


@pytest.fixture(scope="module")
def model():
    return tiny_fastslm()


@pytest.fixture
def inputs():
    return {**prompts(2 * QUERIES, QUERIES), "input_features": windows(3)}


def new_tokens(outputs, inputs):
    return outputs[:, inputs["input_ids"].shape[1] :]


def always(model, *ids):
    """Make the model say `ids` one after the other, then the first of them again and again."""
    said = []
    head = model.lm_head.forward

    def forward(hidden):
        logits = torch.zeros_like(head(hidden))
        step = len(said)
        said.append(step)
        logits[:, -1, ids[step] if step < len(ids) else ids[0]] = 1.0
        return logits

    model.lm_head.forward = forward
    return model


def test_greedy_with_and_without_cache_and_by_hand(model, inputs):
    cached = model.generate(**inputs, max_new_tokens=6)
    assert torch.equal(cached[:, :13], inputs["input_ids"])
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, use_cache=False), cached)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(6):
        logits = model(ids, input_features=inputs["input_features"], attention_mask=mask).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, mask[:, :1] * 0 + 1], dim=1)
    finished = (cached[:, 13:] == 1).long().cumsum(1) - (cached[:, 13:] == 1).long() > 0
    assert torch.equal(cached[:, 13:][~finished], ids[:, 13:][~finished])


def test_batch_equals_one_by_one(model, inputs):
    together = new_tokens(model.generate(**inputs, max_new_tokens=6), inputs)
    for row, chosen in enumerate((slice(0, 2), slice(2, 3))):
        single = prompts([2 * QUERIES, QUERIES][row])
        single["input_ids"][0, 0] = 3 + row
        alone = model.generate(**single, input_features=windows(3)[chosen], max_new_tokens=6)
        assert torch.equal(new_tokens(alone, single)[0], together[row])


def test_encoder_runs_once(model, inputs, monkeypatch):
    calls = []
    model.model.audio_tower.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**inputs, max_new_tokens=4, num_beams=2)
    assert calls == [1]


def test_speech_tokens_computed_before(model, inputs):
    expected = model.generate(**inputs, max_new_tokens=5)
    tokens = model.get_audio_features(inputs.pop("input_features")).pooler_output
    assert torch.equal(model.generate(**inputs, audio_features=tokens, max_new_tokens=5), expected)


def test_beams_repeat_the_audio_of_each_prompt(model, inputs):
    beams = model.generate(**inputs, max_new_tokens=5, num_beams=3, num_return_sequences=2)
    for row, chosen in enumerate((slice(0, 2), slice(2, 3))):
        single = prompts([2 * QUERIES, QUERIES][row])
        single["input_ids"][0, 0] = 3 + row
        alone = model.generate(
            **single, input_features=windows(3)[chosen], max_new_tokens=5, num_beams=3, num_return_sequences=2
        )
        assert torch.equal(new_tokens(beams, inputs)[2 * row : 2 * row + 2], new_tokens(alone, single))


def test_samples_of_the_likeliest_token_are_greedy(model, inputs):
    """An independent check of the order of repeated audio: greedy search repeats none."""
    greedy = model.generate(**inputs, max_new_tokens=6)
    samples = model.generate(**inputs, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=3)
    assert torch.equal(samples, greedy.repeat_interleave(3, dim=0))


def test_assisted_decoding_gives_the_same_text(model):
    inputs = {**prompts(QUERIES), "input_features": windows(1)}
    expected = model.generate(**inputs, max_new_tokens=8)
    other = tiny_fastslm(language_model=tiny_language_model(hidden_size=24, head_dim=6, seed=3), seed=4)
    for assistant in (model, other):
        assert torch.equal(model.generate(**inputs, max_new_tokens=8, assistant_model=assistant), expected)
    assert torch.equal(model.generate(**inputs, max_new_tokens=8, prompt_lookup_num_tokens=2), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_budget_follows_the_duration(masked, inputs):
    model = always(tiny_fastslm(language_model=tiny_language_model(max_position_embeddings=4096)), 7, 8, 9)
    if masked:
        inputs["input_features_mask"] = mask_of(100, 50, 100)
    outputs = model.generate(**inputs, loop_guard=False, return_dict_in_generate=True)
    seconds = 1.5 if masked else 2.0
    assert new_tokens(outputs.sequences, inputs).shape[1] == TEXT_TOKENS_PER_SECOND * seconds + EXTRA_TEXT_TOKENS
    assert outputs.finish_reasons == ["length", "length"]


def test_finish_reasons_row_by_row(inputs):
    model = tiny_fastslm()
    head, steps = model.lm_head.forward, []

    def forward(hidden):
        logits = torch.zeros_like(head(hidden))
        step = len(steps)
        steps.append(step)
        logits[0, -1, 1 if step == 3 else 7 + step] = 1.0  # ends by itself
        logits[1, -1, 9] = 1.0  # says 9 for ever
        return logits

    model.lm_head.forward = forward
    outputs = model.generate(**inputs, max_new_tokens=60, return_dict_in_generate=True)
    assert outputs.finish_reasons == ["stop", "loop"]
    said = new_tokens(outputs.sequences, inputs)
    assert said[1].tolist() == [9] * 24
    assert said[0].tolist() == [7, 8, 9, 1] + [0] * 20
    steps.clear()
    outputs = model.generate(**inputs, max_new_tokens=60, return_dict_in_generate=True, loop_guard=False)
    assert outputs.finish_reasons == ["stop", "length"]
    assert new_tokens(outputs.sequences, inputs).shape[1] == 60


def test_loop_guard_knows_a_loop_from_a_repetition():
    def loops(text):
        guard = LoopGuard(prompt_length=1)
        ids = torch.tensor([[99, *map(ord, text)]])
        return bool(guard(ids, None))

    assert loops("ab" * 12) and loops("x" * 24) and loops("start " + "a longer phrase " * 4)
    assert not loops("ab" * 11) and not loops("x" * 23) and not loops("a longer phrase " * 3)
    assert not loops("x" * 24 + "y") and not loops("") and not loops("abcdefghijklmnopqrstuvwxyz")


def test_a_cut_is_never_silent(inputs, caplog):
    model = always(tiny_fastslm(), 7, 8, 9)
    model.generate(**inputs)
    assert "did not end by themselves" in caplog.text
    caplog.clear()
    model.generate(**inputs, max_new_tokens=3)
    assert not caplog.text


def test_generation_never_says_a_placeholder():
    processor_ids = 60
    model = always(tiny_fastslm(audio_token_id=processor_ids), processor_ids)
    inputs = prompts(0)
    inputs["input_ids"] = torch.tensor([[3, *[processor_ids] * QUERIES, 4]])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    outputs = model.generate(**inputs, input_features=windows(1), max_new_tokens=3)
    assert not (outputs[0, -3:] == processor_ids).any()


def test_audio_beyond_the_context_is_refused_with_the_numbers():
    model = tiny_fastslm(language_model=tiny_language_model(max_position_embeddings=40))
    inputs = {**prompts(8 * QUERIES), "input_features": windows(8)}
    message = "44 tokens are needed .40 of speech, 3 of text, 1 new., 40 are available.* fits this prompt is 7 s"
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs)
    with pytest.raises(ValueError, match="43 of text|53 tokens are needed"):
        model.generate(**inputs, max_new_tokens=10)
    fitting = {**prompts(7 * QUERIES), "input_features": windows(7)}
    assert new_tokens(model.generate(**fitting), fitting).shape[1] <= 2


def test_what_does_not_fit_is_refused_before_it_is_encoded(monkeypatch):
    """Eight windows, the last a fifth full: beyond the context, for another prompt, and of another size."""
    adapter = {"tokens_follow_length": True}
    model = tiny_fastslm(adapter, language_model=tiny_language_model(max_position_embeddings=40))
    features, mask = windows(8), mask_of(*[100] * 7, 20)
    counts = model.get_audio_features(features, mask).window_token_counts.tolist()
    assert model.model.window_token_counts(features, mask) == counts and counts[7] < counts[0] == QUERIES
    speech = sum(counts)
    monkeypatch.setattr(type(model.model), "get_audio_features", lambda *_, **__: pytest.fail("encoded"))
    audio = {"input_features": features, "input_features_mask": mask}
    with pytest.raises(ValueError, match=f"{speech + 3 + 9} tokens are needed .{speech} of speech, 3 of text, 9 new"):
        model.generate(**prompts(speech), **audio, max_new_tokens=9)
    with pytest.raises(ValueError, match=f"prompt 0 has {speech - 4} placeholders"):
        model.generate(**prompts(speech - 4), **audio)
    with pytest.raises(ValueError, match="80 mel bins x"):
        model.generate(**prompts(speech), input_features=features[:, :79])


def test_stitching_joins_the_spans(inputs):
    language_model = tiny_language_model(max_position_embeddings=64)
    model = tiny_fastslm(language_model=language_model, separator_token_ids=[50])
    inputs = {**prompts(20 * QUERIES, 3 * QUERIES), "input_features": windows(23)}
    with pytest.raises(ValueError, match="stitch"):
        model.generate(**inputs)
    outputs = model.generate(
        **inputs, long_form="stitch", span_windows=2, max_new_tokens=4, return_dict_in_generate=True
    )
    said = new_tokens(outputs.sequences, inputs)
    expected, at = [], 0
    for row, count in enumerate((20, 3)):
        pieces = []
        for start in range(0, count, 2):
            span = windows(23)[at + start : at + min(start + 2, count)]
            single = prompts(len(span) * QUERIES)
            single["input_ids"][0, 0] = 3 + row
            alone = new_tokens(model.generate(**single, input_features=span, max_new_tokens=4), single)[0].tolist()
            pieces += [token for token in alone if token not in (0, 1)] + [50]
        expected.append(pieces[:-1])
        at += count
    for row, answer in enumerate(expected):
        assert said[row, : len(answer)].tolist() == answer
        assert set(said[row, len(answer) :].tolist()) <= {0, 1}
    assert set(outputs.finish_reasons) <= {"stop", "length", "loop"}


def test_spans_fit_the_context():
    model = tiny_fastslm(language_model=tiny_language_model(max_position_embeddings=100))
    inputs = {**prompts(30 * QUERIES), "input_features": windows(30)}
    outputs = model.generate(**inputs, long_form="stitch")
    assert outputs.shape[0] == 1
    small = tiny_fastslm(language_model=tiny_language_model(max_position_embeddings=40))
    with pytest.raises(ValueError, match="not even one window"):
        small.generate(**inputs, long_form="stitch")
    with pytest.raises(ValueError, match="long_form"):
        model.generate(**inputs, long_form="glue")
    with pytest.raises(ValueError, match="num_return_sequences"):
        model.generate(**inputs, long_form="stitch", num_return_sequences=2)


def test_known_window_counts_are_not_guessed_again():
    """Tokens of a rate that the call does not name: whole windows of the model's own rate would be a wrong guess."""
    model = tiny_fastslm({"rates": (2, QUERIES)}, separator_token_ids=[50])
    audio = model.get_audio_features(windows(4), tokens_per_window=2)
    progress, settings = [], {"long_form": "stitch", "span_windows": 1, "max_new_tokens": 4}
    said = model.generate(
        **prompts(8),
        audio_features=audio.pooler_output,
        window_token_counts=audio.window_token_counts,
        span_progress=lambda *counts: progress.append(counts),
        **settings,
    )
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    expected = model.generate(**prompts(8), input_features=windows(4), tokens_per_window=2, **settings)
    assert torch.equal(said, expected)
    with pytest.raises(ValueError, match="8 placeholders.* give 6"):
        model.generate(**prompts(8), audio_features=audio.pooler_output, window_token_counts=[2, 2, 2])


def test_every_span_is_under_the_callers_rules(inputs):
    """Processors of logits and criteria to stop reach each span, not the first prompt alone."""
    model = tiny_fastslm(separator_token_ids=[50])
    inputs = {**prompts(4 * QUERIES), "input_features": windows(4)}
    seen = []

    def only_seven(input_ids, scores):
        seen.append(input_ids.shape[1])
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([7]), 0.0)

    outputs = model.generate(
        **inputs,
        long_form="stitch",
        span_windows=2,
        max_new_tokens=3,
        logits_processor=LogitsProcessorList([only_seven]),
    )
    assert new_tokens(outputs, inputs)[0, :7].tolist() == [7, 7, 7, 50, 7, 7, 7]
    assert len(seen) == 6


def test_text_alone_generates_as_the_language_model():
    language_model = tiny_language_model()
    model = tiny_fastslm(language_model=language_model)
    ids = torch.tensor([[3, 4, 5]])
    expected = language_model.generate(ids, max_new_tokens=6, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=6), expected)
    assert torch.equal(model.generate(input_ids=ids, generation_config=GenerationConfig(max_new_tokens=6)), expected)


def test_nested_rate_chosen_for_a_call():
    model = tiny_fastslm({"rates": (2, QUERIES)})
    inputs = {**prompts(4), "input_features": windows(2)}
    assert model.generate(**inputs, tokens_per_window=2, max_new_tokens=3).shape[1] <= 10
    with pytest.raises(ValueError, match="placeholders"):
        model.generate(**inputs, max_new_tokens=3)


def test_streamed_text_is_the_generated_text():
    model, processor = tiny_pair()
    request = processor.apply_transcription_request(torch.zeros(16_000).numpy())
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    expected = processor.batch_decode(
        new_tokens(model.generate(**request, max_new_tokens=8), request), skip_special_tokens=True
    )[0]
    thread = threading.Thread(target=model.generate, kwargs={**request, "max_new_tokens": 8, "streamer": streamer})
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    assert streamed.strip() == expected.strip()


def test_windows_are_reported(model, inputs):
    progress = []
    model.generate(**inputs, max_new_tokens=2, window_progress=lambda done, total: progress.append((done, total)))
    assert progress[-1] == (3, 3)


def test_placeholder_of_the_tests_is_outside_of_the_vocabulary(model):
    assert model.config.audio_token_id == AUDIO_ID == model.config.text_config.vocab_size
