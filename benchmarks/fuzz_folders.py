"""Model folders with something wrong in them, given to every verb: what is said, and what passes in silence.

    python -m benchmarks.fuzz_folders --count 300

Each input is a whole folder with one change: a value of a JSON file swapped for one of another type, negative, huge or
gone, a file cut, emptied or removed, bytes of the header of the weights flipped, a weight dropped or cut. Right is
either one line on standard error with exit code 2, or what the whole folder gives.
"""

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fastwhisper.cli.main import main
from fastwhisper.demo.training import PACKAGED_TEACHER
from fastwhisper.hub_cards.export import complete_hub_folder
from fastwhisper.hub_cards.new_fastslm import write_new_fastslm

ODD_VALUES: list[Any] = [
    None,
    True,
    "",
    "x",
    "5",
    [],
    [1],
    ["x"],
    {},
    {"x": 1},
    1.5,
    -1,
    0,
    1,
    -(10**9),
    10**9,
    10**30,
]
ODD_TEXTS = ["", "[]", "null", '"x"', "{", "\x00\x01", "{}", '{"a": 1e999}']
SECONDS_PER_INPUT = 120


@dataclass(frozen=True)
class Outcome:
    """What the program did with one folder.

    Args:
        code (`int`, *optional*): exit code; `None` where an exception came through.
        out, error (`str`): what it wrote to standard output and standard error, the traceback among it.
        result (`str`, *optional*): what it made, for a verb whose result follows from the folder alone.
    """

    code: int | None
    out: str
    error: str
    result: str | None = None

    def is_one_line(self) -> bool:
        """Whether the program refused the folder as it should: in one line, with nothing on standard output."""
        lines = [line for line in self.error.splitlines() if line.strip()]
        return self.code == 2 and len(lines) >= 1 and lines[-1].startswith("fastwhisper ") and not self.out


@dataclass(frozen=True)
class FuzzedVerb:
    """A command line in which one folder is changed.

    Args:
        kind (`str`): which folder: `whisper`, `fastslm` or `language_model`.
        words (`Callable`): from the changed folder, the folder of good parts and an empty folder to the command line.
        result (`Callable`, *optional*): from standard output and the empty folder to what must not change in silence.
    """

    kind: str
    words: Callable[[Path, Path, Path], list[Any]]
    result: Callable[[str, Path], str] | None = None


def _labels(out: str, place: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted((place / "labels").glob("metadata.*")))


VERBS = {
    "transcribe": FuzzedVerb(
        "whisper", lambda at, good, new: ["transcribe", good / "a.wav", "--model", at], lambda out, _: out
    ),
    "transcribe with times": FuzzedVerb(
        "whisper",
        lambda at, good, new: ["transcribe", good / "a.wav", "--model", at, "--format", "srt"],
        lambda out, _: out,
    ),
    "init": FuzzedVerb(
        "whisper", lambda at, good, new: ["init", "--teacher", at, "--decoder_layers", 1, "--output", new / "student"]
    ),
    "label": FuzzedVerb(
        "whisper",
        lambda at, good, new: ["label", "--model", at, "--dataset", good / "speech", "--output", new / "labels"],
        _labels,
    ),
    "evaluate": FuzzedVerb(
        "whisper",
        lambda at, good, new: [
            *("evaluate", "--model", at, "--dataset", good / "speech", "--output", new / "report.json"),
        ],
    ),
    "distill": FuzzedVerb(
        "whisper",
        lambda at, good, new: [
            *("distill", "--teacher", at, "--dataset", good / "speech", "--output_dir", new / "out"),
            *("--decoder_layers", 1, "--max_steps", 1, "--use_cpu", "true", "--report_to", "none"),
            *("--per_device_train_batch_size", 2),
        ],
    ),
    "card": FuzzedVerb("whisper", lambda at, good, new: ["card", at]),
    "push": FuzzedVerb("whisper", lambda at, good, new: ["push", at, "tester/student"]),
    "slm transcribe": FuzzedVerb(
        "fastslm",
        lambda at, good, new: ["slm", "transcribe", good / "a.wav", "--model", at, "--max_new_tokens", 4],
        lambda out, _: out,
    ),
    "slm init, its encoder": FuzzedVerb(
        "whisper",
        lambda at, good, new: [
            *("slm", "init", "--encoder", at, "--language_model", good / "language_model", "--output", new / "slm"),
        ],
    ),
    "slm init, its language model": FuzzedVerb(
        "language_model",
        lambda at, good, new: [
            *("slm", "init", "--encoder", good / "whisper", "--language_model", at, "--output", new / "slm"),
        ],
    ),
    "card of a FastSLM": FuzzedVerb("fastslm", lambda at, good, new: ["card", at]),
    "convert-fastslm": FuzzedVerb(
        "fastslm", lambda at, good, new: ["convert-fastslm", at, new / "slm.safetensors", "--reverse"]
    ),
}


