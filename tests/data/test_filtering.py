"""Rows are dropped with a count, at once or as a stream goes; bad audio is named, and checked once."""

import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, IterableDataset

from fastwhisper.data import filtering, row_checks
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.filtering import StreamFilter, drop_unusable_rows, usable_rows
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.row_checks import RowCheck
from fastwhisper.errors import InputError

from ..sounds import tone, write_nan, write_noise_bytes, write_one_sample, write_speech_folder, write_tone, write_torn
from ..whisper_assets import whisper_processor


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "fastwhisper"


@pytest.fixture
def dataset(tmp_path):
    """Good, empty, too long, too many words, exactly the window, empty again."""
    texts = ["good", "nothing", "long", "many words " * 30, "whole window", "nothing"]
    return load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.5, 0.0, 2.5, 0.5, 2.0, 0.0], texts))


@pytest.fixture
def decoded(monkeypatch):
    """The audio that is decoded from now on."""
    sources = []

    def decode(audio):
        sources.append(os.path.basename(audio["path"]))
        return decoded_duration(audio)

    decoded_duration = row_checks.decoded_duration
    monkeypatch.setattr(row_checks, "decoded_duration", decode)
    return sources


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "fastwhisper.data.filtering"]


def test_counts_by_reason_and_names_what_is_bad(processor, dataset, caplog):
    kept = drop_unusable_rows(dataset, processor, max_target_positions=32)
    assert kept["text"][:] == ["good", "whole window"]
    *named, counts = messages(caplog)
    assert counts == "4 of 6 rows dropped: 1 audio over 2 s, 2 empty audio, 1 over 32 label tokens"
    assert [line.split(os.sep)[0] for line in named] == ["row 1 dropped: ", "row 5 dropped: "]
    assert named[0].endswith("1.wav is empty: it has no samples")


def test_what_is_asked_of_rows_depends_on_their_use(dataset):
    dataset = dataset.map(lambda row, index: {"text": None if index == 0 else row["text"]}, with_indices=True)
    labelling, evaluation = usable_rows(dataset, RowCheck()), usable_rows(dataset, RowCheck(needs_text=True))
    assert labelling.dataset.num_rows == 4 and labelling.dropped == {"empty audio": 2}
    assert evaluation.dataset.num_rows == 3 and evaluation.dropped == {"empty audio": 2, "without text": 1}


BAD = {
    "torn.flac": write_torn,
    "nan.wav": write_nan,
    "noise.wav": write_noise_bytes,
    "one.wav": write_one_sample,
    "short.wav": lambda path: write_tone(path, 0.01),
    "empty.wav": lambda path: write_tone(path, 0.0),
    "gone.wav": lambda path: None,
    "loud.wav": lambda path: soundfile.write(path, 1e30 * tone(), 16_000, subtype="FLOAT"),
    "raw.raw": lambda path: path.write_bytes(bytes(9)),
}


@pytest.fixture
def bad_folder(tmp_path):
    """A good row, one with each kind of bad audio, a row without audio, a good row."""
    folder = write_speech_folder(tmp_path / "bad", [0.5, 0.5])
    for name, write in BAD.items():
        write(folder / name)
    rows = "".join(f"{name},bad\n" for name in BAD)
    (folder / "metadata.csv").write_text(f"file_name,text\n0.wav,good\n{rows},bad\n1.wav,good\n")
    return folder


COUNTS = {"bad audio": 7, "empty audio": 1, "audio under 0.02 s": 2}
NAMES = [*BAD, "a row has no audio"]


@pytest.mark.parametrize("check", ["training", "labelling"])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_audio_is_left_out_by_name(processor, bad_folder, caplog, check, stream):
    dataset = load_speech_dataset(bad_folder, streaming=stream)
    rows = usable_rows(dataset, RowCheck.for_training(processor) if check == "training" else RowCheck())
    assert [row["text"] for row in rows.dataset] == ["good", "good"]
    assert rows.dropped == COUNTS
    text = "\n".join(messages(caplog))
    for index, name in enumerate(NAMES, 1):
        place = f"row {index} of the stream dropped: " if stream else f"row {index} dropped: "
        assert sum(line.startswith(place) and name in line for line in messages(caplog)) == 1, name
    assert ("so far, 8 of" in text) if stream else ("10 of 12 rows dropped: 2 audio under 0.02 s, 7 bad" in text)


