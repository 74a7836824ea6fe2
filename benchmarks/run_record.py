"""What every file of results says of its run."""

import sys
from typing import Any

import torch
import transformers

import fastwhisper
from fastwhisper.evaluation.measurement import hardware
from fastwhisper.evaluation.public_records import make_public


def run_record(settings: dict[str, Any], device: str = "cpu") -> dict[str, Any]:
    """The command, the settings, the hardware and the versions of a run, without paths of this machine."""
    record = {
        "command": " ".join(["python", *sys.argv]),
        "settings": settings,
        "hardware": hardware(torch.device(device)),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "fastwhisper": fastwhisper.__version__,
        },
    }
    return make_public(record)
