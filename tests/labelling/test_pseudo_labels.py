"""Labels: each row once, killed and resumed as in one run, long rows, audio from memory, the WER filter."""

import json

import pytest
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import WhisperFeatureExtractor, WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.filtering import drop_unusable_rows
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError
from fastwhisper.files import held_folder
from fastwhisper.labelling import pseudo_labels
from fastwhisper.labelling.pseudo_labels import LabelSettings, label_dataset, timestamped
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts
from fastwhisper.transcription.transcripts import Segment, Transcript

from ..recordings import write_only_words
from ..sounds import (
    tone,
    write_nan,
    write_noise_bytes,
    write_one_sample,
    write_speech_folder,
    write_tone,
    write_torn,
)
from ..tiny_models import tiny_whisper

PLAIN = LabelSettings(GenerationOptions(language="en", batch_size=2))


@pytest.fixture(scope="module")
def processor(demo_tokenizer):
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=2), demo_tokenizer)


@pytest.fixture(scope="module")
def model(demo_tokenizer):
    return tiny_whisper(demo_tokenizer, encoder_layers=1, decoder_layers=1, max_target_positions=24)


@pytest.fixture
def dataset(tmp_path):
    return load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5]))


def read(report):
    return [json.loads(line) for line in report.metadata.read_text().splitlines()]


def test_every_row_is_beside_its_label(model, processor, dataset, tmp_path):
    report = label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
    rows = read(report)
    assert report.labelled == report.kept == len(rows) == 7
    clips = [load_audio(row["audio"]) for row in dataset]
    expected = [generate_transcripts(model, processor, clips[i : i + 2], PLAIN.options) for i in range(0, 7, 2)]
    assert [row["text"] for row in rows] == [transcript.text for batch in expected for transcript in batch]
    assert len({row["text"] for row in rows}) > 1
    assert [row["reference"] for row in rows] == dataset["text"][:]
    assert [row["speaker"] for row in rows] == dataset["speaker"][:]
    assert [row["duration"] for row in rows] == [0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5]
    assert "timestamped_text" not in rows[0] and {row["language"] for row in rows} == {"en"}
    loaded = load_speech_dataset(tmp_path / "labels")
    assert [load_audio(row["audio"]).size for row in loaded] == [clip.size for clip in clips]
    assert loaded["text"][:] == [row["text"] for row in rows]


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_teacher_at_true_length_labels_each_row_as_it_would_alone(demo_tokenizer, dataset, tmp_path, timestamps):
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=4), demo_tokenizer)
    stock = tiny_whisper(demo_tokenizer, seconds=4, init_std=0.5, max_target_positions=24)
    write_only_words(stock, demo_tokenizer)
    teacher = FastWhisperForConditionalGeneration.from_teacher(stock, decoder_layers=2)
    teacher.config.true_length = True
    positions = set()
    teacher.model.encoder.layers[0].register_forward_pre_hook(lambda layer, inputs: positions.add(inputs[0].shape[1]))
    settings = LabelSettings(
        GenerationOptions(language="en", batch_size=3, timestamps=timestamps, temperatures=(0.0,))
    )
    rows = read(label_dataset(teacher, processor, dataset, tmp_path / "labels", settings))
    alone = [
        generate_transcripts(teacher, processor, [load_audio(row["audio"])], settings.options)[0] for row in dataset
    ]
    assert [row["text"] for row in rows] == [transcript.text for transcript in alone]
    assert len({row["text"] for row in rows}) > 3 and max(positions) == 100
    if timestamps:
        assert [row["timestamped_text"] for row in rows] == [timestamped(transcript) for transcript in alone]


class Killed(BaseException):
    """As a signal: nothing may catch it."""


def killed_after(batches):
    calls = []

    def generate(*arguments):
        calls.append(1)
        if len(calls) > batches:
            raise Killed
        return generate_transcripts(*arguments)

    generate.calls = calls
    return generate