def fuzz_model_folders(count: int, seed: int = 0, verbs: list[str] | None = None) -> dict[str, Any]:
    """Give `count` broken folders to the verbs in turn.

    Args:
        count (`int`): Inputs.
        seed (`int`, *optional*, defaults to 0): Of the changes.
        verbs (`list[str]`, *optional*): Keys of `VERBS`; all by default.

    Returns:
        `dict`: `inputs`, their number; `refused`, those answered by one line; `tracebacks` and `wrong in silence`,
        lists of a line each that name the verb, the change and what came of it.
    """
    names = verbs or list(VERBS)
    generator = random.Random(seed)
    refused, tracebacks, silent = 0, [], []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        good = write_good_folders(Path(temporary) / "good")
        whole = {name: _run(VERBS[name], good / VERBS[name].kind, good) for name in names}
        for index in range(count):
            name = names[index % len(names)]
            place = Path(temporary) / f"input-{index}"
            folder = place / "model"
            shutil.copytree(good / VERBS[name].kind, folder)
            change = change_folder(folder, generator)
            outcome = _run(VERBS[name], folder, good)
            shutil.rmtree(place)
            said = " ".join(outcome.error.split())[-300:]
            if outcome.is_one_line():
                refused += 1
            elif outcome.code is None or outcome.code != whole[name].code:
                tracebacks.append(f"{name}: {change}: {said}")
            elif outcome.result != whole[name].result:
                silent.append(f"{name}: {change}: {outcome.result!r:.120}, whole {whole[name].result!r:.60}; {said}")
    return {"inputs": count, "refused": refused, "tracebacks": tracebacks, "wrong in silence": silent}


