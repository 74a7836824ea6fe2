"""The collator against WhisperTokenizer's own prefix; prompts, masks, padding, draws."""

import json
import pickle
import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from fastwhisper.data.collator import SpeechCollator
from fastwhisper.errors import InputError
from fastwhisper.modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration

from ..sounds import tone, write_nan, write_tone
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_processor, whisper_tokenizer

AUDIO = {"array": tone(0.5), "sampling_rate": 16_000}


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=2)


@pytest.fixture(scope="module")
def reference_tokenizer():
    """A tokenizer of its own, whose prefix a test may set."""
    return whisper_processor().tokenizer


def row(text="hello world", **columns):
    return {"audio": AUDIO, "text": text, **columns}


def labels_of(batch, index=0):
    labels = batch["labels"][index]
    return labels[labels != -100].tolist()


def start(processor):
    return processor.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("language", ["en", "de", "French", "ko", "su"])
def test_labels_are_the_tokenizers_own(processor, reference_tokenizer, language, task, timestamps):
    text = "<|0.00|> grüß dich<|0.50|>" if timestamps else " grüß dich"
    collator = SpeechCollator(processor, language=language, task=task, timestamp_probability=float(timestamps))
    batch = collator([row("grüß dich", timestamped_text="<|0.00|> grüß dich<|0.50|>")])
    tokenizer = reference_tokenizer
    tokenizer.set_prefix_tokens(language=language, task=task, predict_timestamps=timestamps)
    expected = tokenizer(text).input_ids
    assert expected[0] == start(processor)
    assert labels_of(batch) == expected[1:]
    assert ("<|notimestamps|>" in tokenizer.decode(labels_of(batch), skip_special_tokens=False)) is not timestamps


def test_the_users_tokenizer_is_not_changed(processor):
    before = processor.tokenizer("hello").input_ids
    SpeechCollator(processor, language="de", task="translate")([row()])
    assert processor.tokenizer("hello").input_ids == before and processor.tokenizer.language is None


def test_the_tokenizers_own_setting_is_the_default():
    processor = whisper_processor(seconds=2)
    processor.tokenizer.set_prefix_tokens(language="ja", task="transcribe")
    assert labels_of(SpeechCollator(processor)([row(" a")])) == processor.tokenizer(" a").input_ids[1:]


def test_english_only_whisper_names_no_language():
    processor = whisper_processor(seconds=2)
    processor.tokenizer = whisper_tokenizer("gpt2")
    expected = processor.tokenizer(" hello").input_ids[1:]
    for settings in ({}, {"language": "en", "task": "transcribe"}):
        assert labels_of(SpeechCollator(processor, **settings)([row(" hello")])) == expected
    for settings in ({"language": "de"}, {"task": "translate"}):
        with pytest.raises(InputError, match="English-only"):
            SpeechCollator(processor, **settings)


def languages_of(processor, batch):
    return [
        processor.tokenizer.convert_ids_to_tokens(labels_of(batch, index)[0]) for index in range(len(batch["labels"]))
    ]


def test_language_of_each_row(processor):
    rows = [row(language="german"), row(language=None), row(language="zh-CN", text="你好"), row(language="jpn")]
    rows += [row(language="Mandarin Chinese", text="你好"), row(language=" "), row(language=float("nan"))]
    own = whisper_processor(seconds=2)
    own.tokenizer.set_prefix_tokens(language="en", task="transcribe")
    batch = SpeechCollator(own)(rows)
    named = ["<|de|>", "<|en|>", "<|zh|>", "<|ja|>", "<|zh|>", "<|en|>", "<|en|>"]
    assert languages_of(processor, batch) == named
    decode = processor.tokenizer.decode
    assert decode(labels_of(batch, 0)).startswith("<|de|><|transcribe|><|notimestamps|> hello")
    # Chinese is written without spaces, so it gets no leading one.
    assert decode(labels_of(batch, 2)) == "<|zh|><|transcribe|><|notimestamps|>你好<|endoftext|>"


@pytest.mark.parametrize("own", ["german", 1, "klingon", ["en"], "en-US"])
def test_the_language_given_wins_over_the_rows(processor, own):
    batch = SpeechCollator(processor, language="fr-CA", task="transcribe")([row(language=own)])
    assert languages_of(processor, batch) == ["<|fr|>"]


