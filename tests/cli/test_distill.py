"""`fastwhisper distill` from a teacher and a folder of speech to a folder of a student."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration, distill
from fastwhisper.cli.main import main
from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer
from fastwhisper.trainers import true_length_rows

from ..fake_hub import Failure, running_hub
from ..hub_folders import run_python
from ..recordings import noise, save_checkpoint
from ..sounds import write_nan, write_noise_bytes, write_one_sample, write_speech_folder, write_torn
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer
from .conftest import SENTENCES


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture
def words(whisper_folder, speech_folder, tmp_path):
    """A short training into `out`."""
    fixed = "--max_steps 2 --per_device_train_batch_size 2 --learning_rate 1e-3 --language en"
    places = ["--teacher", whisper_folder, "--dataset", speech_folder, "--output_dir", tmp_path / "out"]
    return [*map(str, places), *fixed.split(), "--save_strategy", "no", "--use_cpu", "--logging_steps", "1"]


def test_recipe_with_evaluation_to_a_folder_that_loads(whisper_folder, tmp_path, capsys):
    for split, count in (("train", 6), ("test", 3)):
        write_speech_folder(tmp_path / "data" / split, [0.5] * count, SENTENCES[:count])
    (tmp_path / "recipe.yaml").write_text(
        f"teacher: {whisper_folder}\ndataset: {tmp_path / 'data'}\nsplit: train\neval_split: test\n"
        "decoder_layers: 2\nlanguage: en\nmax_steps: 50\nlearning_rate: 1e-3\nlogging_steps: 1\n"
        "eval_strategy: steps\neval_steps: 2\nsave_steps: 2\nuse_cpu: true\nper_device_train_batch_size: 2\n"
    )
    output = tmp_path / "out"
    assert (
        main(["distill", "--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(output), "--max_steps=4"]) == 0
    )

    assert f"student: {output}\n" in capsys.readouterr().out
    log = json.loads((output / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert [line["step"] for line in log if "eval_wer" in line] == [2, 4]
    assert all(line["eval_wer"] >= 0 and line["eval_cer"] >= 0 for line in log if "eval_wer" in line)
    trained = [line for line in log if "loss" in line]
    assert len(trained) == 4 and trained[0]["teacher_weight"] == pytest.approx(0.8)
    assert trained[-1]["self_weight"] > 0.0 == trained[-1]["teacher_weight"]

    names = {path.name for path in output.iterdir()}
    assert {"README.md", "curves.png", "preprocessor_config.json", "modeling_fastwhisper.py"} <= names
    assert (output / "checkpoint-2" / "README.md").is_file()
    student = FastWhisperForConditionalGeneration.from_pretrained(output)
    assert student.config.decoder_layers == 2 and student.generation_config.language == "en"
    features = WhisperProcessor.from_pretrained(output)(noise(1.0), sampling_rate=16_000, return_tensors="pt")
    assert student.generate(features.input_features, max_new_tokens=4).shape[0] == 1
    its = WhisperForConditionalGeneration.from_pretrained(whisper_folder).model
    assert torch.equal(student.model.encoder.conv1.weight, its.encoder.conv1.weight)
    assert not torch.equal(student.model.decoder.layers[0].fc1.weight, its.decoder.layers[0].fc1.weight)


def test_pushed_is_the_merged_student_and_a_refusal_comes_before_the_training(words, tmp_path_factory, tmp_path):
    script = "import sys; from fastwhisper.cli.main import main; sys.exit(main(['distill', *sys.argv[1:]]))"
    flags = ["--push_to_hub", "true", "--hub_model_id", "tester/distilled", "--lora_rank", "2"]
    home = tmp_path_factory.mktemp("home")
    with running_hub() as hub:
        hub.failure = Failure("/api/repos/create", 1, 401)
        refused = run_python(script, home, *words, *flags, **hub.environment("hf_x"))
        done = run_python(script, home, *words, *flags, **hub.environment("hf_x"))
    assert refused.returncode == 2 and "hf auth login" in refused.stderr and "Traceback" not in refused.stderr
    assert done.returncode == 0, done.stderr
    (_, commit) = hub.history("tester/distilled")
    assert done.stdout.splitlines()[-1].endswith(commit)
    files = hub.files("tester/distilled")
    assert files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert {"README.md", "modeling_fastwhisper.py"} <= set(files) and "adapter_config.json" not in files


def test_evaluation_data_is_measured_every_epoch_by_default(whisper_folder, speech_folder, tmp_path):
    settings = ASKDTrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=3, use_cpu=True,
        save_strategy="no", report_to="none",
    )  # fmt: skip
    report = distill(
        str(whisper_folder), speech_folder, settings, eval_dataset=speech_folder, eval_limit=2, decoder_layers=1
    )
    trainer = report.trainer
    assert report.folder == tmp_path and report.url is None
    assert [line["epoch"] for line in trainer.state.log_history if "eval_wer" in line] == [1.0, 2.0]
    assert len(trainer.eval_dataset) == 2


def test_stopped_and_resumed_is_the_same_run(words, tmp_path, refused):
    words = [*words, "--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2"]
    assert main(["distill", *words]) == 0
    whole = weights(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    shutil.copytree(tmp_path / "out" / "checkpoint-2", tmp_path / "kept")
    assert "has checkpoints of another run" in refused("distill", *words)
    assert "is not a checkpoint" in refused("distill", *words, "--resume_from_checkpoint", str(tmp_path / "out"))

    assert main(["distill", *words, "--resume_from_checkpoint", "last"]) == 0
    resumed = weights(tmp_path / "out")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    log = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4]

    words = [*words, "--output_dir", str(tmp_path / "other")]
    assert "no checkpoint in" in refused("distill", *words, "--resume_from_checkpoint", "last")
    assert not (tmp_path / "other").exists()
    assert main(["distill", *words, "--resume_from_checkpoint", str(tmp_path / "kept")]) == 0
    assert all(torch.equal(weight, whole[name]) for name, weight in weights(tmp_path / "other").items())


def test_a_stream(words, tmp_path, refused):
    assert "--streaming needs --max_steps" in refused("distill", *words, "--streaming", "--max_steps", "-1")
    assert main(["distill", *words, "--streaming", "--limit", "5"]) == 0
    assert FastWhisperForConditionalGeneration.from_pretrained(tmp_path / "out").config.decoder_layers == 4


def test_a_student_of_true_length(words, whisper_folder, tmp_path, refused, monkeypatch):
    """Its folder says so; rows are decoded once; from there it goes on so, or not at all."""
    flags = ["--true_length", "--true_length_margin", "0.25", "--encoder_weight", "0.1"]
    assert "set freeze_encoder to false" in refused("distill", *words, *flags[:1], "--freeze_encoder", "true")
    monkeypatch.setattr(true_length_rows, "audio_duration", None)
    assert main(["distill", *words, *flags, "--encoder_learning_rate", "1e-2"]) == 0
    student = FastWhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert student.config.true_length and student.config.true_length_margin == 0.25
    its = WhisperForConditionalGeneration.from_pretrained(whisper_folder).model
    assert not torch.equal(student.model.encoder.conv1.weight, its.encoder.conv1.weight)
    run = json.loads((tmp_path / "out" / "training_run.json").read_text())["askd"]
    wanted = {"true_length": True, "true_length_margin": 0.25, "full_length_probability": 0.25, "encoder_weight": 0.1}
    assert {name: run[name] for name in wanted} == wanted
    assert run["encoder_learning_rate"] == 0.01 and run["freeze_encoder"] is False
    card = (tmp_path / "out" / "README.md").read_text()
    assert "It hears each clip at its own length, not at 2 s" in card
    assert "| trained at true length | yes |" in card and "| seconds of silence behind a clip | 0.25 |" in card

    further = [*words, "--student", str(tmp_path / "out"), "--output_dir", str(tmp_path / "further")]
    assert "set true_length" in refused("distill", *further)
    assert main(["distill", *further, *flags[:1], "--freeze_encoder", "true", "--streaming"]) == 0
    student = FastWhisperForConditionalGeneration.from_pretrained(tmp_path / "further")
    assert student.config.true_length_margin == 0.5
    assert main(["distill", *words, "--output_dir", str(tmp_path / "plain"), "--freeze_encoder", "false"]) == 0
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "| encoder frozen | no |" in card and "true length" not in card and "whole window" not in card


def test_short_clips_are_joined_and_the_teacher_hears_them_at_once(words, tmp_path, capsys):
    """Of two speakers with three clips each, two and two fit into a window of 2 s."""
    flags = ["--joined_probability", "1", "--teacher_cache", str(tmp_path / "teacher"), "--true_length"]
    assert main(["distill", *words, *flags]) == 0
    assert "4 rows computed; it has 4 entries" in capsys.readouterr().out


def test_texts_in_capitals_are_named_and_become_sentences(whisper_folder, tmp_path, caplog):
    speech = write_speech_folder(tmp_path / "speech", [0.5, 0.6], ["TURN ON THE LAMP", "NEVER MIND"])

    def texts(output, **options):
        settings = {"max_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True}
        arguments = ASKDTrainingArguments(output_dir=tmp_path / output, **settings)
        return distill(whisper_folder, speech, arguments, language="en", **options).trainer.train_dataset["text"][:]

    assert texts("as_is") == ["TURN ON THE LAMP", "NEVER MIND"]
    assert "2 of 2 texts are in capitals" in caplog.text
    caplog.clear()
    assert texts("sentences", text_case="sentence") == ["Turn on the lamp.", "Never mind."]
    assert "capitals" not in caplog.text


def test_lora_is_merged_into_a_plain_whisper(words, whisper_folder, tmp_path):
    assert main(["distill", *words, "--lora_rank", "2", "--learning_rate", "1e-2"]) == 0
    assert not list((tmp_path / "out").glob("adapter*"))
    merged = weights(tmp_path / "out")
    assert not any("lora" in name for name in merged)
    student, info = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    start = FastWhisperForConditionalGeneration.from_teacher(whisper_folder, 4).state_dict()
    changed = {name for name, weight in merged.items() if not torch.equal(weight, start[name])}
    assert "model.decoder.layers.0.encoder_attn.q_proj.weight" in changed
    assert all(name.endswith(("proj.weight", "fc1.weight", "fc2.weight")) for name in changed)


def test_a_checkpoint_of_lora_names_no_place_of_this_machine(words, whisper_folder, tmp_path):
    start = tmp_path / "start"
    assert main(["init", "--teacher", str(whisper_folder), "--output", str(start), "--decoder_layers", "2"]) == 0
    saved = ["--save_strategy", "steps", "--save_steps", "1"]
    assert main(["distill", *words, "--student", str(start), "--lora_rank", "2", *saved]) == 0
    checkpoints = list((tmp_path / "out").glob("checkpoint-*"))
    assert len(checkpoints) == 2
    for checkpoint in checkpoints:
        config = json.loads((checkpoint / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "../start"
        for text in (path.read_text() for path in checkpoint.iterdir() if path.suffix in (".json", ".md")):
            assert str(tmp_path) not in text and str(whisper_folder) not in text


def test_a_student_goes_on(words, whisper_folder, tmp_path, refused):
    start = tmp_path / "start"
    assert main(["init", "--teacher", str(whisper_folder), "--output", str(start), "--decoder_layers", "3"]) == 0
    said = refused("distill", *words, "--student", start, "--decoder_layers", "1")
    assert "--decoder_layers is only for a newly built student" in said
    assert main(["distill", *words, "--student", str(start), "--max_steps", "1"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["decoder_layers"] == 3 and config["decoder_layer_map"] == [0, 1, 3]
    before, after = weights(start), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    name = "model.decoder.layers.1.fc1.weight"
    assert 0 < (before[name] - after[name]).abs().max() < 0.01  # one step from the start, not a fresh student


def test_the_student_starts_in_full_precision_whatever_the_teacher_is_held_in(whisper_folder, speech_folder, tmp_path):
    settings = ASKDTrainingArguments(
        output_dir=str(tmp_path), max_steps=1, learning_rate=0.0, use_cpu=True, save_strategy="no", report_to="none"
    )
    trainer = distill(str(whisper_folder), speech_folder, settings, teacher_dtype="bfloat16").trainer
    assert trainer.teacher_model.dtype == torch.bfloat16 and trainer.model.dtype == torch.float32
    saved = weights(whisper_folder)
    its = trainer.model.state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in its.items() if name in saved)


def test_a_multilingual_teacher_wants_a_language_before_the_first_step(speech_folder, tmp_path, refused):
    teacher, folder = tiny_whisper(whisper_tokenizer(), d_model=16, decoder_layers=1, encoder_layers=1), tmp_path / "t"
    save_checkpoint(teacher, whisper_tokenizer(), folder)
    places = ["--teacher", folder, "--output_dir", tmp_path / "out", "--max_steps", "1", "--use_cpu"]
    words = [*map(str, places), "--decoder_layers", "1", "--save_strategy", "no", "--per_device_train_batch_size", "2"]
    said = refused("distill", *words, "--dataset", speech_folder)
    assert "has no column 'language'" in said and "--language" in said
    (tmp_path / "rows").mkdir()
    lines = [
        {"file_name": str(speech_folder / f"{index}.wav"), "text": text, "language": "de"}
        for index, text in enumerate(SENTENCES)
    ]
    (tmp_path / "rows" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not (tmp_path / "out").exists()
    assert main(["distill", *words, "--dataset", str(tmp_path / "rows")]) == 0


def test_rows_that_cannot_be_used_are_counted(words, tmp_path, caplog):
    folder = write_speech_folder(tmp_path / "some", [0.5, 0.0, 2.6, 0.5, 0.5], [*SENTENCES[:4], "go " * 60])
    assert main(["distill", *words, "--dataset", str(folder), "--max_steps", "1"]) == 0
    assert "3 of 5 rows dropped: 1 audio over 2 s, 1 empty audio, 1 over 24 label tokens" in caplog.text


# ---- refusals: one line, and nothing written ----


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--teacher", "/nowhere/at/all"], "/nowhere/at/all is not a checkpoint"),
        (["--student", "/nowhere/at/all"], "/nowhere/at/all is not a checkpoint"),
        (["--dataset", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["--eval_dataset", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["--text_column", "words"], "no column 'words' for the text; its columns are audio"),
        (["--audio_column", "sound"], "no column sound that names the audio files"),
        (["--split", "dev"], "no split 'dev'; it has train"),
        (["--eval_split", "dev"], "no split 'dev'; it has train"),
        (["--eval_strategy", "epoch"], "--eval_strategy epoch needs --eval_dataset or --eval_split"),
        (["--decoder_layers", "5"], "decoder_layers=5 is impossible: the teacher has 4 decoder layers"),
        (["--teacher_dtype", "int8"], "there is no dtype 'int8'"),
        (["--language", "klingon"], "klingon"),
        (["--timestamp_probability", "2"], "timestamp_probability=2.0 is not a probability"),
        (["--joined_probability", "-1"], "joined_probability=-1.0 is not a probability"),
        (["--joined_probability", "0.5", "--streaming"], "--joined_probability needs all rows at once"),
        (["--text_case", "lower"], "text_case='lower' is not one of as_is, sentence"),
        (["--schedule", "quadratic"], "schedule='quadratic' is not one of linear"),
        (["--teacher_weight", "1.5"], "teacher_weight=1.5 must be in [0, 1]"),
        (["--decoder_layer", "2"], "unknown arguments: --decoder_layer 2"),
    ],
)
def test_bad_requests_are_one_line(words, tmp_path, refused, flags, said):
    assert said in refused("distill", *words, *flags)
    assert not (tmp_path / "out").exists()


def test_bad_recipes_and_missing_flags_are_one_line(tmp_path, refused):
    (tmp_path / "recipe.yaml").write_text("teacher: t\ndataset: d\nlearning_rat: 1e-3\n")
    assert "unknown key 'learning_rat'" in refused("distill", "--config", tmp_path / "recipe.yaml")
    assert "nothing.yaml cannot be read" in refused("distill", "--config", tmp_path / "nothing.yaml")
    assert "required: --teacher, --dataset" in refused("distill", "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_audio_that_stops_is_one_line(words, tmp_path, refused):
    folder = write_speech_folder(tmp_path / "bad", [0.5, 0.5, 0.5])
    stop = ("--dataset", folder, "--on_bad_audio", "stop")
    for write, said in ((write_nan, "has samples that are NaN"), (write_noise_bytes, "cannot be read")):
        write(folder / "1.wav")
        assert f"row 1: {folder.resolve() / '1.wav'} {said}" in refused("distill", *words, *stop)
    (folder / "1.wav").unlink()
    assert f"row 1: there is no audio file {folder / '1.wav'}" in refused("distill", *words, *stop)
    assert "on_bad_audio='no': it must be skip or stop" in refused("distill", *words, "--on_bad_audio", "no")
    assert not (tmp_path / "out").exists()


def test_what_a_data_set_may_hold(whisper_folder, tmp_path, caplog):
    """A torn clip, a clip of one sample, languages of all kinds under a flag, times in the text, no pad token."""
    folder = write_speech_folder(tmp_path / "speech", [0.5] * 5, SENTENCES[:5])
    write_torn(folder / "1.wav")
    write_one_sample(folder / "2.wav")
    teacher = shutil.copytree(whisper_folder, tmp_path / "teacher")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (teacher / name).exists():
            settings = json.loads((teacher / name).read_text())
            (teacher / name).write_text(json.dumps({key: settings[key] for key in settings if key != "pad_token"}))
    assert WhisperProcessor.from_pretrained(teacher).tokenizer.pad_token_id is None
    table = [
        {"file_name": f"{index}.wav", "text": f"<|0.00|> {text}<|0.50|>", "previous_text": "so", "language": language}
        for index, (text, language) in enumerate(zip(SENTENCES, [1, "en-US", None, "klingon", "eng"], strict=False))
    ]
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    words = f"--teacher {teacher} --dataset {folder} --output_dir {tmp_path / 'out'} --eval_split train --max_steps 2"
    words += " --language en-GB --prompt_probability 1 --timestamp_probability 0.5 --use_cpu --save_strategy no"
    assert main(["distill", *words.split(), "--per_device_train_batch_size", "3"]) == 0
    assert "2 of 5 rows dropped: 1 audio under 0.02 s, 1 bad audio" in caplog.text
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["language"] == "en"


def test_a_teacher_of_another_vocabulary_is_one_line_of_the_program(words, tmp_path):
    tokenizer = build_demo_tokenizer()
    tokenizer.add_tokens(["<|4.02|>"])
    other = save_checkpoint(tiny_whisper(tokenizer, decoder_layers=1), tokenizer, tmp_path / "other")
    command = [sys.executable, "-m", "fastwhisper", "distill", *words, "--student", str(other)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "vocab_size 850 (teacher) against 851 (student)" in line and "tokenizers give different ids" in line
    assert not (tmp_path / "out").exists()