@pytest.mark.parametrize("name", BAD)
def test_bad_audio_can_stop(processor, tmp_path, name):
    folder = write_speech_folder(tmp_path / "bad", [0.5, 0.5])
    BAD[name](folder / name)
    (folder / "metadata.csv").write_text(f"file_name,text\n0.wav,good\n{name},bad\n{name},bad\n")
    dataset = load_speech_dataset(folder)
    with pytest.raises(InputError, match=f"^row 1: .*{name}.*, and 1 more rows have bad audio$"):
        drop_unusable_rows(dataset, processor, on_bad_audio="stop")
    with pytest.raises(InputError, match=f"^row 1 of the stream: .*{name}"):
        list(drop_unusable_rows(dataset.to_iterable_dataset(), processor, on_bad_audio="stop"))
    with pytest.raises(InputError, match="on_bad_audio='ignore': it must be skip or stop"):
        drop_unusable_rows(dataset, processor, on_bad_audio="ignore")


def test_what_is_not_bad_does_not_stop(processor, tmp_path):
    dataset = load_speech_dataset(write_speech_folder(tmp_path / "long", [0.5, 2.5]))
    assert drop_unusable_rows(dataset, processor, on_bad_audio="stop").num_rows == 1


def test_languages_and_timestamps_that_are_not_understood(processor, tmp_path, caplog):
    write_tone(tmp_path / "a.wav")
    languages = ["en-US", "klingon", 1, None, "Mandarin Chinese", "deu", "yue"]
    rows = [{"audio": str(tmp_path / "a.wav"), "text": "a", "language": str(x) if x else None} for x in languages]
    rows += [{"audio": str(tmp_path / "a.wav"), "text": "<|0.00|> a<|0.01|>", "language": "en"}]
    check = RowCheck.for_training(processor)
    kept = usable_rows(Dataset.from_list(rows), check)
    assert kept.dataset["language"][:] == ["en-US", "Mandarin Chinese", "deu"]
    assert kept.dropped == {"unknown language": 3, "without language": 1, "unknown timestamps": 1}
    assert "row 1 dropped: Whisper has no language 'klingon'" in messages(caplog)[0]
    assert "row 6 dropped: the tokenizer has no language 'yue'" in messages(caplog)[2]
    assert "row 7 dropped: the tokenizer has no timestamp <|0.01|>" in messages(caplog)[3]
    # A language for all makes the rows' own of no account.
    assert drop_unusable_rows(Dataset.from_list(rows[:-1]), processor, language="en").num_rows == 7
    with pytest.raises(InputError, match="no rows left: 1 of 1 rows dropped: 1 unknown language; row 0: .*'klingon'"):
        drop_unusable_rows(Dataset.from_list(rows[1:2]), processor)


def test_long_lists_of_bad_rows_are_cut(tmp_path, caplog):
    rows = [{"audio": {"bytes": b"", "path": f"{index}.wav"}} for index in range(25)]
    write_tone(tmp_path / "a.wav")
    good = {"audio": {"bytes": (tmp_path / "a.wav").read_bytes(), "path": None}}
    assert usable_rows(Dataset.from_list([*rows, good]), RowCheck()).dataset.num_rows == 1
    assert len(messages(caplog)) == 12 and messages(caplog)[10] == "... and 15 more such rows"


def test_every_clip_is_decoded_once(processor, dataset, decoded, caplog):
    first = drop_unusable_rows(dataset, processor, 32)
    assert len(decoded) == 6
    said = messages(caplog)
    caplog.clear()
    again = drop_unusable_rows(dataset, processor, 32)
    assert len(decoded) == 6 and again["text"][:] == first["text"][:]
    assert messages(caplog) == said


