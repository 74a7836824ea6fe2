"""What came from the Hub reads its own files alone; folders of one's own may name any."""

import json

import pytest
from datasets import Audio, Dataset
from huggingface_hub import constants

from fastwhisper.data import loading
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError

from ..sounds import write_tone

WAYS_OUT = ["..", "absolute", "link"]


def write_folder(folder, way, tmp_path):
    """A folder with a file of its own, and one whose name leads out of it."""
    folder.mkdir(parents=True)
    write_tone(folder / "own.wav")
    secret = tmp_path / "secret.wav"
    write_tone(secret)
    name = {"absolute": str(secret), "link": "link.wav"}.get(way)
    if way == "..":
        name = "/".join([".."] * len(folder.relative_to(tmp_path).parts)) + "/secret.wav"
    if way == "link":
        (folder / "link.wav").symlink_to(secret)
    rows = [{"file_name": "own.wav", "text": "a"}, {"file_name": name, "text": "b"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_folder_of_ones_own_names_any_file(tmp_path, way):
    dataset = load_speech_dataset(write_folder(tmp_path / "data", way, tmp_path))
    assert [row["audio"]["path"] for row in dataset] == [str(tmp_path / f) for f in ("data/own.wav", "secret.wav")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("place", ["local_dir", "cache"])
def test_a_downloaded_folder_names_its_own_files_alone(tmp_path, monkeypatch, place, way, streaming):
    hub = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    folder = tmp_path / "data" if place == "local_dir" else hub / "datasets--a--b" / "snapshots" / "0"
    write_folder(folder, way, tmp_path)
    if place == "local_dir":
        (folder / ".cache/huggingface/download").mkdir(parents=True)
    with pytest.raises(InputError, match="came from the Hub and names .*secret.wav"):
        list(load_speech_dataset(folder, streaming=streaming))


def test_a_snapshot_links_to_its_blobs(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "datasets--a--b"
    (repository / "blobs").mkdir(parents=True)
    write_tone(repository / "blobs" / "0.wav")
    snapshot = repository / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot / "a.wav").symlink_to("../../blobs/0.wav")
    (snapshot / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    assert load_speech_dataset(snapshot)["text"][:] == ["hello"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["column of paths", "audio without bytes", "an address"])
def test_rows_of_the_hub_name_no_file_of_this_machine(tmp_path, monkeypatch, kind, streaming):
    secret = write_tone(tmp_path / "secret.wav")
    audio = {"column of paths": secret, "audio without bytes": {"path": secret, "bytes": None}}
    dataset = Dataset.from_dict({"audio": [audio.get(kind, f"file://{secret}")], "text": ["a"]})
    if kind == "audio without bytes":
        dataset = dataset.cast_column("audio", Audio(decode=False))
    loaded = dataset.to_iterable_dataset() if streaming else dataset
    monkeypatch.setattr(loading, "_load_by_name", lambda *arguments: loaded)
    with pytest.raises(InputError, match="owner/data came from the Hub and names .*secret.wav"):
        list(load_speech_dataset("owner/data", streaming=streaming))


def test_rows_of_the_hub_that_hold_their_audio(tmp_path, monkeypatch):
    content = (tmp_path / "a.wav", write_tone(tmp_path / "a.wav"))[0].read_bytes()
    rows = [{"path": str(tmp_path / "a.wav"), "bytes": content}, {"path": "gone.wav", "bytes": None}]
    dataset = Dataset.from_dict({"audio": rows, "text": ["a", "b"]}).cast_column("audio", Audio(decode=False))
    monkeypatch.setattr(loading, "_load_by_name", lambda *arguments: dataset)
    assert load_speech_dataset("owner/data")["text"][:] == ["a", "b"]
