import csv
import json

import pytest

from benchmarks.askd.config import load_config

from ..recordings import save_checkpoint, write_only_words
from ..sounds import write_tone
from ..tiny_models import tiny_whisper

TEXTS = ("YES PLEASE", "GOOD NIGHT", "I'M HERE", "OPEN THE DOOR")


def write_rows(folder, speakers, seconds=(0.4, 0.7, 1.2)):
    """A folder of tones: for every speaker, who is a name and a group, a row of each length."""
    folder.mkdir(parents=True)
    with (folder / "metadata.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["file_name", "text", "speaker", "group"])
        for number, (speaker, group) in enumerate(speakers):
            for index, length in enumerate(seconds):
                name = f"{speaker}-{index}.wav"
                write_tone(folder / name, length, frequency=200 + 30 * number + 7 * index)
                table.writerow([name, TEXTS[(number + index) % len(TEXTS)], speaker, group])


@pytest.fixture(scope="session")
def askd_places(tmp_path_factory, demo_tokenizer):
    """A folder with a tiny teacher, and one with speech of six speakers, a test set and noise."""
    root = tmp_path_factory.mktemp("askd")
    teacher = tiny_whisper(demo_tokenizer)
    write_only_words(teacher, demo_tokenizer)
    # Behind times, which real models do not write unasked, `generate` of the stock class goes on.
    first = demo_tokenizer.convert_tokens_to_ids("<|0.00|>")
    teacher.generation_config.suppress_tokens += range(first, len(demo_tokenizer))
    save_checkpoint(teacher, demo_tokenizer, root / "models" / "tiny")
    write_rows(root / "data" / "train", [(f"s{index}", "child" if index % 2 else "adult") for index in range(6)])
    write_rows(root / "data" / "test", [("t0", "adult"), ("t1", "child")])
    write_rows(root / "data" / "noise", [("n0", "adult")])
    return root


@pytest.fixture
def askd_settings():
    """The smallest experiment, as JSON has it."""
    return {
        "teachers": [{"name": "tiny", "language": "en"}],
        "train": {"data": "train", "casing": "sentence"},
        "dev": {"share": 0.3},
        "sets": {"test": {"data": "test", "casing": "sentence"}},
        "initial": {"decoder_layers": 2, "learning_rate": 1e-3, "batch_size": 4},
        "training": {"epochs": 1, "batch_size": 4, "dropout": 0.1, "log_lines": 3},
        "measuring": {
            "batch_size": 3, "most_tokens": 12, "silence_seconds": [0.5, 1.0], "noise": {"data": "noise"},
            "noise_windows": 1, "speed_clips": 2
        },
        "learning_rates": [1e-4, 1e-3],
        "seeds": [1, 2],
        "wer_filter": None,
        "ours": ["ASKD"],
        "rivals": ["CE"],
        "arms": {
            "CE": {"settings": {"teacher_weight": 0.0, "self_weight": 0.0}},
            "ASKD": {"settings": {"teacher_decay_end": 0.5}}
        },
        "tables": {"references": {}},
    }  # fmt: skip


@pytest.fixture
def askd_config(tmp_path):
    """`askd_config(settings)` is the config that these are read as."""

    def read(settings):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(settings))
        return load_config(path)

    return read