def test_leading_space_is_added_once(processor):
    batch = SpeechCollator(processor)([row("hello"), row(" hello"), row("")])
    assert labels_of(batch, 0) == labels_of(batch, 1)
    assert labels_of(batch, 2) == processor.tokenizer("").input_ids[1:]


@pytest.mark.parametrize("language", ["klingon", "yue"])
def test_unknown_language(processor, language):
    # The tokenizer with 99 languages has no yue: its own arithmetic would give the id of <|translate|>.
    with pytest.raises(InputError, match=f"(?i){language}"):
        SpeechCollator(processor, language=language)
    with pytest.raises(InputError, match=f"(?i){language}"):
        SpeechCollator(processor)([row(language=language)])
    with pytest.raises(InputError, match="no language 1"):
        SpeechCollator(processor)([row(language=1)])


def test_unknown_task_and_probability(processor):
    with pytest.raises(InputError, match="summarize"):
        SpeechCollator(processor, task="summarize")
    with pytest.raises(InputError, match="prompt_probability=1.5"):
        SpeechCollator(processor, prompt_probability=1.5)


def test_padding_and_features(processor):
    batch = SpeechCollator(processor)([row("hello"), row("hello to the whole wide world")])
    assert batch["input_features"].shape == (2, 80, 200) and batch["input_features"].dtype == torch.float32
    expected = processor.feature_extractor(AUDIO["array"], sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(batch["input_features"][:1], expected)
    lengths = [
        len(processor.tokenizer(f" {text}").input_ids) - 1 for text in ("hello", "hello to the whole wide world")
    ]
    assert batch["labels"].shape == (2, lengths[1]) and batch["labels"].dtype == torch.int64
    assert (batch["labels"][0, lengths[0] :] == -100).all() and (batch["labels"][0, : lengths[0]] != -100).all()
    assert set(batch) == {"input_features", "labels"}


def test_prompts_are_context(processor):
    collator = SpeechCollator(processor, language="en", task="transcribe", prompt_probability=1.0)
    batch = collator([row(previous_text="said before"), row("a longer sentence without any previous text")])
    tokenizer = processor.tokenizer
    prompt = tokenizer.get_prompt_ids("said before", return_tensors="pt").tolist()
    inputs, labels = batch["decoder_input_ids"], batch["labels"]
    assert inputs.shape == labels.shape
    text = tokenizer(" hello world", add_special_tokens=False).input_ids
    prefix = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"])
    whole = [*prompt, *prefix, *text, tokenizer.eos_token_id]
    length = len(whole) - 1
    assert inputs[0, :length].tolist() == whole[:-1]
    assert labels[0, : len(prompt)].tolist() == [-100] * len(prompt)
    assert labels[0, len(prompt) : length].tolist() == whole[len(prompt) + 1 :]
    assert (inputs[0, length:] == tokenizer.pad_token_id).all() and (labels[0, length:] == -100).all()
    # A row without a prompt has the inputs that the model would derive itself.
    derived = shift_tokens_right(labels[1:], tokenizer.pad_token_id, start(processor))
    assert torch.equal(inputs[1:], derived)


def test_model_takes_the_batch(processor):
    model = tiny_whisper(processor.tokenizer)
    student = FastWhisperForConditionalGeneration.from_teacher(model, decoder_layers=2)
    collator = SpeechCollator(processor, prompt_probability=1.0, max_target_positions=64)
    batch = collator([row(previous_text="word " * 100), row("short")])
    loss = student(**batch).loss
    logits = student(batch["input_features"], decoder_input_ids=batch["decoder_input_ids"]).logits
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    )


def test_prompt_is_the_end_of_the_text_in_half_of_the_decoder(processor):
    previous = " ".join(f"word{index}" for index in range(300))
    collator = SpeechCollator(processor, prompt_probability=1.0, max_target_positions=64)
    (inputs,) = collator([row(previous_text=previous)])["decoder_input_ids"].tolist()
    tokenizer = processor.tokenizer
    position = inputs.index(start(processor))
    assert position == 32
    assert inputs[0] == tokenizer.convert_tokens_to_ids("<|startofprev|>")
    assert inputs[1:32] == tokenizer(f" {previous}", add_special_tokens=False).input_ids[-31:]


