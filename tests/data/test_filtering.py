"""Rows are dropped with a count, at once or as a stream goes; bad audio is an error that names the row."""

import logging

import pytest
from datasets import Dataset, IterableDataset

from fastwhisper.data.filtering import RowCheck, StreamFilter, drop_unusable_rows
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError

from ..sounds import tone, write_nan, write_noise_bytes, write_speech_folder
from ..whisper_assets import whisper_processor


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=2)


@pytest.fixture
def dataset(tmp_path):
    """Good, empty, too long, too many words, exactly the window, empty again."""
    texts = ["good", "nothing", "long", "many words " * 30, "whole window", "nothing"]
    return load_speech_dataset(write_speech_folder(tmp_path, [0.5, 0.0, 2.5, 0.5, 2.0, 0.0], texts))


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "fastwhisper.data.filtering"]


def test_counts_by_reason(processor, dataset, caplog):
    kept = drop_unusable_rows(dataset, processor, max_target_positions=32)
    assert kept["text"][:] == ["good", "whole window"]
    assert messages(caplog) == ["4 of 6 rows dropped: 1 audio over 2 s, 2 empty audio, 1 over 32 label tokens"]


def test_labelling_drops_empty_audio_alone(processor, dataset, caplog):
    assert drop_unusable_rows(dataset, processor, 32, training=False).num_rows == 4
    assert messages(caplog) == ["2 of 6 rows dropped: 2 empty audio"]


def test_stream_counts_as_it_goes(processor, dataset, caplog):
    stream = drop_unusable_rows(dataset.to_iterable_dataset(), processor, max_target_positions=32)
    assert isinstance(stream, IterableDataset) and messages(caplog) == []
    assert [row["text"] for row in stream] == ["good", "whole window"]
    assert messages(caplog) == [
        "so far, 1 of 2 rows dropped: 1 empty audio",
        "so far, 2 of 3 rows dropped: 1 audio over 2 s, 1 empty audio",
        "so far, 4 of 6 rows dropped: 1 audio over 2 s, 2 empty audio, 1 over 32 label tokens",
    ]


def test_stream_of_a_generator(processor):
    def rows():
        for seconds in (0.5, 0.0, 3.0):
            yield {"audio": {"array": tone(seconds), "sampling_rate": 16_000}, "text": f"{seconds}"}

    stream = load_speech_dataset(IterableDataset.from_generator(rows))
    assert [row["text"] for row in drop_unusable_rows(stream, processor)] == ["0.5"]


def test_the_limit_holds_for_the_longest_form(processor):
    stamps = "<|0.00|> a<|0.50|>"
    row = {"audio": {"array": tone(), "sampling_rate": 16_000}, "text": "a"}
    plain = RowCheck(processor, 3)
    assert plain(row, "row 0") is None
    assert plain({**row, "timestamped_text": stamps}, "row 0") == "over 3 label tokens"
    assert plain({"input_features": [[0.0]], "labels": [1] * 4}, "row 0") == "over 3 label tokens"
    assert plain({**row, "text": None}, "row 0") == "without text"


def test_nothing_dropped_is_the_same_dataset(processor, tmp_path, caplog):
    dataset = load_speech_dataset(write_speech_folder(tmp_path, [0.5]))
    assert drop_unusable_rows(dataset, processor) is dataset
    assert messages(caplog) == []


@pytest.mark.parametrize(("write", "message"), [(write_nan, "NaN"), (write_noise_bytes, "cannot be read as audio")])
def test_bad_audio_is_an_error_before_training(processor, tmp_path, write, message):
    write_speech_folder(tmp_path, [0.5, 0.5])
    write(tmp_path / "1.wav")
    dataset = load_speech_dataset(tmp_path)
    with pytest.raises(InputError, match=f"^row 1: .*1.wav .*{message}"):
        drop_unusable_rows(dataset, processor)
    with pytest.raises(InputError, match=f"^row 1 of the stream: .*1.wav .*{message}"):
        list(drop_unusable_rows(dataset.to_iterable_dataset(), processor))


def test_no_rows_left(processor, tmp_path):
    with pytest.raises(InputError, match="no rows left: 2 of 2 rows dropped: 2 empty audio"):
        drop_unusable_rows(load_speech_dataset(write_speech_folder(tmp_path, [0.0, 0.0])), processor)


def test_the_log_of_a_stream_stays_short(processor, caplog):
    caplog.set_level(logging.WARNING)
    stream_filter = StreamFilter(RowCheck(processor))
    for _ in range(1000):
        stream_filter({"audio": {"array": [], "sampling_rate": 16_000}, "text": ""})
    assert stream_filter.dropped.total() == stream_filter.seen == 1000
    assert len(messages(caplog)) == 10


def test_bytes_in_memory(processor, tmp_path):
    path = write_speech_folder(tmp_path, [0.5]) / "0.wav"
    dataset = Dataset.from_list([{"audio": {"bytes": path.read_bytes(), "path": None}, "text": "a"}])
    assert drop_unusable_rows(load_speech_dataset(dataset), processor).num_rows == 1
