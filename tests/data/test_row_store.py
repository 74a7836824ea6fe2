"""The store of the caches: what is read is what was written, or nothing, whatever became of the files."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastwhisper.data.row_store import RowStore, content_key, readable_size
from fastwhisper.errors import InputError

ROOT = Path(__file__).parents[2]
KEY = content_key("one")
# Writes the same 20 keys over and over, each with tensors that depend on the key alone.
WRITER = """
import sys, torch
from fastwhisper.data.row_store import RowStore, content_key, readable_size
torch.set_num_threads(1)
store = RowStore(sys.argv[1])
print("begun", flush=True)
for turn in range(int(sys.argv[2])):
    for number in range(20):
        store.put(content_key(str(number)), {"states": torch.full((int(sys.argv[3]), 8), float(number))})
"""


def writer(folder, turns, rows):
    command = [sys.executable, "-c", WRITER, str(folder), str(turns), str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def entry(folder):
    (path,) = folder.glob("*/*.safetensors")
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_written_is_read_by_anyone(tmp_path, dtype):
    tensors = {"states": torch.randn(3, 4).to(dtype), "none": torch.zeros(0, 4, dtype=dtype), "n": torch.tensor(7)}
    store = RowStore(tmp_path / "a" / "b")
    assert store.get(KEY) is None and KEY not in store
    store.put(KEY, {**tensors, "states": tensors["states"].T.contiguous().T})  # strided

    for reader in (store, RowStore(tmp_path / "a" / "b")):
        read = reader.get(KEY)
        assert KEY in reader and read.keys() == tensors.keys() and reader.damaged == 0
        assert all(
            read[name].dtype == tensor.dtype and torch.equal(read[name], tensor) for name, tensor in tensors.items()
        )
    path = entry(tmp_path / "a" / "b")
    assert path.parent.name == KEY[:2] and torch.equal(load_file(path)["states"], tensors["states"])
    assert store.size() == (1, path.stat().st_size)


def test_a_second_put_replaces_the_first(tmp_path):
    store = RowStore(tmp_path)
    store.put(KEY, {"states": torch.zeros(2)})
    store.put(KEY, {"other": torch.ones(3)})
    assert list(store.get(KEY)) == ["other"] and store.size()[0] == 1


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_torn_entry_is_none_and_is_replaced(tmp_path, part):
    store = RowStore(tmp_path)
    store.put(KEY, {"states": torch.randn(50, 8)})
    whole = entry(tmp_path).read_bytes()
    entry(tmp_path).write_bytes(whole[: int(part * len(whole))])
    assert store.get(KEY) is None and store.damaged == 1
    store.put(KEY, {"states": torch.ones(2)})
    assert torch.equal(store.get(KEY)["states"], torch.ones(2)) and store.damaged == 1


def test_no_bit_can_flip_unseen(tmp_path):
    """Every byte of a small entry, header and all: what is read is what was written, or nothing."""
    store = RowStore(tmp_path)
    states = torch.randn(2, 3)
    store.put(KEY, {"states": states})
    whole = entry(tmp_path).read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        entry(tmp_path).write_bytes(flipped)
        read = store.get(KEY)
        assert read is None or (list(read) == ["states"] and torch.equal(read["states"], states)), place
    assert store.damaged >= states.numel() * 4 + 40


def test_an_entry_under_another_key_is_none(tmp_path):
    store = RowStore(tmp_path)
    store.put(KEY, {"states": torch.ones(2)})
    other = content_key("two")
    (tmp_path / other[:2]).mkdir(exist_ok=True)
    entry(tmp_path).rename(tmp_path / other[:2] / f"{other}.safetensors")
    assert store.get(other) is None and store.damaged == 1


def test_two_processes_write_the_same_keys_at_once(tmp_path):
    writers = [writer(tmp_path, 30, 64) for _ in range(2)]
    store, seen = RowStore(tmp_path), 0
    while any(process.poll() is None for process in writers):
        for number in range(20):
            read = store.get(content_key(str(number)))
            if read is not None:
                seen += 1
                assert torch.equal(read["states"], torch.full((64, 8), float(number)))
    assert [process.wait() for process in writers] == [0, 0]
    for process in writers:
        process.stdout.close()
    assert seen and store.damaged == 0 and store.size()[0] == 20
    assert sorted(path.name[-12:] for path in tmp_path.rglob("*") if path.is_file()) == [".safetensors"[-12:]] * 20


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_writer_leaves_no_half_entry(tmp_path):
    """Entries of 16 MB, so that the kill comes while one is written."""
    for delay in (0.0, 0.03, 0.07):
        process = writer(tmp_path, 1000, 2**19)
        assert process.stdout.readline() == "begun\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = RowStore(tmp_path)
    for number in range(20):
        read = store.get(content_key(str(number)))
        assert read is None or bool((read["states"] == number).all())
    assert store.damaged == 0


def test_what_a_killed_writer_left_goes_when_it_is_old_and_other_files_stay(tmp_path):
    store = RowStore(tmp_path)
    store.put(KEY, {"states": torch.ones(2)})
    size = store.size()
    strays = [
        tmp_path / "README.md",
        tmp_path / "ab" / "notes.txt",
        tmp_path / "abc.safetensors",
        tmp_path / ".hidden",
    ]
    old, young = (tmp_path / KEY[:2] / f".{name}.partial" for name in ("old", "young"))
    (tmp_path / "ab").mkdir(exist_ok=True)
    for path in (*strays, old, young):
        path.write_bytes(b"x" * 99)
    os.utime(old, (time.time() - 7200,) * 2)

    store = RowStore(tmp_path)
    assert not old.exists() and young.exists() and all(path.exists() for path in strays)
    assert store.size() == size and torch.equal(store.get(KEY)["states"], torch.ones(2)) and store.damaged == 0


def test_a_folder_that_cannot_be_written_in_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(InputError, match="cannot be written in: .*; choose another folder"):
            RowStore(folder)

    def read_only(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(InputError, match="cache .*cannot be written in: Permission denied"):
        RowStore(tmp_path / "cache")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    store = RowStore(tmp_path)
    write_bytes = Path.write_bytes

    def full(path, content):
        write_bytes(path, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device; make room"):
        store.put(KEY, {"states": torch.ones(2)})
    assert store.get(KEY) is None and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_keys_know_where_a_part_ends():
    assert content_key("ab", "c") != content_key("a", "bc") != content_key("abc")
    assert content_key("a", b"b") == content_key(b"a", "b") and len(content_key("a")) == 40


def test_sizes_in_words():
    assert [readable_size(size) for size in (0, 7344, 1_250_000, 3_400_000_000)] == [
        "0.0 kB",
        "7.3 kB",
        "1.2 MB",
        "3.4 GB",
    ]