def test_prompt_gives_way_to_a_long_text(processor):
    collator = SpeechCollator(processor, prompt_probability=1.0, max_target_positions=64)
    for words, prompt in ((55, 7), (61, 0)):
        batch = collator([row("a " * (words - 1) + "a", previous_text="word " * 100)])
        assert batch["labels"].shape[1] == words + 2 + prompt <= 64
        assert batch["decoder_input_ids"][0].tolist().index(start(processor)) == prompt


def test_labels_over_the_limit_are_refused(processor):
    collator = SpeechCollator(processor, max_target_positions=16)
    with pytest.raises(InputError, match="decoder takes only 16; drop_unusable_rows"):
        collator([row("a " * 20)])
    with pytest.raises(InputError, match="has no text"):
        collator([row(None)])


def test_audio_over_the_window_is_refused(processor, tmp_path):
    path = write_tone(tmp_path / "long.wav", 2.5)
    with pytest.raises(InputError, match="long.wav is 2.5 s long but the window only 2 s"):
        SpeechCollator(processor)([{"audio": path, "text": "a"}])
    with pytest.raises(InputError, match="nan.wav has samples that are NaN"):
        SpeechCollator(processor)([{"audio": write_nan(tmp_path / "nan.wav"), "text": "a"}])


def test_prepared_rows_are_only_padded(processor):
    features = np.random.default_rng(0).standard_normal((80, 200)).astype(np.float32)
    prepared = {"input_features": features, "labels": [7, 8, 9]}
    batch = SpeechCollator(processor)([prepared, row(" hi")])
    np.testing.assert_array_equal(batch["input_features"][0].numpy(), features)
    assert labels_of(batch, 0) == [7, 8, 9]
    prompted = {"input_features": features.tolist(), "labels": [-100, 8, 9], "decoder_input_ids": [5, 6, 8]}
    batch = SpeechCollator(processor)([prompted, prepared])
    assert batch["decoder_input_ids"].tolist() == [[5, 6, 8], [start(processor), 7, 8]]
    assert batch["labels"].tolist() == [[-100, 8, 9], [7, 8, 9]]


@pytest.fixture(scope="module")
def drawn_rows():
    return [
        row(f"sentence {index}", timestamped_text=f"<|0.00|> sentence {index}<|0.50|>", previous_text="before")
        for index in range(200)
    ]


def draws(processor, rows, seed=0):
    """For each text whether it got timestamps and whether a prompt."""
    collator = SpeechCollator(processor, timestamp_probability=0.2, prompt_probability=0.5, seed=seed)
    random.random(), torch.rand(1)
    encoded = {r["text"]: collator.decoder_sequences(r) for r in rows}
    bare = processor.tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    return {text: (bare not in inputs, (labels == -100).any().item()) for text, (inputs, labels) in encoded.items()}


def test_draws_depend_on_seed_and_row_alone(processor, drawn_rows):
    drawn = draws(processor, drawn_rows)
    assert drawn == draws(processor, drawn_rows[::-1])
    assert drawn != draws(processor, drawn_rows, seed=1)
    timestamps, prompts = (sum(kind) / len(drawn) for kind in zip(*drawn.values(), strict=True))
    assert timestamps == pytest.approx(0.2, abs=0.1) and prompts == pytest.approx(0.5, abs=0.12)
    assert len(set(drawn.values())) == 4


def test_draws_do_not_depend_on_where_the_files_are(processor, tmp_path):
    rows = [{"text": "same", "timestamped_text": "<|0.00|> same<|0.50|>", "previous_text": "a"} for _ in range(20)]
    collator = SpeechCollator(processor, timestamp_probability=0.5, prompt_probability=0.5)

    def drawn(folder, wrap):
        return [collator._draws({**r, "audio": wrap(f"{folder}/{i}.wav")}).random() for i, r in enumerate(rows)]

    here = drawn("/here", str)
    assert here == drawn("/there", lambda path: {"bytes": None, "path": path})
    assert len(set(here)) == 20


def test_timestamps_need_timestamp_tokens(processor):
    collator = SpeechCollator(processor, timestamp_probability=1.0)
    assert (
        labels_of(collator([row(" a", whisper_transcript=" plain text")])) == processor.tokenizer(" a").input_ids[1:]
    )


