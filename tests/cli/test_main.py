"""Which errors are one line and an exit code, and which keep their traceback."""

import errno
import io
import os
from types import SimpleNamespace

import pytest
import torch

from fastwhisper.cli import main as program
from fastwhisper.errors import InputError


@pytest.fixture
def ends(monkeypatch, capsys):
    """Run `fastwhisper VERB` with a verb that ends as given; returns exit code and what stands on standard error."""

    def ends(verb, how):
        def main(argv):
            if isinstance(how, BaseException):
                raise how
            return how

        monkeypatch.setattr(program.importlib, "import_module", lambda name, package: SimpleNamespace(main=main))
        return program.main([verb]), capsys.readouterr().err

    return ends


def test_an_error_of_input_is_one_line(ends):
    assert ends("label", InputError("no such\n file")) == (2, "fastwhisper label: error: no such file\n")


def test_a_verb_says_how_it_ended(ends):
    assert ends("label", None) == (0, "") and ends("transcribe", 1) == (1, "")
    assert ends("label", KeyboardInterrupt()) == (130, "fastwhisper: interrupted\n")


def test_a_full_disk_is_one_line(ends):
    code, said = ends("distill", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/model.safetensors"))
    assert code == 2 and "no space left on the disk for out/model.safetensors" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("verb", "flag"), [("distill", "--per_device_train_batch_size"), ("label", "--batch_size"), ("init", None)]
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), None])
def test_a_lack_of_memory_names_the_flag_to_lower(ends, verb, flag, error):
    if error is None:
        with pytest.raises(RuntimeError) as of_the_cpu:
            torch.empty(2**60, dtype=torch.uint8)
        error = of_the_cpu.value
    code, said = ends(verb, error)
    assert code == 2 and "out of memory" in said and said.count("\n") == 1
    assert flag is None or f"lower {flag}" in said


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes differ"), RuntimeError("shapes differ"), FileNotFoundError(2, "none", "x"), KeyError(1)],
)
def test_any_other_error_keeps_its_traceback(ends, error):
    with pytest.raises(type(error)):
        ends("distill", error)


def test_the_traceback_of_an_error_of_input_can_be_seen(ends, monkeypatch):
    monkeypatch.setenv("FASTWHISPER_TRACEBACK", "1")
    with pytest.raises(InputError):
        ends("label", InputError("no such file"))


def test_no_verb_fails_for_a_character_that_the_console_lacks(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", console)
    verb = SimpleNamespace(main=lambda argv: print("student: Größe 今日"))
    monkeypatch.setattr(program.importlib, "import_module", lambda name, package: verb)
    assert program.main(["distill"]) == 0
    console.flush()
    assert console.buffer.getvalue().decode("latin-1") == "student: Größe ??\n"


def test_a_pipe_that_breaks_elsewhere_keeps_its_traceback(ends):
    with pytest.raises(BrokenPipeError):
        ends("push", BrokenPipeError())
