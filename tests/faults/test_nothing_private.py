"""No token, user, host or home is in anything that the verbs write or print."""

import json
import shutil

import pytest

from ..hub_folders import run_python
from ..recordings import save_checkpoint, write_noise
from ..sounds import write_speech_folder
from ..tiny_models import tiny_whisper

USER, HOST, TOKEN = "privateuserx", "privatehostx", "hf_fakeXYZ" + "a1B2" * 7
VERBS = """
import getpass, json, os, platform, socket, sys
socket.gethostname = platform.node = socket.getfqdn = lambda *name: "privatehostx"
real = os.uname
os.uname = lambda: os.uname_result((real()[0], "privatehostx", *real()[2:]))
assert getpass.getuser() == "privateuserx"
import torch
from fastwhisper.cli.main import main
torch.set_num_threads(1)
for words in json.loads(sys.argv[1]):
    code = main(words)
    assert code == 0, (code, words)
"""
TRAINING = (
    "--language en --decoder_layers 1 --per_device_train_batch_size 1 --save_strategy steps --save_steps 1 --use_cpu "
    "--logging_steps 1 --max_steps 1"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory, demo_tokenizer):
    """A home with a model and speech, in which every verb has run."""
    home = tmp_path_factory.mktemp("homes") / USER
    home.mkdir()
    save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, home / "whisper")
    write_speech_folder(home / "speech", [0.5, 0.7], ["yes please", "good night"])
    write_noise(home / "a.wav", 1.0)
    return home


def lines(student):
    yield "transcribe a.wav speech --model whisper --format json txt srt vtt --output out/texts"
    yield "label --model whisper --dataset speech --language en --output out/labels"
    yield f"distill --teacher whisper --dataset out/labels --output_dir {student} {TRAINING} --eval_dataset speech"
    yield f"distill --teacher whisper --dataset speech --output_dir out/lora --lora_rank 2 {TRAINING}"
    yield (
        f"evaluate --model {student} --against whisper --dataset speech --language en "
        f"--output {student}/evaluation.json --predictions out/rows.jsonl"
    )
    yield f"card {student} --overwrite"
    yield "init --teacher whisper --decoder_layers 1 --output out/new"


@pytest.mark.parametrize("paths", ["relative", "absolute"])
def test_nothing_private_is_written_or_printed(paths, home):
    words = [line.split() for line in lines("out/student")]
    if paths == "absolute":
        names = ("a.wav", "speech", "whisper")
        words = [
            [str(home / word) if word in names or word.startswith("out/") else word for word in line] for line in words
        ]
    shutil.rmtree(home / "out", ignore_errors=True)
    done = run_python(
        VERBS, home, json.dumps(words), LOGNAME=USER, USER=USER, HOME=str(home), HOSTNAME=HOST, HF_TOKEN=TOKEN
    )
    assert done.returncode == 0, done.stderr
    private = [secret.encode() for secret in (TOKEN, HOST, USER)]
    # A Trainer's pickle of its settings has the folders as they were given: it stays here and nothing reads it.
    local = {"training_args.bin"} if paths == "absolute" else set()
    written = [path for path in (home / "out").rglob("*") if path.name not in local]
    found = {
        (str(path.relative_to(home)), secret.decode())
        for path in written
        for secret in private
        if secret in bytes(path.relative_to(home)) or path.is_file() and secret in path.read_bytes()
    }
    assert found == set()
    # What is printed names files as they were given.
    for secret in private if paths == "relative" else private[:2]:
        assert secret not in (done.stdout + done.stderr).encode()
    assert sum(path.is_file() for path in written) > 40
