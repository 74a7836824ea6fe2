"""The smallest experiment, run to its end and reported."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, WhisperForConditionalGeneration

from benchmarks.askd import cells, run
from benchmarks.askd import teacher_pass as teacher_pass_module
from benchmarks.askd.__main__ import main
from benchmarks.askd.config import Initial, Source
from benchmarks.askd.decoding import all_texts, confidences
from benchmarks.askd.initial_student import ENCODER, adapt, adapted_encoder, student_folder
from benchmarks.askd.lines import Lines
from benchmarks.askd.measures import Measures
from benchmarks.askd.place import Place
from benchmarks.askd.report import percent, points, rows_of
from benchmarks.askd.results import Results
from benchmarks.askd.splits import split
from benchmarks.askd.teacher_pass import teacher_pass
from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.row_store import RowStore
from fastwhisper.data.stored_states import heard_key
from fastwhisper.errors import InputError
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts


@pytest.fixture
def place(askd_places, tmp_path):
    return Place(askd_places / "models", askd_places / "data", tmp_path / "work")


@pytest.fixture
def initial(askd_settings, askd_config, place, tmp_path):
    """The folder of the initial student."""
    config = askd_config(askd_settings)
    lines = Lines(tmp_path / "lines.jsonl")
    return student_folder(config, place, config.teachers[0], config.arms["CE"], lines)


def command(askd_places, output, settings):
    path = output / "config.json"
    output.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings))
    places = ["--models", askd_places / "models", "--data", askd_places / "data", "--output", output]
    return list(map(str, ["--config", path, *places]))


def test_a_stopped_experiment_goes_on_and_is_reported(askd_places, askd_settings, askd_config, tmp_path, monkeypatch):
    words, ran, real = command(askd_places, tmp_path / "out", askd_settings), [], run.run_cell

    def stopping(cell, *others):
        if len(ran) == 3 and "stopped" not in ran:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append((cell.stage, cell.arm, cell.learning_rate, cell.seed))
        return real(cell, *others)

    monkeypatch.setattr(run, "run_cell", stopping)
    assert main(words) == 130
    assert len(Lines(tmp_path / "out" / "cells.jsonl").read()) == 5  # the teacher, its encoder, three cells
    assert main([*words, "--report", str(tmp_path / "early.md")]) == 0
    assert "Not complete: CE and ASKD." in (tmp_path / "early.md").read_text()
    assert main(words) == 0
    ran.remove("stopped")
    assert len(ran) == len(set(ran)) == 2 * 2 + 2 * 2
    assert [stage for stage, *_ in ran] == ["tune"] * 4 + ["final"] * 4
    assert [seed for stage, _, _, seed in ran if stage == "final"] == [1, 1, 2, 2]
    assert main(words) == 0 and len(ran) == 8
    assert not list((tmp_path / "out" / "work" / "cells").iterdir())

    report = tmp_path / "docs" / "results.md"
    assert main([*words, "--report", str(report)]) == 0
    config, done = askd_config(askd_settings), Lines(tmp_path / "out" / "cells.jsonl").read()
    check_report(report, config, done)


def check_report(report, config, done):
    """Every figure of an arm stands in the report as its lines have it, computed here anew."""
    text, lines = report.read_text(), list(done.values())
    assert "--config config.json --report" in text and "/tmp" not in text
    assert "missing" not in text and "Not complete" not in text
    for image in re.findall(r"\]\(([^)]*\.png)\)", text):
        assert (report.parent / image).read_bytes().startswith(b"\x89PNG")
    assert text.count(".png)") == 3
    teacher = next(line for line in lines if line["kind"] == "teacher")
    assert f"| tiny as it is |  | 1 of 1 | {percent(teacher['sets']['dev']['wer'])} |" in text
    measured = [line for line in lines if line.get("stage") == "final"]
    final = {arm: [line for line in measured if line["arm"] == arm] for arm in config.arms}
    for arm, its in final.items():
        rates = [100 * sum(line["sets"]["test"]["errors"]) / sum(line["sets"]["test"]["words"]) for line in its]
        assert f"{np.mean(rates):.2f} ± {np.std(rates, ddof=1):.2f} %" in text
        row = next(line for line in text.splitlines() if line.startswith(f"| {arm} | 0.00"))
        assert row.split("|")[2].strip() == f"{its[0]['learning_rate']:g}"
        assert [line["sets"]["test"]["wer"] for line in its] == pytest.approx([rate / 100 for rate in rates])
    differences = np.mean([line["sets"]["test"]["errors"] for line in final["ASKD"]], axis=0) - np.mean(
        [line["sets"]["test"]["errors"] for line in final["CE"]], axis=0
    )
    words = np.sum(final["CE"][0]["sets"]["test"]["words"])
    rows = rows_of(config, Results(config, done), "references", config.teachers[0])
    interval = rows[2].against(rows[1], "test")
    assert interval.value == pytest.approx(differences.sum() / words) and points(interval) in text


def test_a_line_has_all_that_the_report_needs(askd_places, askd_settings, tmp_path):
    askd_settings.update(learning_rates=[1e-3], seeds=[1], arms={"CE": askd_settings["arms"]["CE"]}, ours=[])
    assert main(command(askd_places, tmp_path / "out", askd_settings)) == 0
    lines = list(Lines(tmp_path / "out" / "cells.jsonl").read().values())
    (cell,) = [line for line in lines if line["kind"] == "cell"]
    assert cell["sets"].keys() == {"dev", "test"} and len(cell["sets"]["test"]["errors"]) == 6
    assert cell["settings"]["training"]["dropout"] == 0.1 and cell["rows"] == 12 and cell["steps"] == 3
    assert [line["step"] for line in cell["curve"]] == [1, 2, 3] and cell["seconds_a_row"] > 0
    assert cell["invented_words_a_minute"].keys() == {"silence", "noise"} and cell["speed"]["real_time_factor"] > 0
    assert cell["hardware"]["cores"] and cell["versions"]["transformers"]
    assert str(tmp_path) not in json.dumps(lines) and str(askd_places) not in json.dumps(lines)


def test_labels_of_the_teacher_and_a_blind_spot(askd_places, askd_settings, tmp_path):
    askd_settings.update(learning_rates=[1e-3], seeds=[1])
    askd_settings["tables"] = {
        "pseudo-labels": {"labels": "pseudo", "arms": ["ASKD"]},
        "blind spot": {"blind_spot": {"share": 0.3, "least_count": 2, "batch_size": 4}, "arms": ["ASKD"]},
    }
    assert main([*command(askd_places, tmp_path / "out", askd_settings)]) == 0
    lines = list(Lines(tmp_path / "out" / "cells.jsonl").read().values())
    tables = {line["table"]: line for line in lines if line["kind"] == "cell"}
    assert tables.keys() == {"pseudo-labels", "blind spot"} and not any("error" in line for line in lines)
    assert tables["blind spot"]["sets"]["test"]["planted"]["words"] > 0
    assert "planted" not in tables["pseudo-labels"]["sets"]["test"]
    assert main([*command(askd_places, tmp_path / "out", askd_settings), "--report", str(tmp_path / "r.md")]) == 0
    assert "### The planted words" in (tmp_path / "r.md").read_text()


def test_the_whole_teacher_lora_and_a_trained_encoder(askd_places, askd_settings, tmp_path):
    ce = {"teacher_weight": 0.0, "self_weight": 0.0}
    askd_settings.update(learning_rates=[1e-3], seeds=[1], ours=[], rivals=[], keep_weights=["whole"])
    askd_settings["arms"] = {
        "CE": {"settings": ce},
        "whole": {"settings": ce, "decoder_layers": "all"},
        "LoRA": {"settings": ce, "decoder_layers": "all", "lora_rank": 2},
        "encoder too": {"settings": {**ce, "freeze_encoder": False}},
    }
    assert main(command(askd_places, tmp_path / "out", askd_settings)) == 0
    lines = Lines(tmp_path / "out" / "cells.jsonl").read().values()
    size = {line["arm"]: line["parameters"] for line in lines if line["kind"] == "cell"}
    assert size["CE"] == size["encoder too"] < size["whole"] == size["LoRA"]
    (kept,) = (tmp_path / "out" / "work" / "weights").iterdir()
    assert load_checkpoint(kept, "cpu")[0].config.decoder_layers == 4


class Diverges(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if args.learning_rate == 0.5:
            raise InputError("the loss is not finite")


def test_training_that_diverges_is_told_and_does_not_end_the_rest(askd_places, askd_settings, tmp_path, monkeypatch):
    real = cells.distill
    monkeypatch.setattr(
        cells,
        "distill",
        lambda *args, callbacks, **options: real(*args, callbacks=[*callbacks, Diverges()], **options),
    )
    askd_settings.update(learning_rates=[1e-3, 0.5], seeds=[1], arms={"CE": askd_settings["arms"]["CE"]}, ours=[])
    assert main(command(askd_places, tmp_path / "out", askd_settings)) == 0
    lines = [line for line in Lines(tmp_path / "out" / "cells.jsonl").read().values() if line["kind"] == "cell"]
    assert ["error" in line for line in lines] == [False, True, False] and lines[2]["learning_rate"] == 1e-3
    words = [*command(askd_places, tmp_path / "out", askd_settings), "--report", str(tmp_path / "r.md")]
    assert main(words) == 0 and "| failed |" in (tmp_path / "r.md").read_text()


def test_what_is_missing_ends_the_command_in_one_line(askd_places, askd_settings, tmp_path, capsys):
    askd_settings["sets"]["test"]["data"] = str(tmp_path / "nowhere")
    assert main(command(askd_places, tmp_path / "out", askd_settings)) == 2
    assert re.fullmatch(r"error: there is no folder .*nowhere", capsys.readouterr().err.strip().splitlines()[-1])


def test_the_encoder_comes_nearer_to_the_teachers_without_padding(place, askd_settings, askd_config):
    teacher, processor = load_checkpoint(place.model("tiny"), "cpu")
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, 1).model.encoder
    clips = Measures(place, askd_config(askd_settings).measuring).clips(Source("train"))

    @torch.no_grad()
    def wanted(clip):
        samples = load_audio(clip.audio)
        features = processor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        return teacher.model.encoder(features).last_hidden_state[0, : -(-len(samples) // 320)]

    settings = Initial(epochs=12, learning_rate=3e-3, batch_size=4)
    curve = adapt(student, processor.feature_extractor, clips, wanted, settings)
    assert curve[-1]["squared_distance"] < 0.7 * curve[0]["squared_distance"]
    before = teacher.model.encoder.state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in student.state_dict().items())


def test_the_teacher_hears_every_row_once(place, askd_settings, askd_config, monkeypatch):
    config = askd_config(askd_settings)
    teacher, heard = config.teachers[0], []
    real = teacher_pass_module._hear

    def counted(clips, *others):
        if len(heard) == 1:
            heard.append(None)
            raise KeyboardInterrupt
        heard.append([clip.heard for clip in clips])
        return real(clips, *others)

    monkeypatch.setattr(teacher_pass_module, "_hear", counted)
    with pytest.raises(KeyboardInterrupt):
        teacher_pass(config, place, teacher, place.model("tiny"))
    found = teacher_pass(config, place, teacher, place.model("tiny"))
    assert teacher_pass(config, place, teacher, place.model("tiny")).texts == found.texts
    heard.remove(None)
    rows = load_speech_dataset(split(config, place)[0])
    assert sorted(sum(heard, [])) == sorted(heard_key(row) for row in rows)
    model, processor = load_checkpoint(place.model("tiny"), "cpu")
    audio = [load_audio(row["audio"]) for row in rows]
    options = GenerationOptions(language="en", batch_size=1)
    expected = [generate_transcripts(model, processor, [samples], options)[0].text for samples in audio]
    # What never stops is cut where the pass cuts it.
    assert all(text and whole.startswith(text) for text, whole in zip(found.texts, expected, strict=True))


def test_all_students_have_the_encoder_and_the_teachers_layers(askd_settings, askd_config, place, initial, tmp_path):
    config, lines = askd_config(askd_settings), Lines(tmp_path / "lines.jsonl")
    encoder = load_file(adapted_encoder(config, place, config.teachers[0], lines) / ENCODER)
    student, _ = load_checkpoint(initial, "cpu")
    teacher = WhisperForConditionalGeneration.from_pretrained(place.model("tiny"))
    its = student.model.encoder.state_dict()
    assert all(torch.equal(weight, its[name]) for name, weight in encoder.items())
    last = [model.model.decoder.layers[-1].fc1.weight for model in (student, teacher)]
    assert torch.equal(*last) and student.config.true_length and student.config.dropout == 0.1
    assert [line["kind"] for line in lines.read().values()] == ["encoder"]


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_texts_are_those_of_transcribe(who, askd_settings, askd_config, place, initial, tmp_path):
    model, processor = load_checkpoint(place.model("tiny") if who == "teacher" else initial, "cpu")
    measures = Measures(place, askd_config(askd_settings).measuring)
    source = Source("test")
    options = GenerationOptions(language="en", batch_size=1)
    clips = measures.clips(source)
    expected = [generate_transcripts(model, processor, [load_audio(clip.audio)], options)[0].text for clip in clips]
    ear = measures.ear(model, processor, frozen=False)
    assert all_texts(ear, clips, 4) == expected and any(expected)
    if who == "student":
        kept = measures.ear(model, processor, frozen=True)
        first, again = (all_texts(kept, clips, 4) for _ in range(2))
        assert first == again and RowStore(place.work / "encoder_states").size()[0] == len(clips)


def test_confidences_are_those_of_the_stock_class(askd_settings, askd_config, place):
    model, processor = load_checkpoint(place.model("tiny"), "cpu")
    measures = Measures(place, askd_config(askd_settings).measuring)
    clips = measures.clips(Source("test"))[:3]
    ear = measures.ear(model, processor, frozen=False)
    sure, right = confidences(ear, clips, ear.encoded(clips))
    expected, hits = [], []
    for clip in clips:
        features = processor(load_audio(clip.audio), sampling_rate=16_000, return_tensors="pt").input_features
        tokenizer = processor.tokenizer
        tokenizer.set_prefix_tokens(language="en", task="transcribe", predict_timestamps=False)
        ids = torch.tensor([tokenizer(f" {clip.text}").input_ids])
        probabilities = model.double()(features.double(), decoder_input_ids=ids[:, :-1]).logits.softmax(-1)[0]
        model.float()
        start = len(tokenizer.prefix_tokens) - 1
        best, chosen = probabilities[start:].max(-1)
        expected.append(best)
        hits.append(chosen == ids[0, start + 1 :])
    assert torch.allclose(sure.double(), torch.cat(expected), atol=1e-5)
    assert torch.equal(right, torch.cat(hits))
