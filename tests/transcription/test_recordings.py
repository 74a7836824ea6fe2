"""Which files are transcribed, and where their transcripts go."""

import os
from pathlib import Path

import pytest

from fastwhisper.errors import InputError
from fastwhisper.transcription import recordings as module
from fastwhisper.transcription.recordings import Recording, find_recordings, output_paths

from ..recordings import write_noise


def recordings(*places: str) -> list[Recording]:
    return [Recording(place, Path("source", place), Path(place).with_suffix(""), 1.0) for place in places]


def test_what_is_found_and_what_is_not(tmp_path):
    write_noise(tmp_path / "audio" / "deep" / "b.wav", 0.3)
    write_noise(tmp_path / "audio" / "a.flac", 0.5)
    (tmp_path / "audio" / "bad.wav").write_text("no audio")
    (tmp_path / "silent").mkdir()
    names = [str(tmp_path / name) for name in ("audio", "silent", "none.wav")] + ["-"]
    found, problems = find_recordings(names)
    assert [(recording.place.as_posix(), recording.duration) for recording in found] == [("a", 0.5), ("deep/b", 0.3)]
    assert [Path(name).name for name, _ in problems] == ["bad.wav", "silent", "none.wav", "-"]
    assert [word in str(error) for word, (_, error) in zip(("bad", "no audio", "none", "-"), problems, strict=True)]


def test_one_path_a_format(tmp_path):
    (found,) = recordings("talks/one.two.wav")
    assert output_paths([found], tmp_path, ["txt", "json"]) == {
        found: [tmp_path / "talks" / "one.two.txt", tmp_path / "talks" / "one.two.json"]
    }


def test_two_recordings_for_one_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="a.wav and a.flac would both be written to .*a.txt"):
        output_paths(recordings("a.wav", "a.flac"), tmp_path, ["txt"])
    (tmp_path / "one").mkdir()
    os.symlink(tmp_path / "one", tmp_path / "two")
    with pytest.raises(InputError, match="would both be written"):
        output_paths(recordings("one/a.wav", "two/a.wav"), tmp_path, ["txt"])


def test_a_file_named_twice_is_no_conflict(tmp_path):
    output_paths(recordings("a.wav") * 2, tmp_path, ["txt"])


@pytest.mark.parametrize("pair", [("A.wav", "a.flac"), ("Größe.wav", "GRÖSSE.wav"), ("é.wav", "e\u0301.wav")])
def test_names_that_the_file_system_takes_for_one(tmp_path, monkeypatch, pair):
    together = recordings(*pair)
    assert len(output_paths(together, tmp_path / "out", ["txt"])) == 2  # they are two on this one
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(module, "_is_one_file", lambda first, second: True)
    with pytest.raises(InputError, match="would both be written"):
        output_paths(together, tmp_path / "out", ["txt"])