def test_another_check_or_another_tokenizer_is_another_matter(processor, dataset, decoded):
    checks = [RowCheck.for_training(processor, 32), RowCheck.for_training(processor, 33), RowCheck()]
    checks += [RowCheck(True), RowCheck(window=1.0), RowCheck.for_training(processor, 32, language="de")]
    larger = whisper_processor(seconds=2)
    larger.tokenizer.add_tokens(["fastwhisper"])
    checks += [RowCheck.for_training(larger, 32)]
    assert len({check.fingerprint() for check in checks}) == len(checks)
    assert pickle.loads(pickle.dumps(checks[0])).fingerprint() == checks[0].fingerprint()
    for count, check in enumerate(checks, 1):
        usable_rows(dataset, check)
        assert len(decoded) > 4 * count


def test_a_file_that_was_mended_is_looked_at_again(processor, tmp_path, decoded):
    folder = write_speech_folder(tmp_path / "speech", [0.5, 0.5])
    write_noise_bytes(folder / "1.wav")
    assert drop_unusable_rows(load_speech_dataset(folder), processor).num_rows == 1
    write_tone(folder / "1.wav")
    assert drop_unusable_rows(load_speech_dataset(folder), processor).num_rows == 2
    (folder / "0.wav").unlink()
    assert drop_unusable_rows(load_speech_dataset(folder), processor).num_rows == 1


def test_another_process_reads_what_the_first_one_found(dataset, tmp_path, cache):
    """As the processes of a launcher: one checks, whichever comes first, and the other waits for it."""
    context = multiprocessing.get_context("fork")
    counts = context.Queue()

    def check():
        calls = []
        decode = row_checks.decoded_duration
        row_checks.decoded_duration = lambda audio: calls.append(1) or decode(audio)
        rows = load_speech_dataset(tmp_path / "speech")
        counts.put((len(usable_rows(rows, RowCheck()).dataset), len(calls)))

    processes = [context.Process(target=check) for _ in range(3)]
    for process in processes:
        process.start()
    found = sorted(counts.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == [(4, 0), (4, 0), (4, 6)]
    assert len(list(cache.glob("*.arrow"))) == 1


def test_several_processes_check_for_one(processor, dataset, caplog):
    kept = drop_unusable_rows(dataset, processor, 32, num_proc=2)
    assert kept["text"][:] == ["good", "whole window"]
    assert messages(caplog)[0].startswith("row 1 dropped") and messages(caplog)[1].startswith("row 5 dropped")


def test_without_a_cache(processor, dataset, cache, monkeypatch):
    cache.parent.write_text("a file where the folder would be")
    assert drop_unusable_rows(dataset, processor, 32).num_rows == 2
    datasets.disable_caching()
    try:
        assert drop_unusable_rows(dataset, processor, 32).num_rows == 2
    finally:
        datasets.enable_caching()


def test_a_dataset_in_a_file_with_rows_picked(processor, dataset, tmp_path):
    """Rows of Parquet that hold their audio, shuffled: the check is of the rows as they stand."""
    rows = [
        {"audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": "x"}, "text": row["text"]}
        for row in dataset
    ]
    Dataset.from_list(rows).cast_column("audio", Audio(decode=False)).to_parquet(tmp_path / "all" / "train.parquet")
    loaded = load_speech_dataset(tmp_path / "all").select([4, 1, 0])
    assert drop_unusable_rows(loaded, processor)["text"][:] == ["whole window", "good"]


def test_rows_that_a_function_of_the_user_makes(dataset, decoded):
    """Neither a column that is not looked at nor a format for tensors matters; a transform of all columns does."""
    assert usable_rows(dataset.add_column("number", range(6)).with_format("torch"), RowCheck()).dataset.num_rows == 4
    dataset = dataset.map(lambda row: {"place": row["audio"]["path"]}).remove_columns("audio")
    lazy = dataset.with_transform(lambda rows: {"audio": [{"path": path} for path in rows["place"]]})
    rows = usable_rows(lazy, RowCheck())
    assert len(decoded) == 12 and rows.dropped == {"empty audio": 2}
    assert len(rows.dataset) == 4 and "audio" in rows.dataset[0]


