"""Every kind of dataset, and one clear line for each that cannot be used."""

import json
from pathlib import Path

import pytest
from datasets import Audio, ClassLabel, Dataset, DatasetDict, IterableDataset

from fastwhisper.data.audio import load_audio
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError

from ..sounds import tone, write_speech_folder, write_tone


@pytest.fixture
def folder(tmp_path):
    return write_speech_folder(tmp_path / "speech", [0.2, 0.3, 0.4])


def assert_is_folder(dataset):
    rows = list(dataset)
    assert [row["text"] for row in rows] == ["sentence 0", "sentence 1", "sentence 2"]
    assert [row["speaker"] for row in rows] == ["speaker 0", "speaker 1", "speaker 0"]
    assert [load_audio(row["audio"]).size for row in rows] == [3200, 4800, 6400]


def test_folder_with_metadata(folder):
    dataset = load_speech_dataset(folder)
    assert isinstance(dataset, Dataset)
    assert dataset.features["audio"] == Audio(decode=False)
    assert_is_folder(dataset)
    assert_is_folder(load_speech_dataset(str(folder / "metadata.csv"), split="train"))


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
@pytest.mark.parametrize("sub_folder", ["wav", "flac", "audio", "."])
def test_metadata_formats_and_sub_folders(tmp_path, suffix, sub_folder):
    (tmp_path / sub_folder).mkdir(exist_ok=True)
    write_tone(tmp_path / sub_folder / "a.wav")
    text = '"well" he said, "no'
    line = f"path\ttext\na.wav\t{text}\n" if suffix == "tsv" else json.dumps({"path": "a.wav", "text": text}) + "\n"
    (tmp_path / f"metadata.{suffix}").write_text(line)
    (row,) = load_speech_dataset(tmp_path)
    assert row["text"] == text and load_audio(row["audio"]).size == 8000


