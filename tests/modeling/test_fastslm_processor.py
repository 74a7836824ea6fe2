"""FastSLM's processor: placeholder counts, audio of every kind, chats, transcription requests, labels."""

import json

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor, WhisperFeatureExtractor

from fastwhisper import FastSLMProcessor, add_speech_tokens

from ..fastslm_parts import QUERIES, fresh_tokenizer, tiny_pair, tiny_processor

SECOND = 16_000


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def published():
    """A processor of 30 s windows and 50 tokens each."""
    return FastSLMProcessor.from_parts(WhisperFeatureExtractor(feature_size=128), fresh_tokenizer())


def tone(seconds, rate=SECOND):
    return (0.1 * np.sin(np.arange(round(seconds * rate)) * 0.05)).astype(np.float32)


def placeholders(processor, inputs):
    return (inputs["input_ids"] == processor.audio_token_id).sum(dim=1).tolist()


def chat(*contents, answer=None):
    turns = [{"role": "user", "content": list(contents)}]
    return turns + ([{"role": "assistant", "content": answer}] if answer else [])


def audio_part(samples):
    return {"type": "audio", "audio": samples}


def text_part(text):
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("seconds", "windows"), [(0.5, 1), (29.99, 1), (30.0, 1), (30.01, 2), (60.0, 2), (8 * 3600, 960), (1 / 16_000, 1)]
)
def test_placeholders_of_any_length(published, seconds, windows):
    samples = round(seconds * SECOND)
    assert published.num_windows(samples) == windows
    assert published.num_audio_tokens(samples) == 50 * windows
    if seconds < 60:
        inputs = published(text="<|AUDIO|>", audio=np.zeros(samples, np.float32))
        assert placeholders(published, inputs) == [50 * windows]
        assert inputs["input_features"].shape == (windows, 128, 3000)
        assert inputs["input_features_mask"].sum() == min(3000 * windows, -(-samples // 160))


def test_an_hour_is_97_percent_fewer_tokens_than_encoder_frames(published):
    tokens = published.num_audio_tokens(3600 * SECOND)
    assert tokens == 6000 and tokens / 3600 == pytest.approx(1.67, abs=0.01)
    assert 1 - tokens / (25 * 3600) == pytest.approx(0.93, abs=0.005)


@pytest.mark.parametrize(("seconds", "expected"), [(0.02, 1), (0.2, 1), (0.21, 2), (1.0, 5), (1.01, 6), (2.5, 13)])
def test_placeholders_in_proportion_to_length(seconds, expected):
    processor = tiny_processor(tokens_follow_length=True)
    inputs = processor(text="<|AUDIO|>", audio=tone(seconds))
    assert placeholders(processor, inputs) == [expected] == [processor.num_audio_tokens(round(seconds * SECOND))]


@pytest.mark.parametrize("options", [{}, {"tokens_follow_length": True}, {"rates": (1, 2, 5), "mask_padding": True}])
@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_model_and_processor_agree_for_any_length(options, overlap):
    model, processor = tiny_pair(options, window_overlap=overlap)
    clips = [tone(seconds) for seconds in (0.02, 0.4, 0.71, 1.0, 1.01, 1.69, 1.71, 2.4, 3.0)]
    inputs = processor(text=["<|AUDIO|>"] * len(clips), audio=clips)
    assert model(**inputs).logits.isfinite().all()
    if "rates" in options:
        inputs = processor(text=["<|AUDIO|>"] * len(clips), audio=clips, tokens_per_window=2)
        assert inputs["tokens_per_window"] == 2
        assert model(**inputs).logits.isfinite().all()


def test_overlapping_windows_share_audio():
    processor = tiny_processor(window_overlap=0.25)
    samples = np.arange(2 * SECOND + 1, dtype=np.float32)
    cut = processor.cut_windows(samples)
    assert [len(window) for window in cut] == [16_000, 16_000, 8_001]
    assert [int(window[0]) for window in cut] == [0, 12_000, 24_000]
    assert processor.num_windows(len(samples)) == 3


def test_windows_are_the_extractors_own_features(processor):
    samples = tone(2.3)
    inputs = processor(text="<|AUDIO|>", audio=samples)
    for row in range(3):
        window = samples[row * SECOND : (row + 1) * SECOND]
        alone = processor.feature_extractor(window, sampling_rate=SECOND, return_tensors="pt").input_features
        torch.testing.assert_close(inputs["input_features"][row : row + 1], alone)
    assert inputs["input_features_mask"].sum(dim=1).tolist() == [100, 100, 30]


def test_many_windows_in_blocks_of_features(processor):
    samples = np.concatenate([tone(1) * (1 + row) for row in range(40)])
    features, mask = processor.window_features(processor.cut_windows(samples))
    assert features.shape == (40, 80, 100) and mask.all()
    alone, _ = processor.window_features([samples[33 * SECOND : 34 * SECOND]])
    torch.testing.assert_close(features[33:34], alone)


@pytest.mark.parametrize(
    "audio",
    [
        (tone(0.5) * 32768).astype(np.int16),
        (tone(0.5) * 32768).astype(np.int32),
        (tone(0.5) * 32768 + 32768).astype(np.uint16),
        tone(0.5).astype(np.float64),
        torch.from_numpy(tone(0.5)),
        torch.from_numpy(tone(0.5) * 32768).to(torch.int64),
        np.stack([tone(0.5), tone(0.5)]),
        np.stack([tone(0.5), tone(0.5)], axis=1),
    ],
    ids=["int16", "int32 of 16 bits", "uint16", "float64", "tensor", "int64 tensor", "stereo", "stereo-last"],
)
def test_the_same_sound_in_another_form(processor, audio):
    expected = processor(text="<|AUDIO|>", audio=tone(0.5))["input_features"]
    torch.testing.assert_close(processor(text="<|AUDIO|>", audio=audio)["input_features"], expected, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.array([0.0, np.nan], np.float32), "NaN or infinite"),
        (np.array([0.0, np.inf], np.float32), "NaN or infinite"),
        (np.zeros(100, bool), "floats or integers"),
        (np.zeros(100, np.complex64), "floats or integers"),
        (32768 * tone(0.5), "float audio is between -1 and 1"),
        (np.zeros((2, 2, 50), np.float32), "3 axes"),
    ],
)
def test_audio_that_is_no_sound(processor, audio, message):
    with pytest.raises(ValueError, match=message):
        processor(text="<|AUDIO|>", audio=audio)


