"""Broken audio, metadata, texts and recipes, drawn by hypothesis: what is said, what is left behind, what is wrong.

    python -m benchmarks.fuzz --count 1000 --seed 0

Right is an `InputError`, or a result that agrees with what the input says by other means. Counted are inputs, errors
of other types (tracebacks), files that are left half written, and results that are wrong without a word.
"""

import argparse
import contextlib
import csv
import importlib.util
import io
import json
import math
import os
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fastwhisper.cli import distill, evaluate, label, transcribe
from fastwhisper.data.audio import audio_duration, check_audio, decoded_duration, load_audio
from fastwhisper.data.filtering import usable_rows
from fastwhisper.data.label_encoding import LabelEncoder
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.row_checks import RowCheck
from fastwhisper.data.timestamps import has_timestamps, without_prompt
from fastwhisper.demo.training import PACKAGED_TEACHER
from fastwhisper.errors import InputError
from fastwhisper.evaluation.metrics import character_error_rate, word_error_rate
from fastwhisper.evaluation.normalizers import text_normalizer
from fastwhisper.trainers.askd_arguments import ASKDTrainingArguments
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.subtitles import WRITERS
from fastwhisper.transcription.transcribe_files import transcribe_files
from fastwhisper.transcription.transcripts import Segment, Transcript

