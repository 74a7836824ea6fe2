"""What a folder may contain, and how its table may be written."""

import errno
import json
import os
import unicodedata

import pytest

from fastwhisper.data.filtering import usable_rows
from fastwhisper.data.folders import list_audio
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.row_checks import RowCheck
from fastwhisper.errors import InputError

from ..sounds import write_speech_folder, write_tone


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("fastwhisper")]


def names(folder):
    return [str(path.relative_to(folder)) for path in list_audio(folder)]


def test_hidden_files_and_folders_are_left_alone(tmp_path, caplog):
    folder = tmp_path / ".cache"  # the folder itself may be hidden
    for name in ("b.flac", "._b.flac", ".hidden.wav", "a/A.WAV", ".trash/c.wav", "__MACOSX/a/._A.WAV", "notes.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (folder / "folder.wav").mkdir()
    assert names(folder) == ["a/A.WAV", "b.flac"]
    assert warnings(caplog) == []


def test_files_that_cannot_be_read_are_named(tmp_path, caplog):
    write_tone(tmp_path / "a.wav")
    for index in range(12):
        (tmp_path / f"{index:02}.m4a").write_bytes(b"")
    (tmp_path / "x.RAW").write_bytes(b"")
    assert names(tmp_path) == ["a.wav"]
    (message,) = warnings(caplog)
    assert "skipped 13 that cannot be read: 00.m4a, " in message and "09.m4a and 3 more" in message


def test_a_broken_link_is_not_passed_over(tmp_path):
    write_tone(tmp_path / "a.wav")
    os.symlink(tmp_path / "gone.wav", tmp_path / "b.wav")
    os.symlink(tmp_path, tmp_path / "loop")
    assert names(tmp_path) == ["a.wav", "b.wav"]


def test_links_to_folders_are_followed_once(tmp_path):
    folder = tmp_path / "folder"
    for place in (tmp_path / "elsewhere", folder / "b"):
        place.mkdir(parents=True)
        write_tone(place / "c.wav")
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder / "b")
    assert names(folder) == ["a/c.wav", "b/c.wav"]


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, caplog, monkeypatch):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "closed").mkdir()

    def look(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", look)  # root may look everywhere
    assert names(tmp_path) == ["a.wav"]
    assert "closed (Permission denied)" in warnings(caplog)[0]
    with pytest.raises(InputError, match="closed cannot be read: Permission denied"):
        list_audio(tmp_path / "closed")


def test_names_of_any_bytes(tmp_path, caplog):
    write_tone(tmp_path / "a.wav")
    write_tone(tmp_path / "b.wav")
    os.rename(tmp_path / "b.wav", os.fsencode(tmp_path) + b"/caf\xe9.wav")
    assert len(list_audio(tmp_path)) == 2
    assert load_speech_dataset(tmp_path, require_text=False).num_rows == 1
    assert "skipped 1 whose names are not UTF-8: " in warnings(caplog)[0] and "caf\ufffd.wav" in warnings(caplog)[0]


def test_a_folder_that_is_none():
    with pytest.raises(InputError, match="nowhere cannot be read: No such file"):
        list_audio("nowhere")


def test_train_and_test_with_metadata_of_their_own(tmp_path):
    for name, seconds in (("train", [0.1, 0.2]), ("test", [0.3]), (".hidden", [0.4])):
        write_speech_folder(tmp_path / name, seconds)
    with pytest.raises(InputError, match=f"{tmp_path} has the splits test, train: choose one"):
        load_speech_dataset(tmp_path)
    assert load_speech_dataset(tmp_path, split="train").num_rows == 2
    assert load_speech_dataset(str(tmp_path), split="test", limit=1).num_rows == 1
    with pytest.raises(InputError, match="no split 'dev'; it has test, train"):
        load_speech_dataset(tmp_path, split="dev")


@pytest.mark.parametrize("splits", [["train", "test"], [""]])
def test_tables_in_data(tmp_path, splits):
    """As in repositories on the Hub."""
    for name in splits:
        write_speech_folder(tmp_path / "data" / name, [0.1])
    if len(splits) > 1:
        with pytest.raises(InputError, match="has the splits test, train: choose one"):
            load_speech_dataset(tmp_path)
    assert load_speech_dataset(tmp_path, split="train").num_rows == 1


def test_a_table_in_data_over_train_and_test(tmp_path):
    for name in ("train", "test"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_tone(tmp_path / "data" / name / "a.wav")
    (tmp_path / "data" / "metadata.csv").write_text("file_name,text\ntrain/a.wav,a\ntest/a.wav,b\n")
    assert load_speech_dataset(tmp_path, split="test")["text"][:] == ["b"]


def test_a_single_split_needs_no_name(tmp_path):
    write_speech_folder(tmp_path / "train", [0.1, 0.2])
    assert load_speech_dataset(tmp_path).num_rows == load_speech_dataset(tmp_path, split="train").num_rows == 2


@pytest.mark.parametrize("above", ["", "data"])
def test_one_table_over_train_and_test(tmp_path, above):
    """As audiofolder of `datasets` has it."""
    files = [f"{above}/{name}".lstrip("/") for name in ("train/0.wav", "train/1.wav", "test/0.wav")]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        write_tone(tmp_path / file)
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(f"{file},{file}\n" for file in files))
    with pytest.raises(InputError, match="splits train, test: choose"):
        load_speech_dataset(tmp_path)
    assert load_speech_dataset(tmp_path, split="train")["text"][:] == files[:2]
    assert load_speech_dataset(tmp_path, split="test")["text"][:] == files[2:]


def test_a_folder_of_speakers_has_no_splits(tmp_path):
    for speaker in ("anna", "test"):
        (tmp_path / speaker).mkdir()
        write_tone(tmp_path / speaker / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\nanna/a.wav,a\ntest/a.wav,b\n")
    assert load_speech_dataset(tmp_path).num_rows == 2
    (tmp_path / "metadata.csv").unlink()
    assert load_speech_dataset(tmp_path, require_text=False).num_rows == 2


def test_train_and_test_of_audio_alone(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        write_tone(tmp_path / name / "a.wav")
    with pytest.raises(InputError, match="splits test, train: choose"):
        load_speech_dataset(tmp_path, require_text=False)
    assert load_speech_dataset(tmp_path, split="test", require_text=False).num_rows == 1
    with pytest.raises(InputError, match="2 audio files and no metadata.csv"):
        load_speech_dataset(tmp_path, split="test")


TEXT = 'Grüß dich, "Welt"; ça va?'
QUOTED = '"{}"'.format(TEXT.replace('"', '""'))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", f"file_name,text\na.wav,{QUOTED}\n".encode("utf-8-sig")),
        ("metadata.csv", f"file_name,text\r\na.wav,{QUOTED}\r\n\r\n".encode()),
        ("metadata.csv", f"file_name, text\na.wav,{QUOTED}\n".encode()),
        ("metadata.csv", f"file_name;text\na.wav;{QUOTED}\n".encode()),
        ("metadata.csv", f'"file_name";"text"\r\n"a.wav";{QUOTED}\r\n'.encode("utf-16")),
        ("metadata.csv", f"\ufefffile_name\ttext\na.wav\t{QUOTED}\n".encode("utf-16-be")),
        ("metadata.csv", f"text|file_name\n{QUOTED}|a.wav\n".encode()),
        ("metadata.tsv", f"file_name\ttext\r\na.wav\t{TEXT}\r\n".encode("utf-16")),
        ("metadata.jsonl", json.dumps({"file_name": "a.wav", "text": TEXT}).encode("utf-8-sig")),
        ("metadata.jsonl", (json.dumps({"file": "a.wav", "text": TEXT}, ensure_ascii=False) + "\r\n\r\n").encode()),
    ],
)
def test_encodings_and_delimiters(tmp_path, name, content):
    write_tone(tmp_path / "a.wav")
    (tmp_path / name).write_bytes(content)
    (row,) = load_speech_dataset(tmp_path)
    assert row["text"] == TEXT


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.csv",
            "file_name,text\na.wav,ok\na.wav,Grüße\n".encode("latin-1"),
            "line 3 is not UTF-8: save it as",
        ),
        ("metadata.csv", "file_name,text\na.wav,ok\n".encode("utf-16-le"), "line 1 has a NUL character: save it as"),
        ("metadata.csv", b"file_name,text\na.wav,ok\na.wav,o\0k\n", "line 3 has a NUL character"),
        ("metadata.csv", b'file_name,text\na.wav,"ok\na.wav,"fine"\n', "line 2 cannot be read: ',' expected"),
        ("metadata.csv", b'file_name,text\na.wav,ok\na.wav,"open\n', "line 3 cannot be read: unexpected end of data"),
        ("metadata.csv", b"file_name,text,text\na.wav,a,b\n", "has two columns named 'text'"),
        ("metadata.csv", b"", "has no rows"),
        (
            "metadata.jsonl",
            b'{"file": "a.wav"}\n{"file": "a.wav", "text": "\\ud83d"}\n',
            "line 2 has half a character",
        ),
        (
            "metadata.jsonl",
            b'{"file": "a.wav", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "line 1 is nested too deep",
        ),
        (
            "metadata.jsonl",
            b'{"file": "a.wav", "split": ["train"]}',
            r"'split' holds \['train'\], which is not the name",
        ),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, message):
    write_tone(tmp_path / "a.wav")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_speech_dataset(tmp_path)