def test_another_sampling_rate_is_refused_and_files_are_resampled(processor, tmp_path):
    with pytest.raises(ValueError, match="8000 Hz.*16000 Hz"):
        processor(text="<|AUDIO|>", audio=tone(0.5, 8000), sampling_rate=8000)
    path = tmp_path / "narrow.wav"
    soundfile.write(path, np.stack([tone(1.5, 8000)] * 2, axis=1), 8000)
    inputs = processor.apply_transcription_request(str(path))
    assert inputs["input_features_mask"].sum() == 150


@pytest.mark.parametrize(("text", "count"), [("<|AUDIO|> and <|AUDIO|>", 1), ("nothing", 1), ("<|AUDIO|>", 2)])
def test_audios_and_placeholders_of_different_number(processor, text, count):
    with pytest.raises(ValueError, match=rf"has {text.count('<|AUDIO|>')} .* {count} audio inputs"):
        processor(text=text, audio=[tone(0.1)] * count)
    with pytest.raises(ValueError, match="has 1 .* 0 audio inputs"):
        processor(text="<|AUDIO|>")


def test_published_prompt(processor):
    request = processor.apply_transcription_request(tone(0.1), tokenize=False)
    assert request == [
        "<|im_start|>user\n<|ASR|><|audio_bos|><|AUDIO|><|audio_eos|>\nTranscribe the audio clip into text."
        "<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_transcription_requests_with_languages_and_prompts(processor):
    clips = [tone(0.1), tone(0.2), tone(0.3)]
    texts = processor.apply_transcription_request(
        clips, language=["en", None, "swahili"], prompt=[None, "Names: Ann.", None], tokenize=False
    )
    assert "<|ASR|><|EN|><|audio_bos|>" in texts[0]
    assert texts[1].count("<|ASR|><|audio_bos|>") == 1 and "\nNames: Ann.<|im_end|>" in texts[1]
    assert "Language: swahili." in texts[2]
    inputs = processor.apply_transcription_request(clips, language="en")
    assert inputs["input_ids"].shape[0] == 3 and inputs["input_features"].shape[0] == 3
    again = processor(
        text=processor.apply_transcription_request(clips, language="en", tokenize=False),
        audio=clips,
        add_special_tokens=False,
    )
    assert torch.equal(inputs["input_ids"], again["input_ids"])
    for wrong in ({"language": ["en"]}, {"prompt": ["a", "b"]}):
        with pytest.raises(ValueError, match="3 audio inputs"):
            processor.apply_transcription_request(clips, **wrong)
    with pytest.raises(ValueError, match="at least one"):
        processor.apply_transcription_request([])


def test_chat_with_text_before_between_and_after(processor):
    conversation = chat(
        text_part("first "), audio_part(tone(0.5)), text_part(" then "), audio_part(tone(1.5)), text_part(" compare")
    )
    inputs = processor.apply_chat_template(conversation, tokenize=True, return_dict=True, add_generation_prompt=True)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text == (
        "<|im_start|>user\nfirst <|audio_bos|>" + QUERIES * "<|AUDIO|>" + "<|audio_eos|> then <|audio_bos|>"
        + 2 * QUERIES * "<|AUDIO|>" + "<|audio_eos|> compare<|im_end|>\n<|im_start|>assistant\n"
    )  # fmt: skip
    assert inputs["input_features"].shape[0] == 3


def test_a_tokenizers_own_chat_template_is_kept():
    tokenizer = fresh_tokenizer()
    tokenizer.chat_template = (
        "{%- for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}{{ '\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    processor = FastSLMProcessor.from_parts(extractor, tokenizer, max_source_positions=50, num_queries=QUERIES)
    text = processor.apply_transcription_request(tone(0.1), tokenize=False)[0]
    assert text == (
        "[user]\n<|ASR|><|audio_bos|><|AUDIO|><|audio_eos|>\nTranscribe the audio clip into text.\n[assistant]\n"
    )
    assert "<|im_start|>" not in tokenizer.get_vocab()
    inputs = processor.apply_chat_template(chat(audio_part(tone(0.1)), answer="lamp"), output_labels=True)
    learned = inputs["labels"][0]
    assert tokenizer.decode(learned[learned != -100]).strip() == "lamp"
    processor.chat_template = processor.chat_template.replace("]\n", "] ")
    with pytest.raises(ValueError, match="does not begin with a token of its own"):
        processor.apply_chat_template(chat(audio_part(tone(0.1)), answer="lamp"), output_labels=True)


def test_labels_of_a_chat_are_the_answer(processor):
    chats = [
        chat(audio_part(tone(0.5)), text_part("what is said"), answer="turn on the lamp"),
        chat(audio_part(tone(1.5)), answer="stop"),
    ]
    inputs = processor.apply_chat_template(chats, output_labels=True)
    for row, answer in enumerate(("turn on the lamp", "stop")):
        learned = inputs["labels"][row]
        assert processor.tokenizer.decode(learned[learned != -100]) == f"{answer}<|im_end|>"
        at = learned != -100
        assert torch.equal(learned[at], inputs["input_ids"][row][at])
    masks = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"]  # fmt: skip
    assert torch.equal(torch.as_tensor(masks).bool(), inputs["labels"] != -100)
    right = processor.apply_chat_template(chats, output_labels=True, processor_kwargs={"padding_side": "right"})
    assert (right["labels"] != -100).sum() == (inputs["labels"] != -100).sum()
    with pytest.raises(ValueError, match="role is 'user'"):
        processor.apply_chat_template(chat(text_part("a")), output_labels=True)


def test_labels_of_plain_text_leave_out_speech_and_padding(processor):
    inputs = processor(text=["say <|AUDIO|> lamp", "<|AUDIO|>"], audio=[tone(0.1)] * 2, output_labels=True)
    ignored = (inputs["input_ids"] == processor.audio_token_id) | (inputs["attention_mask"] == 0)
    assert torch.equal(inputs["labels"] == -100, ignored)


def test_save_and_load(processor, tmp_path):
    own = tiny_processor(window_overlap=0.5, tokens_follow_length=True)
    own.save_pretrained(tmp_path)
    loaded = FastSLMProcessor.from_pretrained(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), FastSLMProcessor)
    request = own.apply_transcription_request(tone(2.2))
    for name, value in loaded.apply_transcription_request(tone(2.2)).items():
        assert torch.equal(value, request[name]), name
    assert json.loads((tmp_path / "processor_config.json").read_text())["window_overlap"] == 0.5


def test_parts_that_do_not_fit(processor):
    with pytest.raises(ValueError, match="window has 100 frames, the encoder's 3000"):
        FastSLMProcessor(processor.feature_extractor, processor.tokenizer)
    with pytest.raises(ValueError, match="no token '<|AUDIO|>'"):
        FastSLMProcessor(processor.feature_extractor, fresh_tokenizer(), max_source_positions=50)


@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }}"])
def test_tokens_of_speech_are_added_once(template):
    tokenizer = fresh_tokenizer()
    tokenizer.chat_template = template
    before, end = len(tokenizer), tokenizer.eos_token
    add_speech_tokens(tokenizer)
    size = len(tokenizer)
    assert size - before == 9 + (0 if template else 2)
    assert tokenizer.eos_token == (end if template else "<|im_end|>")
    assert len(tokenizer("<|AUDIO|><|ASR|>", add_special_tokens=False).input_ids) == 2
    add_speech_tokens(tokenizer)
    FastSLMProcessor.from_parts(WhisperFeatureExtractor(feature_size=80), tokenizer)
    assert len(tokenizer) == size
    with pytest.raises(ValueError, match="add_speech_tokens"):
        FastSLMProcessor(WhisperFeatureExtractor(feature_size=80), fresh_tokenizer())