FORMATS = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "PCM_U8"), ("FLAC", "PCM_16")]
FORMATS += [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_24"), ("CAF", "PCM_32")]
# The model is asked about one audio of so many: it takes most of the time.
TRANSCRIBED_OF = 20
HEADER = 64


@dataclass
class Findings:
    """What a run of inputs brought to light.

    Args:
        inputs (`int`): that were tried.
        tracebacks (`list[str]`): of errors that are no `InputError`.
        half_files (`list[str]`): names of files left half written.
        wrong (`list[str]`): results that are wrong, and nothing says so.
    """

    inputs: int = 0
    tracebacks: list[str] = field(default_factory=list)
    half_files: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def tried(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a function returns; `None` where it refuses its input, or fails, which is kept."""
        said = io.StringIO()
        name = getattr(function, "__name__", type(function).__name__)
        try:
            with contextlib.redirect_stderr(said):
                return function(*arguments, **options)
        except InputError:
            return None
        except Exception:
            self.tracebacks.append(f"{name}: {traceback.format_exc(limit=-3)}")
            return None
        finally:
            # Callbacks of C libraries print theirs.
            if "Traceback" in said.getvalue():
                self.tracebacks.append(f"{name}: {said.getvalue()[-600:]}")

    def check(self, is_right: bool, what: str) -> None:
        if not is_right:
            self.wrong.append(what[:300])


@cache
def encoded_audio() -> list[bytes]:
    """A second of a tone in each format, mono and stereo, and a float WAV with samples that are no audio."""
    tone = (0.3 * np.sin(np.arange(8_000) / 10)).astype(np.float32)
    loud = tone.copy()
    loud[100] = 1e30
    found = []
    for samples in (tone, np.stack([tone, -tone], axis=1)):
        for format_, subtype in FORMATS:
            found.append(_encoded(samples, format_, subtype))
    return [*found, _encoded(loud, "WAV", "FLOAT")]


def _encoded(samples: np.ndarray, format_: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=format_, subtype=subtype)
    return file.getvalue()


@st.composite
def audio_bytes(draw: Any) -> bytes:
    """Random bytes, or an audio file whose header or body was changed, cut, repeated or grown."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(encoded_audio())))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, HEADER if draw(st.booleans()) else max(0, len(content) - 1)))
        change = draw(st.sampled_from(["bytes", "number", "cut", "repeat", "insert"]))
        if change == "bytes":
            new = draw(st.binary(min_size=1, max_size=4))
            content[place : place + len(new)] = new
        elif change == "number":
            number = draw(st.sampled_from([0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]))
            content[place : place + 4] = number.to_bytes(4, draw(st.sampled_from(["little", "big"])))
        elif change == "cut":
            del content[place:]
        elif change == "repeat":
            content[place:place] = content[: draw(st.integers(0, HEADER))]
        else:
            content[place:place] = draw(st.binary(max_size=40))
    return bytes(content)


def check_audio_bytes(content: bytes, place: Path, findings: Findings) -> None:
    """Read bytes as audio in every way; every so often, transcribe them."""
    findings.inputs += 1
    path = place / "a.wav"
    path.write_bytes(content)
    samples = findings.tried(load_audio, path)
    in_memory = findings.tried(load_audio, content)
    seconds = findings.tried(decoded_duration, path)
    for measure in (audio_duration, check_audio):
        findings.tried(measure, path)
    drop = findings.tried(RowCheck(), {"audio": {"path": str(path), "bytes": None}})
    findings.check((samples is None) == (in_memory is None), "a file is read, its bytes are not, or the reverse")
    if samples is not None:
        sound = samples.dtype == np.float32 and samples.ndim == 1 and samples.size > 0
        findings.check(sound and bool(np.isfinite(samples).all()), "samples that are no audio")
        findings.check(sound and float(np.abs(samples).max()) < 1e3, "samples far over full scale")
        expected = math.nan if seconds is None else seconds
        findings.check(abs(samples.size / 16_000 - expected) < 1e-3, f"{samples.size} samples of {expected} s")
        findings.check(np.array_equal(samples, in_memory), "a file and its bytes differ")
    findings.check(drop is not None or samples is not None, "a row passes that cannot be loaded")
    if findings.inputs % TRANSCRIBED_OF == 1:
        _check_transcribed(path, place / "texts", samples is not None, findings)
    path.unlink()


@cache
def _teacher() -> Any:
    return load_checkpoint(str(PACKAGED_TEACHER), "cpu")


def _check_transcribed(path: Path, output: Path, readable: bool, findings: Findings) -> None:
    def transcribed() -> list[Any]:
        return [result for _, result in transcribe_files([path], _teacher(), output=output, formats=["txt", "json"])]

    # By its header alone the audio may be longer than what is behind it.
    results = findings.tried(transcribed) or []
    written = sorted(file.name for file in output.iterdir()) if output.is_dir() else []
    texts = [result for result in results if isinstance(result, Transcript)]
    findings.check(readable or not texts, "a transcript of what cannot be read")
    findings.check(written == (["a.json", "a.txt"] if texts else []), f"{len(texts)} transcripts, and {written}")
    findings.half_files += [name for name in written if name.endswith(".partial")]
    for file in output.iterdir() if output.is_dir() else ():
        file.unlink()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SPOKEN = st.one_of(
    TEXTS,
    st.lists(
        st.sampled_from(
            ["one", "hundred", "million", "point", "double", "oh", "and", "a half", "$", "£1,000", "½", "3.5%", "1st"]
            + ["<|endoftext|>", "<|0.00|>", "<|1.20|>", "<|99.98|>", "<|startoftranscript|>", "<|en|>", "minus", "per"]
            + ["'s", "won't", "Mr.", "[noise]", "(laughs", "1" * 4_400, "٣", "²", "\u200b", "e\u0301", "Hello", "!?"]
        ),
        max_size=12,
    ).map(" ".join),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
COLUMNS = st.sampled_from(["text", "language", "split", "duration", "labels", "speaker", "timestamped_text", "audio"])


@st.composite
def tables(draw: Any) -> tuple[str, bytes]:
    """Name and content of a table for a folder with a.wav, b.wav and c.wav, whole or spoilt."""
    rows = [{"file_name": draw(st.sampled_from(["a.wav", "b.wav", "c.wav", "gone.wav", "..", "", "x" * 300]))}]
    rows += [{"file_name": f"{letter}.wav"} for letter in draw(st.lists(st.sampled_from("abc"), max_size=3))]
    columns = draw(st.lists(COLUMNS, max_size=3, unique=True))
    name = draw(st.sampled_from(["metadata.csv", "metadata.tsv", "metadata.jsonl"]))
    values = VALUES if name.endswith("jsonl") else SPOKEN
    for row in rows:
        row.update(
            {column: draw(SPOKEN if column == "text" and draw(st.booleans()) else values) for column in columns}
        )
    if name.endswith("jsonl"):
        text = "\n".join(map(json.dumps, rows))
    else:
        file = io.StringIO()
        delimiter = "\t" if name.endswith("tsv") else draw(st.sampled_from(",;"))
        writer = csv.DictWriter(file, ["file_name", *columns], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        text = file.getvalue()
    content = bytearray(text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(content)))
        new = draw(st.sampled_from([b"", b'"', b"\n", b",", b"\t", b"\0", b"\xff", b"{", b"[" * 2_000, b"9" * 5_000]))
        content[place : place + draw(st.integers(0, 3))] = new
    return name, bytes(content)


def check_table(table: tuple[str, bytes], place: Path, findings: Findings) -> None:
    """Load a folder with a table, and look for rows that are of use."""
    findings.inputs += 1
    name, content = table
    for letter in "abc":
        if not (place / f"{letter}.wav").exists():
            soundfile.write(place / f"{letter}.wav", np.zeros(8_000, np.float32), 16_000)
    (place / name).write_bytes(content)
    before = sorted(path.name for path in place.iterdir())
    for options in ({}, {"require_text": False}, {"split": "train"}, {"streaming": True, "require_text": False}):
        dataset = findings.tried(load_speech_dataset, place, **options)
        if dataset is not None:
            _check_rows(list(dataset), name, content, findings, whole=not options and "split" not in str(content))
            encoder = LabelEncoder(_teacher()[1].tokenizer)
            check = RowCheck(True, window=4.0, encoder=encoder, max_target_positions=64)
            findings.tried(lambda dataset=dataset, check=check: list(usable_rows(dataset, check).dataset))
    after = sorted(path.name for path in place.iterdir())
    findings.half_files += [left for left in after if left not in before]
    (place / name).unlink()


def _check_rows(rows: list[dict], name: str, content: bytes, findings: Findings, whole: bool) -> None:
    for row in rows:
        text = row.get("text")
        findings.check(text is None or isinstance(text, str), f"the text {text!r} of {name}")
        path = (row["audio"] or {}).get("path")
        findings.check(path is None or os.path.isabs(path), f"the path {path!r} of {name}")
    if whole and name.endswith("jsonl"):
        lines = (
            [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
            if _plain(content)
            else None
        )
        texts = None if lines is None else [line.get("text") for line in lines]
        if texts is not None and all(isinstance(text, str) for text in texts):
            findings.check([row.get("text") for row in rows] == texts, f"{len(rows)} rows of {len(texts)} in {name}")


def _plain(content: bytes) -> bool:
    # Python's lines end at more characters than those of JSON Lines.
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return text.isascii()


def check_text(text: str, place: Path, findings: Findings) -> None:
    """Normalise, measure, encode and write a text."""
    findings.inputs += 1
    tokenizer = _teacher()[1].tokenizer
    for language in ("en", "fr", "zh", None):
        normalize = text_normalizer(language)
        normal = findings.tried(lambda normalize=normalize: normalize(text))
        if normal is not None:
            for rate in (word_error_rate, character_error_rate):
                findings.check(findings.tried(rate, [normal], [normal]) == 0, f"{text!r} is not itself")
    ids = findings.tried(lambda: LabelEncoder(tokenizer).tokens({"text": text}))
    if ids is not None:
        words = ids[len(LabelEncoder(tokenizer).start_tokens(None, False)) : -1]
        special = [token for token in words if token in tokenizer.all_special_ids]
        findings.check(not special, f"{text!r} has control tokens {special}")
        plain = not has_timestamps(text) and without_prompt(text) == text
        said = tokenizer.decode(words, clean_up_tokenization_spaces=False).removeprefix(" ")
        findings.check(not plain or said == text.removeprefix(" "), f"{text!r} is encoded as {said!r}")
    transcript = Transcript(text, 1.0, [Segment(text, 0.0, 1.0)])
    for kind, write in WRITERS.items():
        written = findings.tried(write, "a.wav", transcript)
        if kind == "json" and written is not None:
            findings.check(json.loads(written)["text"] == text, f"{text!r} is not in its JSON")
        if kind == "srt" and written is not None:
            findings.check(written.count("-->") <= 1, f"{text!r} makes cues of its own")


VERBS = [transcribe.VERB, label.VERB, evaluate.VERB, distill._verb(ASKDTrainingArguments)]
FLAGS = sorted({name for verb in VERBS for group in verb.groups for name in group.__dataclass_fields__})


@st.composite
def recipes(draw: Any) -> bytes:
    """YAML of flags with values of any type, or bytes that are hardly YAML."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.one_of(st.binary(max_size=80), TEXTS.map(str.encode), st.just(b"[" * 2_000)))
    keys = st.one_of(st.sampled_from(FLAGS), st.sampled_from(["files", "config", "help"]), TEXTS, st.integers())
    recipe = draw(st.dictionaries(keys, VALUES, max_size=4))
    if draw(st.booleans()):
        recipe |= {"model": "m", "dataset": "d", "output": "o", "teacher": "t", "output_dir": "o"}
    lines = [f"{key}: {json.dumps(value, allow_nan=True)}" for key, value in recipe.items()]
    return "\n".join(lines).encode()


def check_recipe(content: bytes, place: Path, findings: Findings) -> None:
    """Parse a recipe for every verb; nothing runs."""
    findings.inputs += 1
    path = place / "recipe.yaml"
    path.write_bytes(content)
    for verb in VERBS:
        findings.tried(verb.parse, ["--config", str(path)])
    path.unlink()
    findings.half_files += [left.name for left in place.iterdir()]


SUBJECTS: dict[str, tuple[st.SearchStrategy, Callable[[Any, Path, Findings], None]]] = {
    "audio": (audio_bytes(), check_audio_bytes),
    "metadata": (tables(), check_table),
    "texts": (SPOKEN, check_text),
    "recipes": (recipes(), check_recipe),
}


def fuzz(subject: str, count: int, start: int | None = None) -> Findings:
    """Try `count` inputs of a subject; the same ones each time, and others for each `start`."""
    strategy, check = SUBJECTS[subject]
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:

        def tried(content: Any) -> None:
            check(content, Path(folder), findings)

        quiet = settings(
            max_examples=count,
            derandomize=start is None,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        drawn = quiet(given(strategy)(tried))
        (drawn if start is None else seed(start)(drawn))()
    return findings


def run_fuzz(count: int, seed: int = 0) -> dict[str, Any]:
    """Try `count` inputs in all, and a tenth as many broken model folders; the same for the same seed.

    Returns:
        `dict`: `inputs`, `tracebacks`, `half_files` and `wrong_in_silence` as counts, and what they were in `details`.
    """
    total = Findings()
    for subject in SUBJECTS:
        found = fuzz(subject, -(-count // len(SUBJECTS)), seed)
        total.inputs += found.inputs
        for name in ("tracebacks", "half_files", "wrong"):
            getattr(total, name).extend(f"{subject}: {what}" for what in getattr(found, name))
    if importlib.util.find_spec("benchmarks.fuzz_folders"):
        from benchmarks.fuzz_folders import fuzz_model_folders

        folders = fuzz_model_folders(max(1, count // 10), seed)
        total.inputs += folders["inputs"]
        total.tracebacks += folders["tracebacks"]
        total.wrong += folders["wrong in silence"]
    result: dict[str, Any] = {
        "inputs": total.inputs,
        "tracebacks": len(total.tracebacks),
        "half_files": len(total.half_files),
        "wrong_in_silence": len(total.wrong),
        "details": {"tracebacks": total.tracebacks, "half_files": total.half_files, "wrong": total.wrong},
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(run_fuzz(arguments.count, arguments.seed), indent=2))


if __name__ == "__main__":
    main()