def test_values_of_several_types(tmp_path):
    write_tone(tmp_path / "a.wav")
    rows = [{"text": "one", "id": 1}, {"text": {"a": 1}, "id": "x"}, {"text": 7, "id": None}, {"text": "four", "n": 1}]
    rows[0]["n"] = 10**30
    lines = "".join(json.dumps({"file": "a.wav", **row}) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(lines)
    dataset = load_speech_dataset(tmp_path)
    assert dataset["text"][:] == ["one", None, None, "four"]
    assert dataset["id"][:] == ["1", "x", None, None] and dataset["n"][0] == str(10**30)


def test_a_file_that_is_missing_is_left_to_the_filter(tmp_path):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\ngone.wav,a\n,b\na.wav,c\n")
    dataset = load_speech_dataset(tmp_path)
    assert [row["audio"] and row["audio"]["path"] for row in dataset] == [
        str(tmp_path / "gone.wav"),
        None,
        str((tmp_path / "a.wav").resolve()),
    ]


def test_accents_apart_and_together(tmp_path):
    write_tone(tmp_path / unicodedata.normalize("NFD", "grüße.wav"))
    name = unicodedata.normalize("NFC", "grüße.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{name},a\n", encoding="utf-8")
    assert load_speech_dataset(tmp_path).num_rows == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", 'file,text\na.wav,"hi\nb.wav,x\nc.wav,y\n', "line 2 cannot be read"),
        ("metadata.csv", 'file,text\na.wav,"hi\nb.wav,x\nc.wav,"\n', "line 2 has a quotation mark .* before b.wav"),
        ("metadata.csv", 'text,file\n"hi,a.wav\nx,b.wav\n",c.wav\n', "line 2 has a quotation mark .* before b.wav"),
        ("metadata.csv", 'file,"text\na.wav,hi\n', "line 1 cannot be read"),
        ("metadata.csv", "file,text,text\na.wav,hi,ho\n", "two columns named 'text'"),
        ("metadata.jsonl", '{"file": "a.wav", "text": "x", "text": "y"}', "line 1 has 'text' twice"),
        ("metadata.jsonl", '{"file": "a.wav", "text": "x", "n": ' + "[" * 3000 + "]" * 3000 + "}", "nested too deep"),
        ("metadata.jsonl", '{"file": "a.wav", "text": "x", "n": ' + "1" * 5000 + "}", "line 1 is not JSON"),
    ],
)
def test_nothing_is_swallowed_or_guessed(tmp_path, name, content, message):
    for letter in "abc":
        write_tone(tmp_path / f"{letter}.wav")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_speech_dataset(tmp_path)


