"""Runs of the program, in processes that are forked from one that has imported everything already.

Each is a run of `distill` or `label` on a tiny teacher and tones, whose results must be the same however often it was
killed.
"""

import json
import multiprocessing
import os
import random
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from fastwhisper.cli.main import main
from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer
from fastwhisper.trainers.distill import STATE_FILE
from fastwhisper.trainers.whole_checkpoints import STAGING, checkpoints, what_it_lacks

from ..recordings import save_checkpoint
from ..sounds import write_speech_folder
from ..tiny_models import tiny_whisper

SENTENCES = ["turn on the lamp", "never mind", "yes please", "turn off the fan", "good night", "open the door"]
STEPS = 8
# Dropout is on, the self-teacher comes in at a third, a checkpoint every other step, the oldest go.
TRAINING = (
    f"--language en --decoder_layers 2 --max_steps {STEPS} --per_device_train_batch_size 1 --learning_rate 1e-3 "
    "--gradient_accumulation_steps 2 --teacher_decay_end 0.3 --save_strategy steps --save_steps 2 "
    "--save_total_limit 2 --logging_steps 1 --use_cpu --report_to none"
)
LABELLING = "--language en --batch_size 1 --device cpu"
TIMEOUT = 300.0
AFTER_THE_END = "after the end"

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload([__name__, "fastwhisper.trainers.distill", "fastwhisper.labelling.label"])


def _work(words: list[str], log: str, environment: dict[str, str], file_limit: int | None) -> None:
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    if file_limit is not None:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    code = main(words)
    sys.stdout.flush()
    sys.exit(code)


@dataclass
class Run:
    """A run on one process or several.

    Args:
        processes (`list[BaseProcess]`): by rank.
        log (`Path`): what they printed.
    """

    processes: list[BaseProcess]
    log: Path

    def send(self, number: int) -> None:
        """Send a signal to all processes."""
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def wait(self) -> int:
        """Wait for the end; the exit code of the first process."""
        for process in self.processes:
            process.join(TIMEOUT)
            if process.is_alive():
                process.kill()
                raise AssertionError(f"a run hangs: {self.said}")
        return self.processes[0].exitcode or 0

    @property
    def running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.is_file() else ""

    @property
    def error_lines(self) -> list[str]:
        """The lines of the program itself."""
        return [line for line in self.said.splitlines() if line.startswith("fastwhisper")]


class Runs:
    """Starts runs in a folder, where a tiny teacher and a little speech are made.

    Args:
        folder (`Path`): for everything.
        processes (`int`, *optional*, defaults to 1): of each run, as a launcher starts them.
    """

    def __init__(self, folder: Path, processes: int = 1) -> None:
        self.folder, self.processes = folder, processes
        tokenizer = build_demo_tokenizer()
        teacher = tiny_whisper(tokenizer, max_target_positions=24, dropout=0.1)
        self.teacher = save_checkpoint(teacher, tokenizer, folder / "teacher")
        self.speech = write_speech_folder(folder / "speech", [0.3, 0.5, 0.7, 0.9, 1.1, 1.3] * 2, SENTENCES * 2)
        self._count = 0
        self.start(["--version"]).wait()  # imports what all others are forked with

    def start(self, words: list[str], file_limit: int | None = None) -> Run:
        """Start the program; with `file_limit` no file may be longer than so many bytes, as on a full disk."""
        self._count += 1
        log = self.folder / f"{self._count}.log"
        processes: list[BaseProcess] = []
        port = _free_port()
        for rank in range(self.processes):
            environment = {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(self.folder / "cache")}
            if self.processes > 1:
                environment |= {
                    "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.processes),
                    "LOCAL_WORLD_SIZE": str(self.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                    "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true",
                }  # fmt: skip
            process = _forked.Process(target=_work, args=(words, str(log), environment, file_limit))
            process.start()
            processes.append(process)
        return Run(processes, log)

    def distill(self, output: Path, *more: str, file_limit: int | None = None) -> Run:
        places = ["--teacher", self.teacher, "--dataset", self.speech, "--output_dir", output]
        return self.start(["distill", *map(str, places), *TRAINING.split(), *more], file_limit)

    def label(self, output: Path, *more: str) -> Run:
        places = ["--model", self.teacher, "--dataset", self.speech, "--output", output]
        return self.start(
            ["label", *map(str, places), *["--language", "en", "--batch_size", "1", "--device", "cpu"], *more]
        )

    def go_on(self, output: Path, file_limit: int | None = None) -> Run:
        """Run `distill` again in a folder, as a user would: from its last checkpoint where there is one."""
        last = ["--resume_from_checkpoint", "last"] if checkpoints(output) else []
        return self.distill(output, *last, file_limit=file_limit)


def send_at_random(
    run: Run, output: Path, draws: random.Random, seconds: float, number: int, within_save: bool
) -> str:
    """Send a signal within the first `seconds` of a run, or at random within one of its saves; says where it was."""
    if within_save:
        saves = draws.randrange(STEPS // 2) + 1
        seen, there = 0, False
        while run.running:
            now = (output / STAGING).is_dir()
            seen += now and not there
            there = now
            if seen == saves:
                break
            time.sleep(0.0005)
        time.sleep(draws.random() * 0.15)
    else:
        time.sleep(draws.random() * seconds)
    where = "in a save" if (output / STAGING).is_dir() else f"after {len(checkpoints(output))} checkpoints kept"
    where = where if run.running else AFTER_THE_END
    run.send(number)
    return where


def torn_files(output: Path) -> list[str]:
    """What a killed run left that looks whole and is not."""
    torn = [f"{path.name} {lack}" for path in checkpoints(output) if (lack := what_it_lacks(path, (STATE_FILE,)))]
    for path in output.glob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            torn.append(path.name)
    return torn


def result(output: Path) -> tuple[bytes, list[dict]]:
    """What must be the same however often a run was killed: the weights, and the log without its times."""
    log = json.loads((output / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())["log_history"]
    return (output / "model.safetensors").read_bytes(), [line for line in log if "loss" in line]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
