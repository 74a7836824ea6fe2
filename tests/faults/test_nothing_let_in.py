"""No pickle and no script of a folder runs, whatever reads the folder: each would leave a file behind."""

import shutil
from pathlib import Path

import pytest
import torch

from fastwhisper.cli.main import main

from ..recordings import save_checkpoint, write_noise
from ..sounds import write_speech_folder
from ..tiny_models import tiny_whisper

PICKLES = (
    "pytorch_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "adapter_model.bin",
)
TRAINING = (
    "--language en --decoder_layers 1 --per_device_train_batch_size 1 --save_strategy steps --save_steps 1 --use_cpu "
    "--logging_steps 1 --max_steps"
)
SCRIPT = """
import pathlib
import datasets
pathlib.Path({proof!r}).touch()
class Data(datasets.GeneratorBasedBuilder): pass
"""


class Mine:
    """Makes a file where it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


@pytest.fixture(scope="module")
def place(tmp_path_factory, demo_tokenizer):
    place = tmp_path_factory.mktemp("let_in")
    save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, place / "whisper")
    write_speech_folder(place / "speech", [0.5, 0.7], ["yes please", "good night"])
    write_noise(place / "a.wav", 1.0)
    words = (
        f"distill --teacher {place / 'whisper'} --dataset {place / 'speech'} --output_dir {place / 'run'} {TRAINING} 2"
    )
    assert main(words.split()) == 0
    return place


@pytest.fixture
def proof(tmp_path):
    return tmp_path / "proof"


def write_pickle(path, proof):
    torch.save({"state": Mine(proof)}, path)
    torch.load(path, weights_only=False)
    assert proof.exists()  # it is armed
    proof.unlink()


def commands(model, speech, audio, out):
    yield ["transcribe", audio, "--model", model]
    yield ["evaluate", "--model", model, "--dataset", speech, "--language", "en", "--output", out / "report.json"]
    yield ["label", "--model", model, "--dataset", speech, "--language", "en", "--output", out / "labels"]
    yield ["init", "--teacher", model, "--decoder_layers", 1, "--output", out / "student"]
    yield ["slm", "init", "--encoder", model, "--language_model", model, "--output", out / "slm"]
    yield ["distill", "--teacher", model, "--dataset", speech, "--output_dir", out / "run", *TRAINING.split(), 1]
    yield ["card", model]
    yield ["push", model, "tester/student"]


@pytest.mark.parametrize("weights", ["whole", "gone"])
def test_no_pickle_of_a_model_folder_runs(weights, place, tmp_path, proof, capsys):
    folder = shutil.copytree(place / "whisper", tmp_path / "whisper")
    for name in PICKLES:
        write_pickle(folder / name, proof)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}')
    if weights == "gone":
        (folder / "model.safetensors").unlink()
    for words in commands(folder, place / "speech", place / "a.wav", tmp_path):
        code = main([str(word) for word in words])
        assert code in (0, 2) and not proof.exists(), words
        assert weights == "whole" or code == 2 or words[0] == "card", words
        assert capsys.readouterr().err.count("only if you trust") == 0


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "all weights"])
@pytest.mark.parametrize("asked", ["last", "by its path"])
def test_no_pickle_of_a_checkpoint_runs(name, asked, place, tmp_path, proof, capsys):
    run = shutil.copytree(place / "run", tmp_path / "run")
    checkpoint = run / "checkpoint-2"
    if name == "all weights":
        (checkpoint / "model.safetensors").unlink()
        name = "pytorch_model.bin"
    write_pickle(checkpoint / name, proof)
    words = f"distill --teacher {place / 'whisper'} --dataset {place / 'speech'} --output_dir {run} {TRAINING} 3"
    capsys.readouterr()
    code = main([*words.split(), "--resume_from_checkpoint", "last" if asked == "last" else str(checkpoint)])
    said = capsys.readouterr().err
    assert not proof.exists()
    # A checkpoint without safetensors is not whole, and the settings of the run are never read.
    harmless = name == "training_args.bin" or (name == "pytorch_model.bin" and asked == "last")
    assert code == (0 if harmless else 2), said
    if code:
        assert "fastwhisper distill: error: " in said.splitlines()[-1]


@pytest.mark.parametrize("kind", ["beside a table", "beside data", "alone", "named after a split"])
def test_no_script_of_a_data_folder_runs(kind, place, tmp_path, proof, capsys):
    folder = tmp_path / "data"
    if kind == "beside a table":
        shutil.copytree(place / "speech", folder)
    else:
        folder.mkdir()
    if kind == "beside data":
        (folder / "train.csv").write_text("audio,text\na.wav,hello\n")
    for name in ("data.py", "train.py", "dataset.py") if kind == "named after a split" else ("data.py",):
        (folder / name).write_text(SCRIPT.format(proof=str(proof)))
    for words in commands(place / "whisper", folder, place / "a.wav", tmp_path):
        if "--dataset" in words:
            code = main([str(word) for word in words])
            assert code == (0 if kind == "beside a table" else 2), (words, capsys.readouterr().err)
            assert not proof.exists(), words
