"""Loads a FastSLM by every AutoClass, saves it again, twice, and prints what it answers; needs this package nowhere.

python tests/modeling/fastslm_reader.py FOLDER
"""

import json
import os
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor


def look_at(folder: str, next_folder: str) -> dict:
    """What the folder's model answers; what was loaded is saved into the next folder."""
    said: dict = {"saved": sorted(os.listdir(folder))}
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    request = processor.apply_transcription_request(np.sin(np.arange(40_000) * 0.05).astype(np.float32))
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        model = auto.from_pretrained(folder, trust_remote_code=True)
        assert model.lm_head.weight is model.get_input_embeddings().weight or not model.config.tie_word_embeddings
        said[auto.__name__] = model.generate(**request, max_new_tokens=5)[0].tolist()
    body = AutoModel.from_pretrained(folder, trust_remote_code=True)
    said["AutoModel"] = [type(body).__name__, float(body(**request).last_hidden_state.detach().abs().sum())]
    said["classes"] = [type(part).__module__.split(".")[0] for part in (model, model.config, processor)]
    said["AutoConfig"] = AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type
    for part in (model, processor):
        part.save_pretrained(next_folder)
    return said


def main(folder: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        again, twice, thrice = (os.path.join(place, name) for name in ("again", "twice", "thrice"))
        steps = {"checkpoint": (folder, again), "again": (again, twice), "twice": (twice, thrice)}
        answers = {name: look_at(*folders) for name, folders in steps.items()}
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
