"""Models side by side: every row counted, equal models equal, the report complete."""

import json
import time
from dataclasses import replace

import jiwer
import numpy as np
import pytest
import torch
from datasets import Dataset

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.errors import InputError
from fastwhisper.evaluation import comparison
from fastwhisper.evaluation.comparison import ComparisonSettings, compare_models
from fastwhisper.evaluation.measurement import ForwardClock, peak_memory
from fastwhisper.evaluation.report import comparison_table
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts

from ..recordings import noise, noise_dataset, tiny_processor, write_noise
from ..sounds import write_torn
from ..tiny_models import tiny_whisper

TEXTS = ["turn on the lamp", "never mind", "yes please", "", "call anna after lunch", "cancel the party", "stop"]
SETTINGS = ComparisonSettings(
    GenerationOptions(batch_size=3), dataset={"name": "noise"}, command="test --model /home/anna/test"
)


@pytest.fixture
def processor(demo_tokenizer):
    return tiny_processor(demo_tokenizer)


@pytest.fixture
def student(teacher):
    return FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1)


@pytest.fixture
def dataset(tmp_path):
    return noise_dataset(tmp_path, TEXTS)


def test_the_report_is_complete(teacher, student, processor, dataset, tmp_path):
    predictions = tmp_path / "predictions.jsonl"
    contestants = [("small", student, processor), ("large", teacher, processor)]
    report = json.loads(json.dumps(compare_models(contestants, dataset, SETTINGS, predictions)))

    assert report["command"] == "test --model test" and report["seed"] == 0
    assert set(report["versions"]) == {"python", "torch", "transformers", "fastwhisper"}
    assert set(report["hardware"]) == {"processor", "cores", "threads", "device", "memory_bytes"}
    assert report["settings"] == {
        "batch_size": 3,
        "num_beams": 1,
        "dtype": "float32",
        "language": None,
        "task": "transcribe",
        "normalizer": "basic",
        "repeats": 1,
    }
    assert report["dataset"]["rows"] == 7 and report["dataset"]["empty_references"] == 1
    assert report["dataset"]["audio_seconds"] == pytest.approx(sum(0.5 + 0.2 * index for index in range(7)))
    small, large = report["models"]
    assert (small["role"], large["role"]) == ("student", "teacher")
    assert small["parameters"] < large["parameters"] == teacher.num_parameters()
    assert report["speed_ratio"] == large["seconds"] / small["seconds"]

    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert [row["reference"] for row in rows] == TEXTS
    for model in report["models"]:
        hypotheses = [comparison.text_normalizer(None)(row["hypotheses"][model["name"]]) for row in rows]
        assert model["wer"] == jiwer.wer(TEXTS, hypotheses) and model["cer"] == jiwer.cer(TEXTS, hypotheses)
        assert model["words"] == 16
        errors = model["substitutions"] + model["deletions"] + model["insertions"]
        assert model["wer"] == pytest.approx(errors / 16)
        assert model["encoder_seconds"] > 0 and model["decoder_seconds"] > 0
        assert model["encoder_seconds"] + model["decoder_seconds"] < model["seconds"]
        assert model["real_time_factor"] * model["speed"] == pytest.approx(1)
        assert model["peak_memory_bytes"] >= 4 * model["parameters"]
    assert comparison_table(report).row_count == 12
    for ratio, speed in ((1.25, "1.25x faster"), (0.8, "1.25x slower")):
        caption = str(comparison_table({**report, "speed_ratio": ratio}).caption)
        assert caption.startswith(f"{small['name']} is {speed} than {large['name']}\n")


def test_a_student_with_all_layers_errs_as_its_teacher(teacher, processor, dataset):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    report = compare_models([("A", student, processor), ("B", teacher, processor)], dataset, SETTINGS)
    first, second = report["models"]
    for key in ("wer", "cer", "substitutions", "deletions", "insertions", "words", "parameters"):
        assert first[key] == second[key]
    assert first["wer"] > 0


