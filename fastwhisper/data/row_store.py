"""A folder of tensors that were computed once for a row: a safetensors file for each, found by its key."""

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import InputError

_DIGEST = "digest"
_SUFFIX = ".safetensors"
_PARTIAL = ".partial"
# A file under a temporary name that is older than this belongs to a process that was killed.
_ABANDONED_SECONDS = 3600.0


class RowStore:
    r"""Tensors by key, in `folder/ab/abcd....safetensors`; any number of processes may read and write at once.

    An entry is written under a temporary name and renamed, and holds a digest of its key and tensors: one that is cut,
    changed or moved is not found, is counted, and is replaced by the next `put`. Other files in the folder are left
    alone.

    Args:
        folder (`Path`): made if it is not there.

    Attributes:
        damaged (`int`): entries that `get` of this process found damaged.

    Raises:
        InputError: if the folder cannot be made or written in.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.damaged = 0
        probe = self.folder / f".{uuid.uuid4().hex}{_PARTIAL}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._not_written(error) from error
        self._remove_abandoned()

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry; only `get` says whether it is whole."""
        return self._path(key).is_file()

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors of an entry, on the CPU; `None` if there is none, or it is damaged."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError):
            self.damaged += 1
            return None
        if metadata.get(_DIGEST) != _digest(key, tensors):
            self.damaged += 1
            return None
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write an entry, or replace it.

        Raises:
            InputError: if the disk does not take it.
        """
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(held, metadata={_DIGEST: _digest(key, held)})
        path = self._path(key)
        partial = path.with_name(f".{uuid.uuid4().hex}{_PARTIAL}")
        try:
            path.parent.mkdir(exist_ok=True)
            try:
                partial.write_bytes(content)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise self._not_written(error) from error

    def size(self) -> tuple[int, int]:
        """Entries and bytes in the folder, of all that ever wrote into it."""
        entries = total = 0
        for path in self.folder.glob(f"??/*{_SUFFIX}"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # removed since it was listed
                continue
            entries += 1
        return entries, total

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _remove_abandoned(self) -> None:
        for partial in [*self.folder.glob(f".*{_PARTIAL}"), *self.folder.glob(f"??/.*{_PARTIAL}")]:
            try:
                if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                    partial.unlink()
            except FileNotFoundError:  # another process was first
                continue

    def _not_written(self, error: OSError) -> InputError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = "make room" if full else "choose another folder"
        return InputError(f"the cache {self.folder} cannot be written in: {error.strerror}; {way_out}")


def content_key(*parts: bytes | str) -> str:
    """A key of parts, in which each part counts with its length: hexadecimal, 40 digits."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def readable_size(size: int) -> str:
    """For example `7.3 kB`, of bytes."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1000:.1f} kB"


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Type, shape and values of a tensor on any device."""
    held = tensor.detach().cpu().contiguous()
    return f"{held.dtype}{tuple(held.shape)}".encode() + held.flatten().view(torch.uint8).numpy().tobytes()


def _digest(key: str, tensors: Mapping[str, torch.Tensor]) -> str:
    parts = [part for name in sorted(tensors) for part in (name, tensor_bytes(tensors[name]))]
    return content_key(key, *parts)