def test_stream_counts_as_it_goes(processor, dataset, caplog):
    stream = drop_unusable_rows(dataset.to_iterable_dataset(), processor, max_target_positions=32)
    assert isinstance(stream, IterableDataset) and messages(caplog) == []
    expected = [
        "so far, 1 of 2 rows dropped: 1 empty audio",
        "so far, 2 of 3 rows dropped: 1 audio over 2 s, 1 empty audio",
        "so far, 4 of 6 rows dropped: 1 audio over 2 s, 2 empty audio, 1 over 32 label tokens",
    ]
    # What comes again in a second epoch is not counted again.
    for _ in range(2):
        assert [row["text"] for row in stream] == ["good", "whole window"]
        assert [line for line in messages(caplog) if line.startswith("so far")] == expected
    assert [line for line in messages(caplog) if "of the stream dropped" in line] == messages(caplog)[:1] + [
        line for line in messages(caplog) if line.startswith("row 5")
    ]


def test_a_stream_that_is_left_early_goes_on_counting(dataset):
    rows = usable_rows(dataset.to_iterable_dataset(), RowCheck())
    next(iter(rows.dataset.skip(1)))
    assert rows.dropped == {"empty audio": 1}
    assert len(list(rows.dataset)) == 4 and rows.dropped == {"empty audio": 2}


def test_stream_of_a_generator(processor):
    def rows():
        for seconds in (0.5, 0.0, 3.0):
            yield {"audio": {"array": tone(seconds), "sampling_rate": 16_000}, "text": f"{seconds}"}
        yield {"audio": {"array": tone(), "sampling_rate": 16_000}, "text": float("nan"), "language": 1}

    stream = load_speech_dataset(IterableDataset.from_generator(rows))
    assert [row["text"] for row in drop_unusable_rows(stream, processor)] == ["0.5"]


def test_the_limit_holds_for_the_longest_form(processor):
    stamps = "<|0.00|> a<|0.50|>"
    row = {"audio": {"array": tone(), "sampling_rate": 16_000}, "text": "a"}
    plain = RowCheck.for_training(processor, 3)
    assert plain(row) is None
    assert plain({**row, "timestamped_text": stamps}).reason == "over 3 label tokens"
    assert plain({**row, "text": stamps}).reason == "over 3 label tokens"
    assert plain({"input_features": [[0.0]], "labels": [1] * 4}).reason == "over 3 label tokens"
    assert plain({**row, "text": None}).reason == "without text"


def test_nothing_dropped_is_the_same_dataset(processor, tmp_path, caplog):
    dataset = load_speech_dataset(write_speech_folder(tmp_path, [0.5]))
    assert drop_unusable_rows(dataset, processor) is dataset
    assert messages(caplog) == []


def test_no_rows_left(processor, tmp_path):
    with pytest.raises(InputError, match="no rows left: 2 of 2 rows dropped: 2 empty audio; row 0: .*0.wav is empty"):
        drop_unusable_rows(load_speech_dataset(write_speech_folder(tmp_path, [0.0, 0.0])), processor)
    with pytest.raises(InputError, match="the dataset has no rows"):
        drop_unusable_rows(Dataset.from_dict({"audio": [], "text": []}), processor)


def test_the_log_of_a_stream_stays_short(processor, caplog):
    caplog.set_level(logging.WARNING)
    stream_filter = StreamFilter(RowCheck.for_training(processor))
    for index in range(1000):
        stream_filter({"audio": {"array": np.zeros(0), "sampling_rate": 16_000}, "text": ""}, index)
    assert stream_filter.dropped.total() == stream_filter.seen == 1000
    assert len(messages(caplog)) == 10 + filtering.NAMED


def test_bytes_in_memory(processor, tmp_path):
    path = write_speech_folder(tmp_path, [0.5]) / "0.wav"
    dataset = Dataset.from_list([{"audio": {"bytes": path.read_bytes(), "path": None}, "text": "a"}])
    assert drop_unusable_rows(load_speech_dataset(dataset), processor).num_rows == 1


@pytest.mark.parametrize("labels", [3, "three", ["three"], [0.5], {"a": 1}])
def test_a_column_labels_with_something_else_is_no_label_ids(processor, tmp_path, labels):
    path = write_tone(tmp_path / "a.wav", 0.5)
    row = {"audio": {"path": str(path), "bytes": None}, "text": "three", "labels": labels}
    assert RowCheck.for_training(processor)(row) is None
    encoded = SpeechCollator(processor)([row])["labels"]
    assert encoded.tolist() == SpeechCollator(processor)([{**row, "labels": None}])["labels"].tolist()
