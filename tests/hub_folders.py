"""Saved students, and fresh interpreters that load them without this package."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.hub_cards.export import export_folder

from .tiny_models import tiny_whisper

WITHOUT_PACKAGE = "import sys; sys.modules['fastwhisper'] = None\n"
# Begins a script without this package that loads Whispers of the demo's vocabulary and a window of 2 s.
LOOK = (
    WITHOUT_PACKAGE
    + """
import json, torch
from transformers import AutoModelForSpeechSeq2Seq

torch.set_num_threads(1)

def look(folder, load=AutoModelForSpeechSeq2Seq, **options):
    model = load.from_pretrained(folder, **options)
    logits = model(torch.ones(1, 80, 200), decoder_input_ids=torch.tensor([[641, 642, 648]])).logits
    return model, [type(model).__name__, type(model).__module__.split(".")[0], logits[0, -1, :8].tolist()]
"""
)


def demo_processor(tokenizer: WhisperTokenizer, seconds: int = 2) -> WhisperProcessor:
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=seconds), tokenizer)


def tiny_student(tokenizer: WhisperTokenizer, decoder_layers: int = 2) -> FastWhisperForConditionalGeneration:
    return FastWhisperForConditionalGeneration.from_teacher(tiny_whisper(tokenizer), decoder_layers=decoder_layers)


def save_student(folder: Path, tokenizer: WhisperTokenizer) -> Path:
    """A complete folder of a random student with 2 decoder layers, but for its card."""
    return export_folder(tiny_student(tokenizer), demo_processor(tokenizer), folder)


def run_python(
    script: str, folder: Path, *arguments: object, executable: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess:
    """Run a script in a fresh isolated interpreter, with `folder` as its working folder and its cache in there."""
    settings = {
        "PATH": os.environ["PATH"],
        "HF_HOME": str(folder / "hf_home"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **environment,
    }
    command = [executable, "-I", "-c", script, *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=300)


def python_answer(script: str, folder: Path, *arguments: object, **environment: Any) -> Any:
    """What the last line that a script printed says, read as JSON; fails with the script's own traceback."""
    done = run_python(script, folder, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