def write_good_folders(folder: Path) -> Path:
    """Write whole folders of each kind, and a little speech for the verbs that need some."""
    shutil.copytree(PACKAGED_TEACHER, folder / "whisper")
    complete_hub_folder(folder / "whisper")
    (folder / "whisper" / "training_run.json").write_text(json.dumps(RUN), encoding="utf-8")
    (folder / "whisper" / "evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(PACKAGED_TEACHER)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, max_position_embeddings=512)
    LlamaForCausalLM(config).save_pretrained(folder / "language_model")
    tokenizer.save_pretrained(folder / "language_model")
    write_new_fastslm(
        str(folder / "whisper"),
        str(folder / "language_model"),
        folder / "fastslm",
        num_queries=5,
        stage_queries=(8, 8, 8),
    )
    (folder / "speech").mkdir()
    rows = []
    for index, seconds in enumerate((0.5, 0.8)):
        samples = np.random.default_rng(index).standard_normal(round(16_000 * seconds)) * 0.05
        soundfile.write(folder / "speech" / f"{index}.wav", samples, 16_000)
        rows.append({"file_name": f"{index}.wav", "text": "turn on the lamp"})
    (folder / "speech" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copyfile(folder / "speech" / "1.wav", folder / "a.wav")
    return folder


RUN = {"teacher": {"name": "openai/whisper-tiny", "parameters": 100}, "askd": {"mode": "joint"}, "steps": 3}
MEASURED = {"name": "whisper", "wer": 0.1, "words": 20, "parameters": 100, "real_time_factor": 0.1}
EVALUATION: dict[str, Any] = {"dataset": {"name": "speech", "split": "test"}, "models": [MEASURED]}


def change_folder(folder: Path, generator: random.Random) -> str:
    """Make one change to one file of a folder; says which."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    # The configuration is what people edit by hand, and what says the most.
    weights = [6 if path.name == "config.json" else 3 if "config" in path.name else 2 for path in files]
    path = generator.choices(files, weights)[0]
    if generator.random() < 0.05:
        path.unlink()
        return f"{path.name} is gone"
    if path.suffix == ".safetensors":
        return f"{path.name} {_change_weights(path, generator)}"
    return f"{path.name} {_change_json(path, generator)}"


def _change_json(path: Path, generator: random.Random) -> str:
    text = path.read_text(encoding="utf-8")
    kind = generator.choices(["value", "gone", "cut", "text"], [6, 2, 1, 1])[0]
    if kind == "cut":
        end = generator.randrange(len(text))
        path.write_text(text[:end], encoding="utf-8")
        return f"is cut after {end} characters"
    if kind == "text":
        odd = generator.choice(ODD_TEXTS)
        path.write_text(odd, encoding="utf-8")
        return f"holds {odd!r}"
    content = json.loads(text)
    keys = generator.choice(list(_places(content)))
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    shown = ".".join(map(str, keys))
    if kind == "gone":
        del parent[keys[-1]]
        said = f"lacks {shown}"
    else:
        old = copy.deepcopy(parent[keys[-1]])
        numbers = isinstance(old, int | float) and not isinstance(old, bool)
        more = [old + 1, -old, old * 1000, old / 3] if numbers else []
        new = generator.choice([value for value in [*ODD_VALUES, *more] if value != old])
        parent[keys[-1]] = new
        said = f"has {shown} = {new!r:.40} instead of {old!r:.40}"
    path.write_text(json.dumps(content), encoding="utf-8")
    return said


def _places(content: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of values within JSON; of long lists and mappings, such as a vocabulary, the first few."""
    entries = list(content.items() if isinstance(content, dict) else enumerate(content))
    for key, value in entries[: 80 if not keys else 12]:
        yield (*keys, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*keys, key))


def _change_weights(path: Path, generator: random.Random) -> str:
    kind = generator.choice(["cut", "header", "length", "dropped", "smaller", "half the tail"])
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    if kind == "cut":
        end = generator.choice([0, 4, 8, generator.randrange(len(content)), len(content) - 1])
        path.write_bytes(content[:end])
        return f"is cut after {end} bytes"
    if kind in ("header", "length", "half the tail"):
        place = {
            "header": lambda: 8 + generator.randrange(header),
            "length": lambda: generator.randrange(8),
            "half the tail": lambda: 8 + header - 1 - generator.randrange(200),
        }[kind]()
        content[place] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        return f"has a bit flipped in byte {place}"
    weights = load_file(path)
    name = generator.choice(sorted(weights))
    if kind == "dropped":
        del weights[name]
    else:
        weights[name] = weights[name][: max(1, len(weights[name]) // 2)].clone()
    save_file(weights, path, metadata={"format": "pt"})
    return f"{'lacks' if kind == 'dropped' else 'has less of'} {name}"


def _run(verb: FuzzedVerb, folder: Path, good: Path) -> Outcome:
    out, error = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory(prefix="fuzz-new-") as new:
        words = [str(word) for word in verb.words(folder, good, Path(new))]
        code: int | None = None
        # What transformers logs goes to the standard error that it found first: that is no matter here.
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), _time_limit():
            try:
                code = main(words)
            except Exception:
                traceback.print_exc(file=error)
        result = verb.result(out.getvalue(), Path(new)) if verb.result and code == 0 else None
    return Outcome(code, out.getvalue(), error.getvalue(), None if result is None else result.replace(str(good), ""))


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer within {SECONDS_PER_INPUT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS_PER_INPUT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run() -> None:
    """Print a table of what came of the inputs, and the inputs that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=list(VERBS))
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    report = fuzz_model_folders(arguments.count, arguments.seed, arguments.verbs)
    for name in ("tracebacks", "wrong in silence"):
        print(f"{name}:", *report[name], sep="\n  ")
        by_verb = collections.Counter(line.partition(":")[0] for line in report[name])
        print(f"  {len(report[name])} in all: {dict(by_verb)}")
    print(f"{report['inputs']} inputs, {report['refused']} refused in one line")


if __name__ == "__main__":
    run()