def test_killed_and_resumed_equals_one_run(model, processor, dataset, tmp_path, monkeypatch):
    whole = label_dataset(model, processor, dataset, tmp_path / "whole", PLAIN).metadata.read_bytes()
    output = tmp_path / "killed"
    monkeypatch.setattr(pseudo_labels, "generate_transcripts", killed_after(2))
    with pytest.raises(Killed):
        label_dataset(model, processor, dataset, output, PLAIN)
    assert not (output / "metadata.jsonl").exists()
    part = output / "parts" / "process-00000.jsonl"
    assert len(part.read_text().splitlines()) == 2
    # Killed again, now in the middle of writing a line.
    part.write_bytes(part.read_bytes()[:-20])
    resumed = killed_after(99)
    monkeypatch.setattr(pseudo_labels, "generate_transcripts", resumed)
    report = label_dataset(model, processor, dataset, output, PLAIN)
    assert len(resumed.calls) == 3
    assert report.metadata.read_bytes() == whole
    # Run once more, there is nothing left to do.
    monkeypatch.setattr(pseudo_labels, "generate_transcripts", killed_after(0))
    assert label_dataset(model, processor, dataset, output, PLAIN).metadata.read_bytes() == whole


def test_batches_of_two_runs_count_once(model, processor, dataset, tmp_path):
    """Where a file system knows no locks."""
    once = label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN).metadata.read_bytes()
    parts = tmp_path / "labels" / "parts"
    (parts / "process-00001.jsonl").write_bytes((parts / "process-00000.jsonl").read_bytes())
    report = label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
    assert report.metadata.read_bytes() == once and (report.labelled, report.kept) == (7, 7)


def test_a_folder_that_another_run_labels_into_is_refused(model, processor, dataset, tmp_path):
    with held_folder(tmp_path / "labels", PartialState()):
        with pytest.raises(InputError, match="another run writes into .*labels"):
            label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
        assert not (tmp_path / "labels" / "parts").exists()
    assert label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN).kept == 7


def test_other_settings_are_refused(model, processor, dataset, tmp_path):
    label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
    others = LabelSettings(GenerationOptions(language="en", batch_size=3))
    with pytest.raises(InputError, match="other settings .batch_size 2, now 3.: remove it or choose another folder"):
        label_dataset(model, processor, dataset, tmp_path / "labels", others)
    with pytest.raises(InputError, match="rows 7, now 2"):
        label_dataset(model, processor, dataset.take(2), tmp_path / "labels", PLAIN)


def test_nobodys_files_are_written_over(model, processor, dataset, tmp_path):
    before = (tmp_path / "speech" / "metadata.csv").read_bytes()
    with pytest.raises(InputError, match="not empty and was not started by fastwhisper label"):
        label_dataset(model, processor, dataset, tmp_path / "speech", PLAIN)
    assert (tmp_path / "speech" / "metadata.csv").read_bytes() == before
    with pytest.raises(InputError, match="is a file"):
        label_dataset(model, processor, dataset, tmp_path / "speech" / "0.wav", PLAIN)


def test_timestamps_and_long_rows_are_fit_for_training(model, processor, tmp_path, caplog):
    dataset = load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.5, 5.0, 1.0]))
    settings = LabelSettings(GenerationOptions(timestamps=True, batch_size=3, temperatures=(0.0,)))
    report = label_dataset(model, processor, dataset, tmp_path / "labels", settings)
    rows = read(report)
    assert [row["duration"] for row in rows] == [0.5, 5.0, 1.0]
    assert {row["language"] for row in rows} == {"en"}
    labels = load_speech_dataset(tmp_path / "labels")
    usable = drop_unusable_rows(labels, processor, max_target_positions=64)
    assert "1 of 3 rows dropped: 1 audio over 2 s" in caplog.text
    batch = SpeechCollator(processor, task="transcribe", timestamp_probability=1.0)(list(usable))
    assert batch["labels"].shape[0] == 2


