"""Whisper's tokenizer for checkpoints that come without one, from a list of its tokens.

The merges of a byte-level BPE follow from the order of its tokens: each was merged from the two longest parts that
earlier tokens give.
"""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken
from transformers import WhisperTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from ..errors import InputError
from ..model_folders import loading

# The vocabularies of openai, by their size: the table of ranks, and how many languages they have.
_OPENAI = {51864: ("gpt2", 99), 51865: ("multilingual", 99), 51866: ("multilingual", 100)}
_TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_END = "<|endoftext|>"
_TIMES = 1501  # 0.00 to 30.00 s


def load_tokenizer(name: str) -> WhisperTokenizer:
    """The tokenizer of a Whisper.

    Args:
        name (`str`): on the Hub or folder.

    Raises:
        InputError: if it cannot be loaded.
    """
    with loading(name, "the tokenizer"):
        return WhisperTokenizer.from_pretrained(name, pad_token=_END, trust_remote_code=False)


def openai_tokenizer(vocabulary: int) -> WhisperTokenizer:
    """The tokenizer of one of openai's vocabularies, from the table in the package openai-whisper.

    Args:
        vocabulary (`int`): its size.

    Raises:
        InputError: for a vocabulary that is not one of openai's, or without that package.
    """
    if vocabulary not in _OPENAI:
        raise InputError(f"no vocabulary of openai has {vocabulary} tokens: name a Whisper that has, with --tokenizer")
    package = find_spec("whisper")
    if package is None or package.origin is None:
        raise InputError(
            "the checkpoint has no tokenizer: name a Whisper that has, with --tokenizer, or pip install openai-whisper"
        )
    table, languages = _OPENAI[vocabulary]
    rows = (Path(package.origin).parent / "assets" / f"{table}.tiktoken").read_bytes().splitlines()
    ranks = sorted((int(rank), base64.b64decode(token)) for token, rank in (row.split() for row in rows if row))
    letters = bytes_to_unicode()
    tokens = ["".join(letters[byte] for byte in token) for _, token in ranks]
    codes = (f"<|{code}|>" for code in list(LANGUAGES)[:languages])
    return build_tokenizer([*tokens, _END, "<|startoftranscript|>", *codes, *(f"<|{task}|>" for task in _TASKS)])


def build_tokenizer(tokens: Sequence[str]) -> WhisperTokenizer:
    """A tokenizer from its tokens in order.

    Args:
        tokens (`Sequence[str]`): those of text in the letters that stand for bytes, the end of text, control tokens
            and, if it has them, times; otherwise times are added.

    Raises:
        InputError: if there is no end of text among them.
    """
    if _END not in tokens:
        raise InputError(f"the vocabulary has no {_END}: it is not that of a Whisper")
    end = list(tokens).index(_END)
    vocabulary = {token: rank for rank, token in enumerate(tokens[:end])}
    times = {f"<|{index * 0.02:.2f}|>" for index in range(_TIMES)}
    special = [token for token in tokens[end:] if token not in times]
    tokenizer = WhisperTokenizer(
        vocab=vocabulary, merges=_merges(vocabulary), pad_token=_END, extra_special_tokens=special
    )
    stamps = [token for token in tokens if token in times] or sorted(times, key=lambda token: float(token[2:-2]))
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    tokenizer.set_prefix_tokens()
    return tokenizer


def _merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pair that each token of several letters was merged from: BPE with the ranks before its own."""
    merges = []
    for token, rank in vocabulary.items():
        parts = list(token)
        while len(parts) > 2:
            ranks = [vocabulary.get(parts[place] + parts[place + 1], rank) for place in range(len(parts) - 1)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges
