"""Files that are whole or not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import PartialState

from fastwhisper.errors import InputError
from fastwhisper.files import held_folder, move_files, put_in_place, write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "Größe\n")
    write_whole(path, "今日\n")
    assert path.read_bytes() == "今日\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    write_text = Path.write_text

    def full(self, text, **options):
        write_text(self, text[:1], **options)
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_file_may_have(tmp_path):
    path = tmp_path / ("a" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".txt")
    write_whole(path, "text")
    assert path.read_text() == "text"


HOLDER = """
import sys, time
from pathlib import Path
from accelerate import PartialState
from fastwhisper.files import held_folder
with held_folder(Path(sys.argv[1]), PartialState(cpu=True)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_run_and_a_dead_one_lets_go(tmp_path):
    folder = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another run writes into .*out"), held_folder(folder, PartialState()):
            raise AssertionError
        holder.kill()
        holder.wait()
    with held_folder(folder, PartialState()):
        pass
    assert list(folder.iterdir()) == []


def test_a_folder_that_was_made_to_be_held_goes_when_nothing_came_into_it(tmp_path):
    with pytest.raises(InputError), held_folder(tmp_path / "out", PartialState()):
        raise InputError("refused")
    assert not (tmp_path / "out").exists()
    with held_folder(tmp_path / "out", PartialState()):
        (tmp_path / "out" / "file").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_in_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="file/out cannot be written in: Not a directory"),
        held_folder(tmp_path / "file" / "out", PartialState()),
    ):
        raise AssertionError


def test_a_folder_takes_another_ones_place(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]


def test_files_move_one_by_one_the_named_one_last(tmp_path, monkeypatch):
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda path, place: (moved.append(place.name), replace(path, place)))
    (tmp_path / "from").mkdir()
    for name in ("a", "config.json", "z"):
        (tmp_path / "from" / name).touch()
    (tmp_path / "to").mkdir()
    move_files(tmp_path / "from", tmp_path / "to", last="config.json")
    assert sorted(moved) == ["a", "config.json", "z"] and moved[-1] == "config.json"
