"""Files that are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from fastwhisper.files import write_whole


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
