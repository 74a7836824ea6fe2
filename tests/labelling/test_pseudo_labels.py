"""Labels: each row once, killed and resumed as in one run, long rows, audio from memory, the WER filter."""

import json

import pytest
from datasets import Dataset, IterableDataset
from transformers import WhisperFeatureExtractor, WhisperProcessor

from fastwhisper.data.audio import load_audio
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.filtering import drop_unusable_rows
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError
from fastwhisper.labelling import pseudo_labels
from fastwhisper.labelling.pseudo_labels import LabelSettings, label_dataset, timestamped
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts
from fastwhisper.transcription.transcripts import Segment, Transcript

from ..sounds import tone, write_nan, write_speech_folder
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
    assert "timestamped_text" not in rows[0] and "language" not in rows[0]
    loaded = load_speech_dataset(tmp_path / "labels")
    assert [load_audio(row["audio"]).size for row in loaded] == [clip.size for clip in clips]
    assert loaded["text"][:] == [row["text"] for row in rows]


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


def test_other_settings_are_refused(model, processor, dataset, tmp_path):
    label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN)
    others = LabelSettings(GenerationOptions(language="en", batch_size=3))
    with pytest.raises(InputError, match="other settings .batch_size 2, now 3.: remove it or choose another folder"):
        label_dataset(model, processor, dataset, tmp_path / "labels", others)
    with pytest.raises(InputError, match="rows 7, now 2"):
        label_dataset(model, processor, dataset.take(2), tmp_path / "labels", PLAIN)


def test_nobodys_files_are_written_over(model, processor, dataset, tmp_path):
    before = (tmp_path / "speech" / "metadata.csv").read_bytes()
    with pytest.raises(InputError, match="not empty, and not begun by fastwhisper label"):
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
    with pytest.raises(InputError, match="no rows left: all 2 labels disagree with their reference by over 10%"):
        label_dataset(model, processor, dataset, tmp_path / "labels", PLAIN, wer_filter=0.1)
    assert not (tmp_path / "labels" / "metadata.jsonl").exists()


def test_bad_audio_is_found_before_anything_is_written(model, processor, tmp_path):
    write_nan(write_speech_folder(tmp_path / "speech", [0.1, 0.1]) / "1.wav")
    with pytest.raises(InputError, match="row 1: .*1.wav has samples that are NaN"):
        label_dataset(model, processor, load_speech_dataset(tmp_path / "speech"), tmp_path / "labels", PLAIN)
    assert not (tmp_path / "labels").exists()
