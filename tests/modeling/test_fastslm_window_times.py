"""Times of windows in the prompt: their text, their places, and generation from prompts that they interrupt."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from fastwhisper import FastSLMProcessor
from fastwhisper.modeling.prompt_audio import placeholder_runs
from fastwhisper.modeling.window_clock import clock, is_clock

from ..fastslm_parts import QUERIES, tiny_fastslm, tiny_language_model, tiny_pair, tiny_processor

SECOND = 16_000
FIVE = QUERIES * "<|AUDIO|>"
PROMPT = "<|im_start|>user\n<|ASR|><|audio_bos|>{}<|audio_eos|>\nTranscribe the audio clip into text.<|im_end|>\n"
PROMPT += "<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def pair():
    model, processor = tiny_pair()
    model.generation_config.eos_token_id = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    return model, processor


def tone(seconds):
    return (0.1 * np.sin(np.arange(round(seconds * SECOND)) * 0.05)).astype(np.float32)


def decoded(processor, inputs, row=0):
    return processor.tokenizer.decode(inputs["input_ids"][row][inputs["attention_mask"][row].bool()])


def chat(*parts):
    return [{"role": "user", "content": list(parts)}]


def audio_part(seconds):
    return {"type": "audio", "audio": tone(seconds)}


def text_part(text):
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "[00:00]"), (30, "[00:30]"), (59.999, "[01:00]"), (90, "[01:30]"), (3599, "[59:59]"), (3600, "[1:00:00]"),
        (3750, "[1:02:30]"), (36_000, "[10:00:00]"), (29.5, "[00:29.5]"), (28.25, "[00:28.25]"), (0.05, "[00:00.05]"),
    ],
)  # fmt: skip
def test_clock(seconds, text):
    assert clock(seconds) == text and is_clock(text)


@pytest.mark.parametrize("text", ["", "00:30", "[00:60]", "[60:00]", "[0:30]", "[00:30] ", "[00:30][00:31]", "[noon]"])
def test_what_is_no_clock(text):
    assert not is_clock(text)


def test_off_by_default_and_chosen_for_a_call_or_a_processor(pair):
    processor = pair[1]
    plain, timed = PROMPT.format(3 * FIVE), PROMPT.format(f"[00:00]{FIVE}[00:01]{FIVE}[00:02]{FIVE}")
    assert decoded(processor, processor.apply_transcription_request(tone(2.2))) == plain
    assert decoded(processor, processor.apply_transcription_request(tone(2.2), window_times=True)) == timed
    own = tiny_processor(window_times=True)
    assert decoded(own, own.apply_transcription_request(tone(2.2))) == timed
    assert decoded(own, own.apply_transcription_request(tone(2.2), window_times=False)) == plain
    given = {"text": "<|AUDIO|>", "audio": tone(0.5), "add_special_tokens": False}
    assert decoded(own, own(**given)) == f"[00:00]{FIVE}"
    assert decoded(own, own(**given, window_times=False)) == FIVE


def test_saved_with_the_processor(tmp_path):
    tiny_processor(window_times=True).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["window_times"] is True
    loaded = FastSLMProcessor.from_pretrained(tmp_path)
    assert "[00:01]" in decoded(loaded, loaded.apply_transcription_request(tone(1.5)))


@pytest.mark.parametrize(
    ("settings", "seconds", "expected"),
    [
        ({"window_overlap": 0.25}, 2.0, f"[00:00]{FIVE}[00:00.75]{FIVE}[00:01.5]{FIVE}"),
        ({"tokens_follow_length": True}, 1.5, f"[00:00]{FIVE}[00:01]{3 * '<|AUDIO|>'}"),
        ({"tokens_per_window": 2}, 1.5, f"[00:00]{2 * '<|AUDIO|>'}[00:01]{2 * '<|AUDIO|>'}"),
    ],
)
def test_times_follow_step_and_tokens(settings, seconds, expected):
    processor = tiny_processor(window_times=True, **settings)
    inputs = processor.apply_transcription_request(tone(seconds))
    assert decoded(processor, inputs) == PROMPT.format(expected)
    assert (inputs["input_ids"] == processor.audio_token_id).sum() == processor.num_audio_tokens(
        round(seconds * SECOND)
    )


def test_each_audio_of_a_chat_starts_at_zero(pair):
    model, processor = pair
    conversation = chat(text_part("first "), audio_part(1.5), text_part(" then "), audio_part(2.5))
    inputs = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, processor_kwargs={"window_times": True}
    )
    assert decoded(processor, inputs) == (
        f"<|im_start|>user\nfirst <|audio_bos|>[00:00]{FIVE}[00:01]{FIVE}<|audio_eos|> then "
        f"<|audio_bos|>[00:00]{FIVE}[00:01]{FIVE}[00:02]{FIVE}<|audio_eos|><|im_end|>\n"
    )
    assert model(**inputs).logits.isfinite().all()


def test_labels_leave_speech_out_and_times_in(pair):
    processor = pair[1]
    inputs = processor(text="<|AUDIO|> lamp", audio=tone(1.5), window_times=True, output_labels=True)
    speech = inputs["input_ids"] == processor.audio_token_id
    assert speech.sum() == 2 * QUERIES
    assert torch.equal(inputs["labels"], inputs["input_ids"].masked_fill(speech, -100))
    answered = [*chat(audio_part(1.5)), {"role": "assistant", "content": "stop"}]
    inputs = processor.apply_chat_template(
        answered, output_labels=True, processor_kwargs={"window_times": True}
    )  # fmt: skip
    assert decoded(processor, inputs).count("[00:01]") == 1
    assert processor.tokenizer.decode(inputs["labels"][inputs["labels"] != -100]) == "stop<|im_end|>"


def test_speech_tokens_of_each_window_stand_behind_its_time(pair):
    model, processor = pair
    inputs = processor.apply_transcription_request([tone(2.2), 3 * tone(1.4)], window_times=True)
    speech = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
    speech = list(speech.split(QUERIES))
    embed = model.get_input_embeddings()
    texts = [PROMPT.format("#".join(["", "[00:00]", "[00:01]", "[00:02]"][: count + 1]) + "#") for count in (3, 2)]
    rows = []
    for text in texts:
        pieces = []
        for index, piece in enumerate(text.replace("<|audio_bos|>#", "<|audio_bos|>").split("#")):
            pieces += [speech.pop(0)] if index else []
            pieces.append(
                embed(processor.tokenizer(piece, add_special_tokens=False, return_tensors="pt").input_ids[0])
            )
        rows.append(torch.cat(pieces))
    logits = model(**inputs).logits
    for row, embeddings in enumerate(rows):
        assert len(embeddings) == inputs["attention_mask"][row].sum()
        alone = model(inputs_embeds=embeddings[None]).logits[0]
        torch.testing.assert_close(logits[row, -len(embeddings) :], alone, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="25 placeholders.* 20 speech tokens"):
        model(**{**inputs, "input_features": inputs["input_features"][:4], "input_features_mask": None})


def test_generation_by_beams_samples_and_tokens_computed_before(pair):
    model, processor = pair
    inputs = processor.apply_transcription_request([tone(2.2), 3 * tone(1.4)], window_times=True)
    greedy = model.generate(**inputs, max_new_tokens=6)
    samples = model.generate(**inputs, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=3)
    assert torch.equal(samples, greedy.repeat_interleave(3, dim=0))
    beams = model.generate(**inputs, max_new_tokens=6, num_beams=3)
    for row, clip in enumerate((tone(2.2), 3 * tone(1.4))):
        single = processor.apply_transcription_request(clip, window_times=True)
        alone = model.generate(**single, max_new_tokens=6, num_beams=3)[0, single["input_ids"].shape[1] :]
        assert torch.equal(beams[row, inputs["input_ids"].shape[1] :][: len(alone)], alone)
    features = model.get_audio_features(inputs["input_features"], inputs["input_features_mask"]).pooler_output
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model.generate(**inputs, audio_features=features, max_new_tokens=6), greedy)


@contextmanager
def recorded_prompts(model, processor):
    """Texts of the prompts that the model sees, as they come."""
    prompts = []

    def record(module, arguments, inputs):
        if inputs["input_ids"].shape[1] > 1:
            prompts.append(processor.tokenizer.decode(inputs["input_ids"][0]))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    yield prompts
    handle.remove()


@pytest.mark.parametrize("computed_before", [False, True])
def test_spans_keep_the_times_of_their_windows(pair, computed_before):
    model, processor = pair
    inputs = processor.apply_transcription_request([tone(3.2), 3 * tone(1.4)], window_times=True)
    expected = []
    for clip, spans in ((tone(3.2), [(0, 2), (2, 4)]), (3 * tone(1.4), [(0, 2)])):
        for start, end in spans:
            # By hand: the text of the span with its own times, and the features of its samples.
            windows = [clip[index * SECOND : (index + 1) * SECOND] for index in range(start, end)]
            features, mask = processor.window_features(windows)
            text = PROMPT.format("".join(f"[00:0{index}]{FIVE}" for index in range(start, end)))
            ids = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            answer = model.generate(ids, input_features=features, input_features_mask=mask, max_new_tokens=4)
            expected.append((text, answer[0, ids.shape[1] :]))
    if computed_before:
        audio = model.get_audio_features(inputs.pop("input_features"), inputs.pop("input_features_mask"))
        inputs["audio_features"] = audio.pooler_output
    progress = []
    with recorded_prompts(model, processor) as prompts:
        outputs = model.generate(
            **inputs,
            long_form="stitch",
            span_windows=2,
            max_new_tokens=4,
            tokenizer=processor.tokenizer,
            span_progress=lambda done, total: progress.append((done, total)),
        )
    assert prompts == [text for text, _ in expected]
    assert progress == [(2, 6), (4, 6), (6, 6)]
    said = outputs[:, inputs["input_ids"].shape[1] :]
    separator = torch.tensor(model.config.separator_token_ids)
    assert said[0, :9].tolist() == torch.cat([expected[0][1], separator, expected[1][1]]).tolist()
    assert said[1, :4].tolist() == expected[2][1].tolist()


def test_times_count_in_the_size_of_spans(pair):
    _, processor = pair
    request = processor.apply_transcription_request(tone(9.5), window_times=True)
    language_model = tiny_language_model(
        vocab_size=len(processor.tokenizer), max_position_embeddings=90, eos_token_id=None, pad_token_id=0
    )
    small = tiny_fastslm(language_model=language_model, tokenizer=processor.tokenizer)
    with pytest.raises(ValueError, match="stitch"):
        small.generate(**request)
    progress = []
    small.generate(
        **request, long_form="stitch", max_new_tokens=4, tokenizer=processor.tokenizer,
        span_progress=lambda done, total: progress.append(done),
    )  # fmt: skip
    text = request["input_ids"].shape[1] - 10 * (QUERIES + 7)
    room = (90 - 4 - text) // (QUERIES + 7)
    assert 1 < room < 10 and progress[0] == room and progress[-1] == 10


@pytest.mark.parametrize("context", range(90, 140, 7))
@pytest.mark.parametrize("window_times", [False, True])
def test_the_longest_audio_that_is_named_fits_and_no_more(pair, context, window_times):
    _, processor = pair
    language_model = tiny_language_model(
        vocab_size=len(processor.tokenizer), max_position_embeddings=context, eos_token_id=None, pad_token_id=0
    )
    model = tiny_fastslm(language_model=language_model, tokenizer=processor.tokenizer)

    def generate(seconds):
        model.generate(**processor.apply_transcription_request(tone(seconds), window_times=window_times))

    with pytest.raises(ValueError, match="the longest audio that fits") as error:
        generate(24)
    longest = int(str(error.value).split("prompt is ")[1].split(" s")[0])
    assert longest > 1
    generate(longest)
    with pytest.raises(ValueError, match="the longest audio that fits"):
        generate(longest + 0.5)


@pytest.mark.parametrize(
    ("text", "seconds", "window_times"),
    [
        ("<|audio_bos|><|AUDIO|><|audio_eos|> then <|audio_bos|><|AUDIO|><|audio_eos|>", (1, 1), False),
        ("<|audio_bos|><|AUDIO|><|audio_eos|> then <|audio_bos|><|AUDIO|><|audio_eos|>", (2, 1), False),
        ("<|audio_bos|><|AUDIO|><|audio_eos|> then <|audio_bos|><|AUDIO|><|audio_eos|>", (1, 2), True),
        ("<|audio_bos|><|AUDIO|><|AUDIO|><|audio_eos|>", (2, 1), True),
        ("no audio", (), False),
    ],
)
def test_stitching_refuses_what_it_cannot_cut(pair, text, seconds, window_times):
    model, processor = pair
    audio = [tone(length) for length in seconds] or None
    inputs = processor(text=text, audio=audio, window_times=window_times)
    if not seconds:
        other = processor.apply_transcription_request(tone(1))
        inputs = {**other, "input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    with pytest.raises(ValueError, match="exactly one audio|do not match"):
        model.generate(**inputs, long_form="stitch", span_windows=1, tokenizer=processor.tokenizer, max_new_tokens=2)


def test_stitching_refuses_times_that_do_not_start_at_zero(pair):
    model, processor = pair
    request = processor.apply_transcription_request(tone(1.5), window_times=True)
    text = decoded(processor, request).replace("[00:00]", "[00:05]")
    inputs = {**request, **processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")}
    assert model(**inputs).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"from \[00:00\] on"):
        model.generate(**inputs, long_form="stitch", tokenizer=processor.tokenizer, max_new_tokens=2)


def test_times_without_a_tokenizer_are_refused_with_the_way_out(pair):
    model, processor = pair
    inputs = processor.apply_transcription_request(tone(2.2), window_times=True)
    with pytest.raises(ValueError, match="tokenizer=processor.tokenizer"):
        model.generate(**inputs, long_form="stitch", max_new_tokens=2)
    single = processor.apply_transcription_request(tone(0.5), window_times=True)
    assert model.generate(**single, long_form="stitch", max_new_tokens=2).shape[0] == 1


def test_runs_of_placeholders():
    ids = torch.tensor([9, 9, 1, 9, 2, 3, 9, 9])
    assert placeholder_runs(ids, 9) == [(0, 2), (3, 4), (6, 8)]
    assert placeholder_runs(ids, 5) == []
    assert placeholder_runs(ids[:0], 9) == []