def test_one_model_alone(teacher, processor, dataset):
    settings = ComparisonSettings(GenerationOptions(language="en", batch_size=4))
    report = compare_models([("only", teacher, processor)], dataset.select(range(2)), settings)
    assert report["speed_ratio"] is None and report["models"][0]["role"] == "model"
    assert report["settings"]["normalizer"] == "english without spelling map"
    assert report["dataset"]["language"] == "en"


@pytest.mark.parametrize(
    ("recorded", "folders", "role"),
    [
        ("B", {}, "teacher"),
        ("openai/other", {}, "model"),
        ("copy", {"B": "copy"}, "teacher"),
        ("B", {"B": "copy"}, "model"),
        (None, {}, "teacher"),
    ],
)
def test_the_teacher_is_known_by_its_recorded_name(
    teacher, student, processor, dataset, tmp_path, recorded, folders, role
):
    student.config.teacher = recorded
    settings = replace(SETTINGS, folders={name: tmp_path / folder for name, folder in folders.items()})

    report = compare_models([("A", student, processor), ("B", teacher, processor)], dataset.select([0]), settings)

    assert [model["role"] for model in report["models"]] == ["student", role]
    assert report["models"][1]["folder"] == folders.get("B")


def test_models_take_turns_after_a_warm_up(teacher, student, processor, dataset, monkeypatch):
    calls = []

    def record(model, processor, clips, options):
        calls.append(("student" if model is student else "teacher", len(clips)))
        return generate_transcripts(model, processor, clips, options)

    monkeypatch.setattr(comparison, "generate_transcripts", record)
    compare_models([("A", student, processor), ("B", teacher, processor)], dataset, SETTINGS)
    warm_up, memory = [("student", 3), ("teacher", 3)], [("student", 3), ("teacher", 3)]
    timed = [("student", 3), ("teacher", 3), ("teacher", 3), ("student", 3), ("student", 1), ("teacher", 1)]
    assert calls == warm_up + timed + memory


@pytest.mark.parametrize("stream", [False, True])
def test_rows_that_cannot_be_measured_are_left_out(teacher, processor, dataset, tmp_path, caplog, stream):
    """Before the work, with a count: without text, with bad audio, without audio."""
    dataset = Dataset.from_list(
        [{**row, "text": None if index == 1 else row["text"]} for index, row in enumerate(dataset)]
    )
    write_torn(tmp_path / "4.wav")
    (tmp_path / "5.wav").unlink()
    predictions = tmp_path / "predictions.jsonl"
    rows = dataset.to_iterable_dataset() if stream else dataset
    report = compare_models([("A", teacher, processor)], rows, SETTINGS, predictions)
    references = [json.loads(line)["reference"] for line in predictions.read_text().splitlines()]
    assert references == [TEXTS[index] for index in (0, 2, 3, 6)]
    assert report["dataset"]["rows"] == 4 and report["dataset"]["dropped"] == {"without text": 1, "bad audio": 2}
    assert "4.wav" in caplog.text and "5.wav" in caplog.text
    if not stream:
        alone = compare_models([("A", teacher, processor)], dataset.select([0, 2, 3, 6]), SETTINGS)
        assert alone["models"][0]["wer"] == report["models"][0]["wer"] and alone["dataset"]["dropped"] == {}


def test_bad_audio_can_stop_the_measurement(teacher, processor, dataset, tmp_path):
    (tmp_path / "4.wav").write_bytes(b"no audio")
    predictions = tmp_path / "predictions.jsonl"
    settings = ComparisonSettings(GenerationOptions(batch_size=3), on_bad_audio="stop")
    with pytest.raises(InputError, match=r"^row 4: .*4\.wav cannot be read as audio"):
        compare_models([("A", teacher, processor)], dataset, settings, predictions)
    assert not predictions.exists()


def test_references_with_timestamps(teacher, processor, dataset, tmp_path):
    plain = dataset.select([0, 1])
    texts = ["<|0.00|> turn on the<|0.20|><|0.20|>lamp<|0.50|>", "<|0.00|> never mind<|0.50|>"]
    predictions = tmp_path / "predictions.jsonl"
    stamped = plain.remove_columns("text").add_column("text", texts)
    reports = [compare_models([("A", teacher, processor)], rows, SETTINGS, predictions) for rows in (plain, stamped)]
    assert [json.loads(line)["reference"] for line in predictions.read_text().splitlines()] == TEXTS[:2]
    assert reports[0]["models"][0]["wer"] == reports[1]["models"][0]["wer"]