def test_timestamps_are_tokens(demo_tokenizer):
    transcript = Transcript("a b", 2.0, [Segment("a", 0.0, 0.517), Segment("b", 0.52, 1.999)], "en")
    assert timestamped(transcript) == "<|0.00|> a<|0.52|><|0.52|> b<|2.00|>"
    ids = demo_tokenizer(timestamped(transcript), add_special_tokens=False).input_ids
    assert sum(token > demo_tokenizer.convert_tokens_to_ids("<|notimestamps|>") for token in ids) == 4


def test_audio_from_memory_is_written_beside(model, processor, tmp_path):
    encoded = (write_speech_folder(tmp_path, [0.5]) / "0.wav").read_bytes()
    audio = [{"bytes": encoded, "path": None}, {"bytes": encoded, "path": "inside/an/archive.wav"}]
    dataset = load_speech_dataset(Dataset.from_dict({"audio": audio, "text": ["a", "b"]}))
    label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
    assert sorted(path.name for path in (tmp_path / "labels" / "audio").iterdir()) == [
        "00000000.flac",
        "00000001.flac",
    ]
    (tmp_path / "labels").rename(tmp_path / "moved")
    for row in load_speech_dataset(tmp_path / "moved"):
        assert abs(load_audio(row["audio"]) - tone(frequency=200)).max() < 1e-3


def test_stream_of_a_generator(model, processor, tmp_path):
    def rows():
        for seconds in (0.5, 0.0, 0.6, 0.7):
            yield {"audio": {"array": tone(seconds), "sampling_rate": 16_000}, "nested": {"not": "plain"}}

    stream = load_speech_dataset(IterableDataset.from_generator(rows), require_text=False)
    written = read(label_dataset(model, processor, stream, tmp_path / "labels", PLAIN))
    assert [row["duration"] for row in written] == [0.5, 0.6, 0.7]
    assert written[0]["reference"] is None and "nested" not in written[0]
    with pytest.raises(InputError, match="no rows"):
        empty = IterableDataset.from_generator(lambda: iter(()))
        label_dataset(model, processor, empty, tmp_path / "empty", PLAIN)


@pytest.fixture
def heard(monkeypatch):
    """Make the teacher hear given texts, one a row."""

    def hear(texts):
        remaining = iter(texts)
        transcripts = lambda model, processor, clips, options: [  # noqa: E731
            Transcript(next(remaining), len(clip) / 16_000, [], "en") for clip in clips
        ]
        monkeypatch.setattr(pseudo_labels, "generate_transcripts", transcripts)

    return hear


def test_wer_filter(model, processor, tmp_path, heard):
    ten = "the quick brown fox jumps over a very lazy dog"
    references = [ten, ten, ten, None, "Hello, WORLD!", "10 cats"]
    texts = [
        ten,
        ten.replace("fox", "box"),
        ten.replace("quick brown", "slow red"),
        "anything",
        "hello world",
        "ten cats",
    ]
    dataset = load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.1] * 6, references))
    heard(texts)
    report = label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, wer_filter=0.1)
    assert (report.labelled, report.kept) == (6, 5)
    assert [row["text"] for row in read(report)] == [texts[index] for index in (0, 1, 3, 4, 5)]
    # Another filter needs no new labels.
    heard([])
    assert label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, wer_filter=0.05).kept == 4
    assert label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN).kept == 6


def test_wer_filter_that_leaves_nothing(model, processor, tmp_path, heard):
    heard(["something else"] * 2)
    dataset = load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.1] * 2))
    with pytest.raises(InputError, match="no rows left: all 2 labels differ from their reference by more than 10%"):
        label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, wer_filter=0.1)
    assert not (tmp_path / "labels" / "metadata.jsonl").exists()


@pytest.fixture
def bad_folder(tmp_path):
    """Seven rows, of which five have bad audio, two of them a whole batch."""
    folder = write_speech_folder(tmp_path / "bad", [0.3, 0.0, 0.7, 0.9, 1.1, 1.3, 1.5])
    for name, write in (("2", write_nan), ("3", write_noise_bytes), ("4", write_torn), ("6", write_one_sample)):
        write(folder / f"{name}.wav")
    return folder