def test_a_text_of_several_lines(tmp_path):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text('file,text\na.wav,"one,\ntwo.wav, three"\n')
    assert load_speech_dataset(tmp_path)["text"][:] == ["one,\ntwo.wav, three"]


@pytest.mark.parametrize("value", ["[" * 300 + "]" * 300, '{"a": ' * 100 + "1" + "}" * 100, "1" * 30])
def test_columns_that_arrow_does_not_hold_are_kept_as_json(tmp_path, value):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file": "a.wav", "text": "x", "other": {value}}}')
    (row,) = load_speech_dataset(tmp_path)
    assert row["other"] == value


def test_a_name_that_is_too_long_for_a_file(tmp_path):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(f"file,text\n{5000 * 'x'},one\na.wav,two\n")
    assert usable_rows(load_speech_dataset(tmp_path), RowCheck()).dataset["text"][:] == ["two"]


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json", "data.py", "a.parquet", "a.json", "a.zip"])
def test_folders_that_datasets_cannot_read(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(b"import os\n{")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_speech_dataset(folder)


def test_of_two_columns_that_may_name_the_files_the_first_one_does(tmp_path):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("path,audio,text\na.wav,studio 1,hello\n")
    (row,) = load_speech_dataset(tmp_path)
    assert row["audio"]["path"] == str(tmp_path / "a.wav")


def test_columns_without_a_name(tmp_path):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(",file_name,text,,\n0,a.wav,hello,,\n")
    assert load_speech_dataset(tmp_path).column_names == ["audio", "text"]


@pytest.mark.parametrize("name", ["train\\a.wav", "https://example.org/a.wav"])
def test_slashes_of_windows_and_addresses(tmp_path, name):
    (tmp_path / "train").mkdir()
    write_tone(tmp_path / "train" / "a.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{name},hello\n")
    (row,) = load_speech_dataset(tmp_path)
    assert row["audio"]["path"] == (name if "://" in name else str(tmp_path / "train" / "a.wav"))


@pytest.mark.parametrize(("name", "reason"), [("a.raw", ""), ("train.parquet", "[Pp]arquet")])
def test_files_that_datasets_cannot_read(tmp_path, name, reason):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=f"cannot be loaded: .*{reason}"):
        load_speech_dataset(tmp_path, require_text=False)