def test_no_rows_and_equal_names_are_refused(teacher, processor, dataset):
    with pytest.raises(InputError, match="no rows"):
        compare_models([("A", teacher, processor)], dataset.select([]), SETTINGS)
    with pytest.raises(InputError, match="different names"):
        compare_models([("A", teacher, processor)] * 2, dataset, SETTINGS)


def test_long_rows_are_heard_to_their_end(teacher, processor, tmp_path):
    long = write_noise(tmp_path / "long.wav", 5.0)
    dataset = noise_dataset(tmp_path, TEXTS[:1]).map(lambda row: {"audio": {"path": str(long), "bytes": None}})
    windows = []
    hook = teacher.model.encoder.register_forward_hook(lambda *call: windows.append(call))
    settings = ComparisonSettings(GenerationOptions(temperatures=(0.0,)))
    report = compare_models([("A", teacher, processor)], dataset, settings)
    hook.remove()
    # Warm-up, timed run and memory: the language, then at least three windows each.
    assert report["dataset"]["audio_seconds"] == 5.0 and len(windows) >= 12


def test_the_clock_splits_encoder_and_decoder(teacher, processor):
    def slow(seconds):
        import time

        return lambda *call: time.sleep(seconds)

    encoder = teacher.model.encoder.conv1.register_forward_hook(slow(0.2))
    decoder = teacher.proj_out.register_forward_hook(slow(0.01))
    steps = []
    counter = teacher.proj_out.register_forward_hook(lambda *call: steps.append(call))
    with ForwardClock(teacher) as clock:
        generate_transcripts(teacher, processor, [noise(1.0)])
    for hook in (encoder, decoder, counter):
        hook.remove()
    # The language is detected first, which runs the encoder within the whole model.
    assert clock.timing.encoder >= 0.4
    assert 0.01 * len(steps) <= clock.timing.decoder < clock.timing.total - 0.4
    assert clock.timing.total >= clock.timing.encoder + clock.timing.decoder
    assert not teacher._forward_hooks and not teacher.model.encoder._forward_hooks


def test_memory_counts_weights_and_growth_whatever_ran_before(demo_tokenizer):
    small, large = tiny_whisper(demo_tokenizer), tiny_whisper(demo_tokenizer, d_model=128)

    kept = []

    def work(megabytes):
        def fill():
            # Small blocks under one that stays: the allocator keeps them when they are freed.
            blocks = [np.ones(2**16, np.uint8) for _ in range(16 * megabytes)]
            kept.append(np.ones(2**16, np.uint8))
            return blocks

        return fill

    first = peak_memory(small, work(64))
    peak_memory(small, work(200))
    again = peak_memory(small, work(64))
    assert abs(first - 64 * 2**20) < 8 * 2**20 and abs(again - first) < 8 * 2**20
    weights = sum(parameter.nbytes for parameter in large.parameters())
    assert peak_memory(large, lambda: None) - weights < 4 * 2**20


def test_memory_does_not_count_the_other_model(teacher, student, processor):
    # Held for a while: on a busy machine memory that goes at once is gone before it is looked at.
    sizes = [peak_memory(student, lambda: (torch.ones(2**22), time.sleep(0.2))) for _ in range(2)]
    assert abs(sizes[0] - sizes[1]) < 2**22


def test_the_decoder_of_a_student_is_timed_too(teacher, processor):
    """Its greedy search on a CPU does without the output layer's own call, not without the model's."""
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    steps = []
    counter = student.model.decoder.register_forward_hook(lambda *call: steps.append(time.sleep(0.01)))
    with ForwardClock(student) as clock:
        generate_transcripts(student, processor, [noise(1.0)], GenerationOptions(language="en"))
    counter.remove()
    assert len(steps) > 1 and 0.01 * len(steps) <= clock.timing.decoder < clock.timing.total