def test_rows_of_json_lines_may_lack_columns(tmp_path):
    write_tone(tmp_path / "a.wav")
    rows = [{"file": "a.wav", "text": "one"}, {"file": "a.wav", "text": "two", "timestamped_text": "<|0.00|> two"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_speech_dataset(tmp_path)["timestamped_text"][:] == [None, "<|0.00|> two"]


def test_audio_alone(tmp_path):
    (tmp_path / "speaker").mkdir()
    write_tone(tmp_path / "speaker" / "b.WAV")
    write_tone(tmp_path / "a.flac")
    dataset = load_speech_dataset(tmp_path, require_text=False)
    assert [Path(row["audio"]["path"]).name for row in dataset] == ["a.flac", "b.WAV"]
    with pytest.raises(InputError, match="2 audio files and no metadata.csv"):
        load_speech_dataset(tmp_path)


def test_saved_to_disk(folder, tmp_path):
    dataset = load_speech_dataset(folder)
    dataset.save_to_disk(tmp_path / "saved")
    assert_is_folder(load_speech_dataset(tmp_path / "saved"))
    DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "splits")
    assert_is_folder(load_speech_dataset(tmp_path / "splits", split="test"))


def test_folder_of_parquet_files(folder, tmp_path):
    (tmp_path / "parquet").mkdir()
    load_speech_dataset(folder).to_parquet(tmp_path / "parquet" / "train.parquet")
    for streaming in (False, True):
        assert_is_folder(load_speech_dataset(tmp_path / "parquet", streaming=streaming))


def test_dataset_objects_decode_nothing(folder):
    dataset = load_speech_dataset(folder)
    decoding = dataset.cast_column("audio", Audio(sampling_rate=16_000))
    for source in (decoding, DatasetDict(train=decoding), decoding.to_iterable_dataset()):
        assert_is_folder(load_speech_dataset(source))
    assert isinstance(load_speech_dataset(dataset, streaming=True), IterableDataset)
    assert_is_folder(load_speech_dataset(folder, streaming=True))


def test_iterable_dataset_of_a_generator():
    def rows():
        for index in range(3):
            yield {"sound": {"array": tone(0.1), "sampling_rate": 16_000}, "sentence": f"sentence {index}"}

    dataset = IterableDataset.from_generator(rows)
    loaded = load_speech_dataset(dataset, audio_column="sound", text_column="sentence", limit=2)
    assert [(row["text"], load_audio(row["audio"]).size) for row in loaded] == [
        ("sentence 0", 1600),
        ("sentence 1", 1600),
    ]
    with pytest.raises(InputError, match="no column 'audio' for the audio; its columns are sound, sentence"):
        load_speech_dataset(dataset)


def test_column_names_and_limit(folder):
    dataset = load_speech_dataset(folder, text_column="speaker", limit=2)
    assert dataset["text"][:] == ["speaker 0", "speaker 1"] and "speaker" not in dataset.column_names
    assert load_speech_dataset(folder, text_column="words", require_text=False).num_rows == 3


CLASSES = ClassLabel(names=["en", "fr-FR", "Mandarin Chinese"])


def test_classes_get_their_names(folder):
    dataset = load_speech_dataset(folder).add_column("language", [2, 0, None], feature=CLASSES)
    for source in (dataset, dataset.select([0, 1, 2]), dataset.to_iterable_dataset(), dataset.shuffle(seed=0)):
        rows = sorted(load_speech_dataset(source), key=lambda row: row["text"])
        assert [row["language"] for row in rows] == ["Mandarin Chinese", "en", None]
        assert_is_folder(rows)
    words = dataset.rename_column("language", "word")
    assert load_speech_dataset(words, text_column="word")["text"][:] == ["Mandarin Chinese", "en", None]


def test_splits_of_a_folder(folder, tmp_path):
    test = write_speech_folder(tmp_path / "both" / "test", [0.2])
    assert load_speech_dataset(test.parent, split="test").num_rows == 1
    table = (folder / "metadata.csv").read_text().splitlines()
    splits = ["split", "train", "test", "train"]
    (folder / "metadata.csv").write_text("\n".join(map(",".join, zip(table, splits, strict=True))))
    assert load_speech_dataset(folder, split="train")["text"][:] == ["sentence 0", "sentence 2"]
    with pytest.raises(InputError, match="splits train, test: choose"):
        load_speech_dataset(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_column": "sentence"}, "no column 'sentence' for the text; its columns are audio, text, speaker"),
        ({"audio_column": "sound"}, "no column sound that names the audio files; its columns are file_name"),
        ({"split": "test"}, "no split 'test'; it has train"),
        ({"limit": 0}, "limit must be 1 or more"),
    ],
)
def test_bad_options(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        load_speech_dataset(folder, **arguments)


def test_one_configuration_of_several(folder, tmp_path):
    place = tmp_path / "configurations"
    for name in ("one", "two"):
        load_speech_dataset(folder, limit=int(name == "two") + 1).to_parquet(place / name / "rows.parquet")
    names = "\n".join(f"- config_name: {name}\n  data_files: {name}/*.parquet" for name in ("one", "two"))
    (place / "README.md").write_text(f"---\nconfigs:\n{names}\n---\n")
    for name, rows in (("one", 1), ("two", 2)):
        assert load_speech_dataset(place, dataset_config=name).num_rows == rows


def test_bad_sources(folder, tmp_path):
    with pytest.raises(InputError, match="there is no folder .*nowhere"):
        load_speech_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="the dataset nobody/nothing cannot be loaded"):
        load_speech_dataset("nobody/nothing")
    with pytest.raises(InputError, match="is a file"):
        load_speech_dataset(folder / "0.wav")
    with pytest.raises(InputError, match="a list is not a dataset"):
        load_speech_dataset([1, 2])
    for empty in (Dataset.from_dict({"audio": [], "text": []}), IterableDataset.from_generator(lambda: iter(()))):
        with pytest.raises(InputError, match="no rows"):
            load_speech_dataset(empty)
    with pytest.raises(InputError, match="'text' holds int64, not text"):
        load_speech_dataset(Dataset.from_dict({"audio": ["a.wav"], "text": [7]}))
    with pytest.raises(InputError, match="'text' holds List, not text"):
        load_speech_dataset(Dataset.from_dict({"audio": ["a.wav"], "text": [["a"]]}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,text\n", "no rows"),
        ("metadata.csv", "name,text\n0.wav,a\n", "no column file or file_name or path or audio"),
        ("metadata.csv", "file_name,text\n9.wav,a\n", "line 2: there is no audio file 9.wav"),
        ("metadata.csv", "file_name,text\n,a\n", "line 2: it names no audio file"),
        ("metadata.csv", "file_name,text\n0.wav,a,b\n", "line 2 has more fields than the header"),
        ("metadata.jsonl", "{not json\n", "line 1 is not JSON"),
        ("metadata.jsonl", "[1]\n", "line 1 is not a JSON object"),
    ],
)
def test_bad_metadata(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        load_speech_dataset(folder)


@pytest.mark.parametrize(("name", "rows", "first"), [("kathleen_arctic", 1032, "Author of"), ("misc_en", 5, "And so")])
def test_real_recordings_with_texts(real_speech, name, rows, first):
    dataset = load_speech_dataset(real_speech(name))
    assert dataset.num_rows == rows
    assert dataset[0]["text"].startswith(first)
    assert load_audio(dataset[0]["audio"]).size > 16_000


def test_real_recordings_alone(real_speech):
    dataset = load_speech_dataset(real_speech("fsdd"), require_text=False)
    assert dataset.num_rows == 2500
    assert 0.1 < load_audio(dataset[0]["audio"]).size / 16_000 < 3
