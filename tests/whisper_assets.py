"""Whisper tokenizers with exact ids, built offline from the rank tables in the openai-whisper wheel (MIT)."""

import base64
import json
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken
from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIALS = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]


def whisper_assets() -> Path:
    """Folder of the rank tables; skips the test where openai-whisper is not installed."""
    whisper = pytest.importorskip("whisper", reason="needs openai-whisper: pip install fastwhisper[test]")
    return Path(whisper.__file__).parent / "assets"


def english_spelling_map() -> dict[str, str]:
    return json.loads((whisper_assets().parent / "normalizers" / "english.json").read_text())


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The byte pair that each multi-byte token was merged from: BPE with the ranks below its own."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
            best = min(range(len(pairs)), key=pairs.__getitem__)
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


@cache
def whisper_tokenizer(name: str = "multilingual", languages: int = 99) -> WhisperTokenizer:
    """`multilingual` with 99 (51,865 ids) or 100 languages (51,866 ids), or `gpt2` for the English models (51,864)."""
    from whisper.tokenizer import LANGUAGES

    rows = (line.split() for line in (whisper_assets() / f"{name}.tiktoken").read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
    letters = bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    codes = [f"<|{code}|>" for code in list(LANGUAGES)[:languages]]
    specials = ["<|endoftext|>", "<|startoftranscript|>", *codes, *(f"<|{special}|>" for special in SPECIALS)]
    tokenizer = WhisperTokenizer(
        vocab={text(token): rank for token, rank in ranks.items()},
        merges=[(text(left), text(right)) for left, right in _merges(ranks)],
        pad_token="<|endoftext|>",
        extra_special_tokens=specials,
    )
    stamps = (f"<|{i * 0.02:.2f}|>" for i in range(1501))
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    tokenizer.set_prefix_tokens()
    return tokenizer


def whisper_processor(seconds: int = 30, mel_bins: int = 80) -> WhisperProcessor:
    """The multilingual processor, its window `seconds` long: a fresh copy, safe to change."""
    import copy

    extractor = WhisperFeatureExtractor(feature_size=mel_bins, chunk_length=seconds)
    return WhisperProcessor(extractor, copy.deepcopy(whisper_tokenizer()))
