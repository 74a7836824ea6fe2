"""Joined rows: the samples, the words and the times of their members, and nothing else."""

import numpy as np
import pytest
from datasets import Dataset

from fastwhisper.data.audio import load_audio
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.filtering import usable_rows
from fastwhisper.data.joined_rows import join_rows
from fastwhisper.data.label_encoding import LabelEncoder
from fastwhisper.data.row_checks import RowCheck

from ..whisper_assets import whisper_processor

WINDOW = 2.0


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=2)


def clip(seconds, number, sampling_rate=16_000):
    samples = np.random.default_rng(number).normal(0, 0.1, round(seconds * sampling_rate)).astype(np.float32)
    return {"array": samples, "sampling_rate": sampling_rate}


def joined(processor, rows, probability=1.0, seed=0, language=None, most_tokens=448):
    dataset = Dataset.from_list(rows)
    usable = usable_rows(dataset, RowCheck.for_training(processor, language=language))
    encoder = LabelEncoder(processor.tokenizer, language)
    return join_rows(usable, encoder, WINDOW, most_tokens, probability, seed)


def rows_of(lengths, speakers="aaaaaaaaaaaa", **columns):
    return [
        {"audio": clip(length, number), "text": f"word {number}", "speaker": speakers[number], **columns}
        for number, length in enumerate(lengths)
    ]


def test_clips_follow_each_other_with_their_words_and_times(processor):
    rows = rows_of([0.5, 0.611, 0.3])
    found, seconds = joined(processor, rows, language="en")
    assert len(found) == 1 and seconds == pytest.approx([0.5 + 0.62 + 0.3])
    row = found[0]
    assert row["text"] == "word 0 word 1 word 2"
    assert row["timestamped_text"] == "<|0.00|> word 0<|0.50|><|0.50|> word 1<|1.12|><|1.12|> word 2<|1.42|>"
    samples = load_audio(row["audio"])
    for start, number in ((0.0, 0), (0.5, 1), (1.12, 2)):
        own = np.asarray(rows[number]["audio"]["array"], np.float32)
        first = round(start * 16_000)
        assert np.array_equal(samples[first : first + own.size], own)
    assert samples.size == round(1.42 * 16_000)
    assert not samples[round(1.111 * 16_000) : round(1.12 * 16_000)].any()


def test_own_times_are_moved_and_the_prompt_is_that_of_the_first(processor):
    rows = rows_of([0.5, 0.5], previous_text="before")
    rows[1]["text"] = "two words"
    rows[1]["timestamped_text"] = "<|0.00|> two<|0.20|><|0.24|> words<|0.60|>"
    rows[0]["timestamped_text"] = None
    row = joined(processor, rows, language="en")[0][0]
    # A time behind the end of its clip would lie in the next one.
    assert row["timestamped_text"] == "<|0.00|> word 0<|0.50|><|0.50|> two<|0.70|><|0.74|> words<|1.00|>"
    assert row["previous_text"] == "before"
    batch = SpeechCollator(processor, language="en", task="transcribe", timestamp_probability=1.0)([row])
    expected = "<|en|><|transcribe|><|0.00|> word 0<|0.50|><|0.50|> two<|0.70|><|0.74|> words<|1.00|><|endoftext|>"
    assert processor.tokenizer.decode(batch["labels"][0], decode_with_timestamps=True) == expected


def test_only_the_same_speaker_and_language_are_joined_and_only_as_many_as_fit(processor):
    rows = rows_of([0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], speakers="abababa", language="en")
    rows[2]["language"] = "de"
    found, seconds = joined(processor, rows)
    assert [row["text"] for row in found] == ["word 0 word 4 word 6", "word 1 word 3 word 5", "word 2"]
    assert [row["language"] for row in found] == ["en", "en", "de"]
    assert seconds == pytest.approx([1.8, 1.8, 0.6])
    assert joined(processor, rows_of([0.9, 0.9, 0.9]), language="en")[1] == pytest.approx([1.8, 0.9])


def test_a_full_window_stays_within_it_at_any_sampling_rate(processor):
    for rate in (8_000, 22_050, 44_100):
        rows = [
            {"audio": clip(length, number, rate), "text": "a", "speaker": "a"}
            for number, length in enumerate([0.6663, 0.6664, 0.6665])
        ]
        found, _ = joined(processor, rows, language="en")
        assert max(load_audio(found[number]["audio"]).size for number in range(len(found))) <= 2 * 16_000
        SpeechCollator(processor, language="en")([found[number] for number in range(len(found))])


def test_labels_fit_the_decoder(processor):
    found, _ = joined(processor, rows_of([0.2] * 8), language="en", most_tokens=40)
    collator = SpeechCollator(processor, language="en", timestamp_probability=1.0, max_target_positions=40)
    assert len(found) > 1
    for index in range(len(found)):
        collator([found[index]])


def test_a_share_is_joined_the_same_every_time(processor):
    rows = rows_of([0.1] * 200, speakers="a" * 200)

    def texts(probability, seed):
        found, _ = joined(processor, rows, probability, seed, language="en")
        return [found[index]["text"] for index in range(len(found))]

    half = texts(0.5, 1)
    assert half == texts(0.5, 1) != texts(0.5, 2)
    alone = [text for text in half if text.count("word") == 1]
    assert 70 < len(alone) < 130
    assert sorted(" ".join(half).split(" word ")) == sorted(" ".join(texts(0.0, 1)).split(" word "))


def test_words_of_a_language_without_spaces_meet(processor):
    rows = rows_of([0.5, 0.5])
    rows[0]["text"], rows[1]["text"] = "今日は", "晴れ"
    row = joined(processor, rows, language="ja")[0][0]
    assert row["text"] == "今日は晴れ"
    assert row["timestamped_text"] == "<|0.00|>今日は<|0.50|><|0.50|>晴れ<|1.00|>"


def test_a_row_of_one_clip_has_its_borders_as_times(processor):
    """Otherwise all rows with times go on to another segment, and so does the student, in the silence behind one."""
    rows = rows_of([0.5, 0.611], speakers="ab")
    rows[0]["timestamped_text"], rows[1]["timestamped_text"] = None, "<|0.10|> word 1<|0.60|>"
    for probability in (1e-9, 1.0):
        found, seconds = joined(processor, rows, probability, language="en")
        assert seconds == pytest.approx([0.5, 0.62])
        assert found[0]["timestamped_text"] == "<|0.00|> word 0<|0.50|>"
        assert found[1]["timestamped_text"] == "<|0.10|> word 1<|0.60|>"
        assert "more" not in found[0]["audio"]["path"]


def test_rows_without_room_for_times_and_prepared_rows_are_left_as_they_are(processor):
    rows = rows_of([0.5, 0.5])
    tokens = LabelEncoder(processor.tokenizer, "en").longest(rows[0])
    found, seconds = joined(processor, rows, language="en", most_tokens=tokens + 1)
    assert len(found) == 2 and seconds == pytest.approx([0.5, 0.5])
    assert "timestamped_text" not in found[0]


def test_prepared_rows_stay_alone(processor):
    rows = rows_of([0.5, 0.5, 0.5])
    rows[1]["labels"] = [50258, 440, 50257]
    rows[0]["labels"] = rows[2]["labels"] = None
    found, _ = joined(processor, rows, language="en")
    assert [row["text"] for row in found] == ["word 0 word 2", "word 1"]
    assert found[1]["labels"] == [50258, 440, 50257]
