"""Chats as the processor takes them: turns with a role, parts of text and audio, files that are there."""

import base64
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .waveforms import mono_samples

# Where transformers looks for the audio of a part.
_AUDIO_KEYS = ("audio", "path", "url", "base64")
_ADDRESSES = ("http://", "https://", "data:")


def checked_chats(conversation: Any) -> Any:
    """A chat, or a list of them, with samples of any array in the form that transformers takes.

    Raises:
        ValueError: for a chat without turns, a turn without a role, a part that is neither text nor audio, and a file
            that is not there, naming it.
    """
    if not isinstance(conversation, (list, tuple)) or not conversation:
        raise ValueError("the chat is empty: it must be a list of turns such as {'role': 'user', 'content': 'Hello'}")
    if isinstance(conversation[0], (list, tuple)):
        return [checked_chats(chat) for chat in conversation]
    return [_checked_turn(turn) for turn in conversation]


def _check_audio_file(name: str) -> None:
    """Check that a string which stands for audio is an address, the path of a file that is there, or base64.

    Raises:
        ValueError: if it is none of these; it names the file.
    """
    if name.startswith(_ADDRESSES) or os.path.isfile(name) or _is_base64(name):
        return
    raise ValueError(f"there is no audio file {name!r}")


def _is_base64(text: str) -> bool:
    try:
        # Shorter than any header: the names of files are often base64, too.
        return len(base64.b64decode(text, validate=True)) >= 32
    except ValueError:
        return False


def _checked_turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping) or "role" not in turn:
        raise ValueError(f"a turn of a chat needs a role and a content, this one is {turn!r:.60}")
    content = turn.get("content")
    if content is None or isinstance(content, str):
        return turn
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"the content of a turn is a text or a list of parts, not {content!r:.60}")
    return {**turn, "content": [_checked_part(part) for part in content]}


def _checked_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "audio") or (kind == "text" and not isinstance(part.get("text"), str)):
        raise ValueError(
            "a part of a turn is {'type': 'text', 'text': ...} or {'type': 'audio', 'audio': ...}, "
            f"this one is {part!r:.60}"
        )
    return {name: _checked_audio(value) if name in _AUDIO_KEYS else value for name, value in part.items()}


def _checked_audio(audio: Any) -> Any:
    if isinstance(audio, str):
        _check_audio_file(audio)
        return audio
    if isinstance(audio, (np.ndarray, torch.Tensor, list, tuple)):
        return mono_samples(audio)
    raise ValueError(f"the audio of a part is the path of a file or samples, not {audio!r:.60}")


__all__ = ["checked_chats"]