@pytest.mark.parametrize("form", [torch.Tensor.bfloat16, torch.Tensor.half, torch.Tensor.tolist])
def test_samples_of_any_kind_in_a_chat(processor, form):
    samples = torch.from_numpy(tone(0.5))
    inputs = processor.apply_chat_template([*chat(audio_part(form(samples)))], tokenize=True, return_dict=True)
    rounded = samples if form is torch.Tensor.tolist else form(samples).float()
    expected = processor(text="<|AUDIO|>", audio=rounded.numpy())
    assert torch.equal(inputs["input_features"], expected["input_features"])
    asked = processor.apply_transcription_request(form(samples))
    assert torch.equal(asked["input_features"], expected["input_features"])


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "the chat is empty"),
        ([[]], "the chat is empty"),
        (None, "the chat is empty"),
        ("hello", "the chat is empty"),
        ([{"content": "hello"}], "needs a role"),
        ([3], "needs a role"),
        (chat({"type": "video"}), "a part of a turn is"),
        (chat({}), "a part of a turn is"),
        (chat(audio_part("gone.wav")), "there is no audio file 'gone.wav'"),
        (chat({"type": "audio", "path": "here/gone"}), "there is no audio file 'here/gone'"),
        (chat(audio_part({"array": [0.0]})), "path of a file or samples"),
        ([{"role": "user", "content": 5}], "a text or a list of parts"),
    ],
)
@pytest.mark.parametrize("settings", [{"tokenize": True, "return_dict": True}, {}, {"output_labels": True}])
def test_chats_that_are_none(processor, conversation, message, settings):
    with pytest.raises(ValueError, match=message):
        processor.apply_chat_template(conversation, **settings)


def test_files_and_texts_that_are_none(processor):
    with pytest.raises(ValueError, match="there is no audio file 'gone.wav'"):
        processor.apply_transcription_request("gone.wav")
    with pytest.raises(ValueError, match="not the file 'a.wav': apply_chat_template"):
        processor(text="<|AUDIO|>", audio=["a.wav"])
    with pytest.raises(ValueError, match="there is no text"):
        processor(text=[])