def test_timestamps_that_the_tokenizer_lacks_are_refused(processor):
    collator = SpeechCollator(processor, timestamp_probability=1.0)
    for stamp in ("<|30.02|>", "<|0.01|>"):
        with pytest.raises(InputError, match="no timestamp"):
            collator([row(timestamped_text=f"<|0.00|> a{stamp}")])


def test_previous_text_loses_its_timestamps(processor):
    collator = SpeechCollator(processor, prompt_probability=1.0)
    plain, stamped = (
        collator([row(previous_text=text)])["decoder_input_ids"] for text in ("before", "<|0.00|> before<|1.00|>")
    )
    assert torch.equal(plain, stamped)


STAMPED = "<|0.00|> Author of the<|0.50|><|0.50|> danger trail.<|1.00|>"


@pytest.mark.parametrize("text", [STAMPED, STAMPED.replace("> ", ">"), f"<|startoftranscript|><|en|>{STAMPED}"])
def test_timestamps_in_the_text_itself(processor, reference_tokenizer, text):
    reference_tokenizer.set_prefix_tokens(language="en", task="transcribe", predict_timestamps=True)
    with_times = SpeechCollator(processor, language="en", task="transcribe", timestamp_probability=1.0)
    assert labels_of(with_times([row(text)])) == reference_tokenizer(STAMPED).input_ids[1:]
    reference_tokenizer.set_prefix_tokens(language="en", task="transcribe", predict_timestamps=False)
    without = SpeechCollator(processor, language="en", task="transcribe", timestamp_probability=0.0)
    assert labels_of(without([row(text)])) == reference_tokenizer(" Author of the danger trail.").input_ids[1:]


def test_timestamps_of_a_tokenizer_that_does_not_list_them():
    """As older checkpoints on the Hub: the ids behind `<|notimestamps|>` are the timestamps all the same."""
    whole, older = whisper_processor(seconds=2), whisper_processor(seconds=2)
    content = json.loads(older.tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] <= 50363]
    older.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    assert older.tokenizer.convert_tokens_to_ids("<|0.00|>") == older.tokenizer.unk_token_id
    settings = {"language": "en", "task": "transcribe", "timestamp_probability": 1.0}
    batches = [SpeechCollator(each, **settings)([row(STAMPED)]) for each in (whole, older)]
    assert labels_of(batches[0]) == labels_of(batches[1])
    assert labels_of(batches[1])[2] == 50364
    with pytest.raises(InputError, match="no timestamp <|30.02|>"):
        SpeechCollator(older, **settings)([row("<|0.00|> a<|30.02|>")])


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|startoftranscript|>", "<|de|>", "<|notimestamps|>"])
def test_other_special_tokens_in_a_text_are_text(processor, special):
    text = f" say {special} twice"
    collator = SpeechCollator(processor, language="en", task="transcribe", prompt_probability=1.0)
    batch = collator([row(text, previous_text=text)])
    tokenizer = processor.tokenizer
    assert tokenizer.decode(labels_of(batch)[3:-1]) == text
    controls = [id_ for id_ in batch["decoder_input_ids"][0].tolist() if id_ >= tokenizer.eos_token_id]
    start = ["<|startofprev|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    assert tokenizer.convert_ids_to_tokens(controls) == start
    # The tokenizer is shared with its user, who gets what they always got.
    assert tokenizer(special, add_special_tokens=False).input_ids == [tokenizer.convert_tokens_to_ids(special)]


def test_a_tokenizer_without_a_pad_token(processor):
    bare = whisper_processor(seconds=2)
    bare.tokenizer.pad_token = None
    rows = [row("hello", previous_text="before"), row("a longer text"), {**row(), "labels": [5, -100]}]
    settings = {"prompt_probability": 1.0}
    expected = SpeechCollator(processor, **settings)(rows)
    for pad_token_id in (None, 50257):
        batch = SpeechCollator(bare, pad_token_id=pad_token_id, **settings)(rows)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert (SpeechCollator(bare, pad_token_id=7, **settings)(rows)["decoder_input_ids"][:, -1] == 7).any()


def test_another_process_collates_the_same(processor):
    collator = SpeechCollator(processor, language="de", task="transcribe", timestamp_probability=0.5)
    rows = [row(f"{index}", timestamped_text=f"<|0.00|> {index}<|0.50|>") for index in range(4)]
    here, there = collator(rows), pickle.loads(pickle.dumps(collator))(rows)
    assert all(torch.equal(here[name], there[name]) for name in here)
