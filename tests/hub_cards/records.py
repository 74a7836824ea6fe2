"""What a training and an evaluation record in a folder, and what must never stand in a card."""

import json
from pathlib import Path
from typing import Any

STUDENT_RUN = {
    "askd": {"teacher_weight": 0.8, "schedule": "linear", "self_teacher": "snapshot", "ema_decay": 0.999},
    "training": {"steps": 600, "learning_rate": 1e-4, "seconds": None},
    "teacher": {"name": "openai/whisper-tiny", "parameters": 37_760_640, "license": "apache-2.0"},
    "datasets": ["openslr/librispeech_asr", "my recordings"],
    "language": "English",
    "limits": ["A limit of this model."],
}
SLM_RUN = {
    "training": {"steps": 600, "learning_rate": 1e-4, "precision": "bf16", "seconds": None},
    "datasets": ["openslr/librispeech_asr", "my recordings"],
    "language": "English",
    "license": "apache-2.0",
    "tags": ["asr"],
    "limits": ["A limit of this model."],
}
STUDENT = {"name": "student", "role": "student", "parameters": 85952, "wer": 0.0312, "cer": None, "words": 200}
TEACHER = {"name": "openai/whisper-tiny", "role": "teacher", "parameters": 37760640, "wer": 0.0412, "words": 200}
SLM = {"name": "slm", "role": "model", "parameters": 100_000, "wer": 0.0312, "cer": 0.01, "words": 200}
EVALUATION = {
    "command": "fastwhisper evaluate --model /home/somebody/student --against openai/whisper-tiny",
    "seed": 7,
    "versions": {"torch": "2.13.0"},
    "hardware": {"processor": "Some CPU", "cores": 2, "threads": 1, "device": "cpu", "memory_bytes": None},
    "settings": {"num_beams": 1},
    "dataset": {
        "name": "openslr/librispeech_asr",
        "config": "clean",
        "split": "test",
        "rows": 100,
        "audio_seconds": 600.0,
        "language": "en",
    },
    "models": [{**STUDENT, "real_time_factor": 0.05}, {**TEACHER, "real_time_factor": 0.111}],
    "speed_ratio": 2.22,
}
SLM_EVALUATION = {**EVALUATION, "models": [SLM], "speed_ratio": None}
PLACEHOLDERS = ["None", "{{", "}}", "{%", "TODO", "Undefined", "nan", "unknown", "More Information Needed", "null"]


def record(folder: Path, run: dict[str, Any] | None = None, evaluation: dict[str, Any] | None = None) -> None:
    for name, content in (("training_run.json", run), ("evaluation.json", evaluation)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))


def leaves(record: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all that a record holds, down to what is no dictionary."""
    if isinstance(record, dict):
        return [leaf for key, value in record.items() for leaf in leaves(value, (*path, key))]
    return [path]