def written_as(stream, folder):
    return load_speech_dataset(folder, streaming=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_bad_audio_is_left_out_by_name(model, processor, bad_folder, tmp_path, caplog, stream):
    report = label_dataset(model, processor, written_as(stream, bad_folder), tmp_path / "labels", PLAIN)
    assert [row["reference"] for row in read(report)] == ["sentence 0", "sentence 5"]
    assert (report.labelled, report.kept) == (2, 2)
    assert report.dropped == {"bad audio": 3, "empty audio": 1, "audio under 0.02 s": 1}
    said = [record.getMessage() for record in caplog.records]
    assert said[-1] == "5 of 7 rows dropped: 1 audio under 0.02 s, 3 bad audio, 1 empty audio"
    for index in (1, 2, 3, 4, 6):
        assert sum(f"row {index} dropped: " in line and f"{index}.wav" in line for line in said) == 1


def test_a_clip_that_breaks_or_is_mended_between_two_runs(model, processor, bad_folder, tmp_path, monkeypatch, caplog):
    """What is done stays, and no row gets the label of another."""
    output = tmp_path / "labels"
    monkeypatch.setattr(pseudo_labels, "generate_transcripts", killed_after(1))
    with pytest.raises(Killed):
        label_dataset(model, processor, load_speech_dataset(bad_folder), output, PLAIN)
    monkeypatch.undo()
    write_tone(bad_folder / "1.wav")  # its batch is done
    write_tone(bad_folder / "6.wav")
    write_torn(bad_folder / "5.wav")
    report = label_dataset(model, processor, load_speech_dataset(bad_folder), output, PLAIN)
    assert [row["reference"] for row in read(report)] == ["sentence 0", "sentence 6"]
    assert "5 of 7 rows dropped" in caplog.messages[-1] and len(caplog.messages) == 6


def test_bad_audio_can_stop_before_anything_is_written(model, processor, bad_folder, tmp_path):
    dataset = load_speech_dataset(bad_folder)
    message = "row 1: .*1.wav is empty: it has no samples, and 4 more rows have bad audio"
    with pytest.raises(InputError, match=message):
        label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, on_bad_audio="stop")
    assert not (tmp_path / "labels").exists()
    with pytest.raises(InputError, match="on_bad_audio='no'"):
        label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, on_bad_audio="no")
    with pytest.raises(InputError, match="^row 1: .*1.wav is empty"):
        stream = dataset.to_iterable_dataset()
        label_dataset(model, processor, stream, tmp_path / "labels", PLAIN, on_bad_audio="stop")


def test_nothing_but_bad_audio(model, processor, tmp_path):
    folder = write_speech_folder(tmp_path / "speech", [0.1, 0.0])
    write_nan(folder / "0.wav")
    message = "no rows left: 2 of 2 rows dropped: 1 bad audio, 1 empty audio; row 0: .*0.wav has samples that are NaN"
    with pytest.raises(InputError, match=message):
        label_dataset(model, processor, load_speech_dataset(folder), tmp_path / "labels", PLAIN)


def test_references_with_timestamps(model, processor, tmp_path, heard):
    texts = ["<|0.00|> the cat sat<|0.10|><|0.10|> down<|0.20|>", "<|0.00|>the cat<|0.20|><|0.20|>sat down<|0.30|>"]
    dataset = load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.1] * 2, texts))
    heard(["The cat sat down."] * 2)
    report = label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, wer_filter=0.0)
    assert [row["reference"] for row in read(report)] == ["the cat sat down"] * 2


def test_the_language_of_the_labels_is_that_of_the_table(model, processor, tmp_path):
    """Not the row's own, which the flag has overruled."""
    dataset = load_speech_dataset(write_speech_folder(tmp_path / "speech", [0.1] * 2))
    dataset = dataset.add_column("language", [1, 2])
    report = label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
    assert [row["language"] for row in read(report)] == ["en", "en"]
