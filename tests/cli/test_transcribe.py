"""`fastwhisper transcribe` from files to text, and what it refuses."""

import io
import json
import os
import types

import pytest
import soundfile

import fastwhisper
from fastwhisper.cli.main import main

from ..recordings import noise, save_checkpoint, write_noise, write_only_words
from ..tiny_models import tiny_whisper


@pytest.fixture(scope="module")
def checkpoint(demo_tokenizer, tmp_path_factory):
    model = tiny_whisper(demo_tokenizer, max_target_positions=16)
    write_only_words(model, demo_tokenizer)
    return str(save_checkpoint(model, demo_tokenizer, tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def audio(tmp_path):
    """A folder with two short files, one of them deeper, and a long one."""
    write_noise(tmp_path / "audio" / "b.wav", 1.5, 1)
    write_noise(tmp_path / "audio" / "deep" / "a.flac", 0.7, 2)
    write_noise(tmp_path / "audio" / "deep" / "long.wav", 2.6, 3)
    (tmp_path / "audio" / "notes.txt").write_text("not audio")
    (tmp_path / "audio" / "._b.wav").write_text("what some file systems keep beside a file")
    return tmp_path / "audio"


def refused(capsys, *argv: str) -> str:
    """The one line of an error of input."""
    assert main(["transcribe", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("fastwhisper transcribe: error: ")
    return captured.err


def test_one_file_to_standard_output(checkpoint, audio, capsys):
    assert main(["transcribe", str(audio / "b.wav"), "--model", checkpoint]) == 0
    captured = capsys.readouterr()
    alone = fastwhisper.transcribe(audio / "b.wav", checkpoint)
    assert captured.out == alone.text + "\n" and alone.text
    assert captured.err == ""


def test_a_folder_in_every_format(checkpoint, audio, tmp_path, capsys):
    output = tmp_path / "out" / "here"
    argv = [str(audio), "--model", checkpoint, "--output", str(output), "--format", "txt,srt", "vtt", "json"]
    assert main(["transcribe", *argv, "--word_timestamps", "--language", "English"]) == 0
    written = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    kinds = ("json", "srt", "txt", "vtt")
    assert written == [*(f"b.{kind}" for kind in kinds), *(f"deep/{n}.{k}" for n in ("a", "long") for k in kinds)]
    assert capsys.readouterr().out == ""
    for name in ("b", "deep/a", "deep/long"):
        found = json.loads((output / f"{name}.json").read_text())
        assert (output / f"{name}.txt").read_text() == found["text"] + "\n"
        assert (output / f"{name}.vtt").read_text().startswith("WEBVTT\n")
        assert any(segment["words"] for segment in found["segments"])
        assert all(0 <= segment["start"] <= segment["end"] <= found["duration"] for segment in found["segments"])
    assert json.loads((output / "deep/long.json").read_text())["duration"] == 2.6


def test_several_files_are_labelled_and_in_order(checkpoint, audio, capsys):
    files = [str(audio / "b.wav"), str(audio / "deep" / "long.wav"), str(audio / "deep" / "a.flac")]
    assert main(["transcribe", *files, "--model", checkpoint, "--batch_size", "2"]) == 0
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == files
    assert main(["transcribe", *files[1:], "--model", checkpoint, "--format", "json"]) == 0
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == ["long.wav", "a.flac"]


def test_standard_input(checkpoint, audio, capsys, monkeypatch):
    stdin = types.SimpleNamespace(buffer=io.BytesIO((audio / "b.wav").read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["transcribe", "-", "--model", checkpoint]) == 0
    piped = capsys.readouterr().out
    assert main(["transcribe", str(audio / "b.wav"), "--model", checkpoint]) == 0
    assert piped == capsys.readouterr().out
    assert "standard input is empty" in refused(capsys, "-", "--model", checkpoint)


def test_a_recipe(checkpoint, audio, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {checkpoint}\nformat: [json]\nfiles: {audio / 'b.wav'}\n")
    assert main(["transcribe", "--config", str(recipe)]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "b.wav"


def test_json_names_no_place_of_this_machine(checkpoint, audio, tmp_path, capsys, monkeypatch):
    output = ["--output", str(tmp_path / "out"), "--format", "json"]
    assert main(["transcribe", str(audio), "--model", checkpoint, *output]) == 0
    found = {path.stem: json.loads(path.read_text())["file"] for path in (tmp_path / "out").rglob("*.json")}
    assert found == {
        "b": f"{audio.name}/b.wav",
        "a": f"{audio.name}/deep/a.flac",
        "long": f"{audio.name}/deep/long.wav",
    }
    monkeypatch.chdir(audio)
    assert main(["transcribe", "deep/a.flac", "--model", checkpoint, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "deep/a.flac"


BAD = [(b"", "bad.wav"), (b"no audio at all", "bad.wav"), (None, "there is no file"), ("cut", "bad.wav")]


def write_bad(path, content):
    """An empty file, one of text, none, or a FLAC that is cut off behind its header."""
    if content == "cut":
        whole = io.BytesIO()
        soundfile.write(whole, noise(1.5, 4), 16_000, format="FLAC")
        path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    elif content is not None:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("content, complaint", BAD)
def test_a_single_bad_file_is_an_error_of_input(checkpoint, tmp_path, capsys, content, complaint):
    bad = write_bad(tmp_path / "bad.wav", content)
    line = refused(capsys, str(bad), "--model", checkpoint, "--output", str(tmp_path / "out"))
    assert complaint in line and "bad.wav" in line
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("content, complaint", BAD)
def test_the_others_are_written_where_one_is_bad(checkpoint, audio, tmp_path, capsys, content, complaint):
    bad = write_bad(tmp_path / "bad.wav", content)
    files = [str(audio / "b.wav"), str(bad), str(audio / "deep" / "a.flac")]
    assert main(["transcribe", *files, "--model", checkpoint, "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "bad.wav" in captured.err and complaint in captured.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt"]
    assert main(["transcribe", *files, "--model", checkpoint]) == 1
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == [files[0], files[2]]


def test_a_bad_file_in_a_folder_is_named(checkpoint, audio, tmp_path, capsys):
    write_bad(audio / "deep" / "bad.wav", "cut")
    assert main(["transcribe", str(audio), "--model", checkpoint, "--output", str(tmp_path / "out")]) == 1
    assert "bad.wav" in capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 3


def test_nothing_but_bad_files_is_an_error_of_input(checkpoint, tmp_path, capsys):
    files = [str(write_bad(tmp_path / name, b"")) for name in ("one.wav", "two.wav")]
    assert main(["transcribe", *files, "--model", checkpoint]) == 2
    assert [name in line for name, line in zip(files, capsys.readouterr().err.splitlines(), strict=True)] == [True] * 2


def test_audio_without_samples_is_named(checkpoint, tmp_path, capsys):
    soundfile.write(tmp_path / "empty.wav", noise(0.0), 16_000)
    assert "empty.wav" in refused(capsys, str(tmp_path / "empty.wav"), "--model", checkpoint)


def test_bad_requests_are_one_line(checkpoint, audio, tmp_path, capsys):
    file, model = str(audio / "b.wav"), ("--model", checkpoint)
    write_noise(tmp_path / "twin" / "b.flac", 0.5)
    (tmp_path / "silent").mkdir()
    assert "no audio file" in refused(capsys, *model)
    assert "'doc'" in refused(capsys, file, *model, "--format", "doc")
    assert "'klingon'" in refused(capsys, file, *model, "--language", "klingon")
    assert "it has en" in refused(capsys, file, *model, "--language", "de")
    assert "no task 'sing'" in refused(capsys, file, *model, "--task", "sing")
    assert "batch_size" in refused(capsys, file, *model, "--batch_size", "0")
    assert "--output" in refused(capsys, file, *model, "--format", "txt", "srt")
    assert "--output" in refused(capsys, str(audio), *model, "--format", "srt")
    assert "no audio files" in refused(capsys, str(tmp_path / "silent"), *model)
    assert "would both be written" in refused(
        capsys, file, str(tmp_path / "twin" / "b.flac"), *model, "--output", str(tmp_path / "out")
    )
    assert "nowhere" in refused(capsys, file, "--model", str(tmp_path / "nowhere"))
    assert "silent" in refused(capsys, file, "--model", str(tmp_path / "silent"))
    assert "'gpu'" in refused(capsys, file, *model, "--device", "gpu")
    assert "'int3'" in refused(capsys, file, *model, "--dtype", "int3")
    assert "cannot create the folder" in refused(capsys, file, *model, "--output", str(audio / "notes.txt" / "out"))
    assert not (tmp_path / "out").exists()


def test_each_file_is_printed_when_it_is_done(checkpoint, audio, capsys, monkeypatch):
    from fastwhisper.transcription import transcribe_files as module

    printed_before = []
    decode = module.decode_windows

    def watched(*arguments):
        printed_before.append(capsys.readouterr().out)
        return decode(*arguments)

    monkeypatch.setattr(module, "decode_windows", watched)
    files = [str(audio / "b.wav"), str(audio / "deep" / "a.flac")]
    assert main(["transcribe", *files, "--model", checkpoint, "--batch_size", "1"]) == 0
    assert printed_before[0] == "" and printed_before[1].startswith(f"{files[0]}: ")


def test_a_console_without_the_letters_loses_nothing_else(tmp_path, checkpoint, audio, monkeypatch):
    monkeypatch.setattr(
        "fastwhisper.transcription.token_kinds.TokenKinds.text", lambda kinds, tokens: "Größe 今日 fine"
    )
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", console)
    assert main(["transcribe", str(audio / "b.wav"), "--model", checkpoint]) == 0
    assert console.buffer.getvalue() == b"Gr??e ?? fine\n"
    output = str(tmp_path / "out")
    assert main(["transcribe", str(audio / "b.wav"), "--model", checkpoint, "--output", output]) == 0
    assert (tmp_path / "out" / "b.txt").read_bytes() == "Größe 今日 fine\n".encode()


def test_a_reader_who_has_enough_ends_it(checkpoint, audio, monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert main(["transcribe", str(audio), "--model", checkpoint]) == 141
    assert capsys.readouterr().err == ""


def test_names_that_are_no_text(checkpoint, tmp_path, capsys):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    os.rename(write_noise(tmp_path / "a.wav", 0.5), path)
    output = ["--output", str(tmp_path / "out"), "--format", "json"]
    assert main(["transcribe", str(tmp_path), "--model", checkpoint, *output]) == 0
    (written,) = (tmp_path / "out").iterdir()
    assert json.loads(written.read_text("utf-8"))["file"] == f"{tmp_path.name}/\ufffd.wav"


def test_human_speech(checkpoint, real_speech, tmp_path):
    files = sorted((real_speech("fsdd") / "recordings").glob("*.wav"))[:2]
    files += sorted((real_speech("kathleen_arctic") / "flac").glob("*.flac"))[:1]
    results = fastwhisper.transcribe_files(files, checkpoint, formats=["srt"], output=tmp_path)
    for file, (name, transcript) in zip(files, results, strict=True):
        assert name == str(file)
        assert transcript.duration == pytest.approx(soundfile.info(file).duration, abs=1e-3)
        assert (tmp_path / f"{file.stem}.srt").is_file()
