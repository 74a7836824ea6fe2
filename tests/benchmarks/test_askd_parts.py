import json
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from benchmarks.askd.blind_spot import falsified, planted_words
from benchmarks.askd.config import BlindSpot, Dev, Measuring, Source
from benchmarks.askd.inventions import speechless_clips
from benchmarks.askd.lines import Lines
from benchmarks.askd.measures import count_clips
from benchmarks.askd.place import Place
from benchmarks.askd.plan import FINAL, TUNE, Cell, chosen_rate, final_cells, sets_of, tune_cells
from benchmarks.askd.speech_sets import Clip
from benchmarks.askd.splits import dev_speakers, load_rows, split
from fastwhisper.data.audio import load_audio
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError


def test_dev_has_no_speaker_in_common_with_train(askd_places, askd_settings, askd_config, tmp_path):
    config = askd_config(askd_settings)
    place = Place(askd_places / "models", askd_places / "data", tmp_path)
    train, dev = (load_speech_dataset(folder) for folder in split(config, place))
    assert set(train["speaker"]).isdisjoint(dev["speaker"])
    assert len(train) + len(dev) == 18 and set(dev["group"]) == {"adult", "child"}
    assert set(dev["text"]) <= {"Yes please.", "Good night.", "I'm here.", "Open the door."}


def test_every_group_gives_its_share_of_speakers():
    speakers = [f"{group}{index}" for group in "ab" for index in range(10) for _ in range(index + 1)]
    rows = Dataset.from_dict({"speaker": speakers, "group": [speaker[0] for speaker in speakers]})
    chosen = dev_speakers(rows, Dev(share=0.3))
    assert Counter(speaker[0] for speaker in chosen) == {"a": 3, "b": 3}
    assert chosen == dev_speakers(rows, Dev(share=0.3)) != dev_speakers(rows, Dev(share=0.3, seed=1))


def test_the_last_speaker_of_a_group_is_not_taken():
    rows = Dataset.from_dict({"speaker": ["x", "y", "z"], "group": ["a", "a", "b"]})
    with pytest.raises(InputError, match="'b' has one speaker"):
        dev_speakers(rows, Dev())
    with pytest.raises(InputError, match="no column 'reader'"):
        dev_speakers(rows, Dev(speaker="reader"))


def test_copies_are_of_the_training_rows_alone(askd_places, askd_settings, askd_config, tmp_path):
    askd_settings["augmentation"] = {"copies": 1, "speeds": [2.0, 2.0], "noise_decibels_below": [20.0, 20.0]}
    place = Place(askd_places / "models", askd_places / "data", tmp_path)
    train, dev = (load_speech_dataset(folder) for folder in split(askd_config(askd_settings), place))
    half = len(train) // 2
    assert len(dev) + half == 18 and train["text"][:half] == train["text"][half:]
    assert train["speaker"][:half] == train["speaker"][half:]
    clean, copied = (load_audio(train[index]["audio"]) for index in (0, half))
    assert len(copied) == pytest.approx(len(clean) / 2, abs=2)
    # The same tone, an octave up, and noise 20 dB below it.
    spectrum = np.abs(np.fft.rfft(copied)) ** 2
    loud = spectrum > spectrum.max() / 100
    assert 10 * np.log10(spectrum[loud].sum() / spectrum[~loud].sum()) == pytest.approx(20, abs=2)
    pitches = [np.abs(np.fft.rfft(samples)).argmax() / len(samples) for samples in (clean, copied)]
    assert pitches[1] == pytest.approx(2 * pitches[0], rel=0.02)


def test_joined_rows_are_of_one_speaker_and_lose_nothing(askd_places, askd_settings, askd_config, tmp_path):
    place = Place(askd_places / "models", askd_places / "data", tmp_path)
    alone = load_speech_dataset(split(askd_config(askd_settings), place)[0])
    askd_settings["augmentation"] = {"joined_probability": 1.0}
    train, dev = (load_speech_dataset(folder) for folder in split(askd_config(askd_settings), place))
    assert len(train) == 8 < len(alone) == 12 and set(train["speaker"]).isdisjoint(dev["speaker"])
    for speaker in set(alone["speaker"]):
        its, before = ([row for row in rows if row["speaker"] == speaker] for rows in (train, alone))
        assert " ".join(row["text"] for row in its) == " ".join(row["text"] for row in before)
        heard, spoken = (np.concatenate([load_audio(row["audio"]) for row in rows]) for rows in (its, before))
        assert np.allclose(heard, spoken, atol=1e-4)


def test_a_limit_takes_rows_from_all_over(askd_places, tmp_path):
    place = Place(askd_places / "models", askd_places / "data", tmp_path)
    rows = load_rows(Source("train", limit=6), place)
    assert len(rows) == 6 and len(set(rows["speaker"])) == 6


def test_planted_words_are_frequent_and_their_substitutes_are_not_planted():
    texts = ["The cat sat.", "The cat ran.", "A dog sat, it's rare.", "A dog ran."]
    planted = planted_words(texts, BlindSpot(share=0.5, least_count=2))
    assert len(planted) == 3 and planted.keys() <= {"the", "cat", "sat", "ran", "a", "dog"}
    assert planted.keys().isdisjoint(planted.values()) and len(set(planted.values())) == 3
    assert planted == planted_words(texts, BlindSpot(share=0.5, least_count=2))


def test_falsified_texts_keep_their_capitals():
    assert falsified("The cat's cat, the Thecat.", {"the": "a", "cat": "dog"}) == "A cat's dog, a Thecat."


def test_planted_words_are_counted_apart(demo_tokenizer):
    clips = [Clip(None, "", 0, "The cat saw the cat.", "en"), Clip(None, "", 0, "A cat!", "en")]
    found = count_clips(clips, ["the dog saw a cat cat", "a"], demo_tokenizer, {"cat": "dog"})
    assert found["planted"] == {"words": 3, "errors": 2, "as_the_teacher": 1}
    assert (found["errors"], found["words"], found["wer"]) == ([3, 1], [5, 2], pytest.approx(4 / 7))
    assert (found["substitutions"], found["deletions"], found["insertions"]) == (2, 1, 1)


def test_silence_and_windows_of_noise(askd_places):
    measuring = Measuring(silence_seconds=[0.5, 1.0], noise=None)
    place = Place(None, askd_places / "data", askd_places)
    assert [clip.samples for clip in speechless_clips(measuring, place, "en")["silence"]] == [8000, 16000] * 2
    loudest = [np.abs(clip.audio["array"]).max() for clip in speechless_clips(measuring, place, "en")["silence"]]
    assert loudest[:2] == [0, 0] and all(0 < each < 0.01 for each in loudest[2:])


def test_windows_of_noise_are_within_it(askd_places, askd_settings, askd_config):
    askd_settings["measuring"].update(silence_seconds=[0.3, 1.0], noise_windows=2)
    found = speechless_clips(
        askd_config(askd_settings).measuring, Place(None, askd_places / "data", askd_places), "en"
    )["noise"]
    # Tones of 0.4, 0.7 and 1.2 s: one, two and two windows of 0.3 s, and one of 1 s.
    assert Counter(clip.samples for clip in found) == {4800: 5, 16000: 1}


def test_a_torn_line_is_neither_read_nor_kept(tmp_path):
    lines = Lines(tmp_path / "cells.jsonl")
    lines.append({"key": "a", "value": 1})
    with lines.path.open("a") as file:
        file.write('{"key": "b", "val')
    assert list(lines.read()) == ["a"]
    lines.append({"key": "c", "value": 2})
    assert [json.loads(line)["key"] for line in lines.path.read_text().splitlines()] == ["a", "c"]
    assert lines.read()["c"]["versions"]["torch"]


def test_a_first_line_that_is_torn(tmp_path):
    lines = Lines(tmp_path / "cells.jsonl")
    lines.path.write_text('{"key"')
    lines.append({"key": "a"})
    assert list(lines.read()) == ["a"]


def test_a_changed_setting_is_another_cell_and_another_name_is_not(askd_settings, askd_config):
    config = askd_config(askd_settings)
    cell = Cell(FINAL, "references", config.teachers[0], "ASKD", 1e-3, 1)
    askd_settings["arms"]["other"] = dict(askd_settings["arms"]["ASKD"])
    askd_settings["tables"]["again"] = {}
    same = Cell(FINAL, "again", config.teachers[0], "other", 1e-3, 1)
    assert cell.key(config) == same.key(askd_config(askd_settings))
    for section, name, value in (
        ("training", "dropout", 0.2),
        ("training", "epochs", 2),
        ("initial", "learning_rate", 1e-4),
        ("augmentation", "copies", 1),
        ("measuring", "most_tokens", 13),
        ("arms", "ASKD", {"settings": {}}),
        ("tables", "references", {"labels": "pseudo"}),
    ):
        changed = {**askd_settings, section: {**askd_settings.get(section, {}), name: value}}
        assert cell.key(askd_config(changed)) != cell.key(config), (section, name)


def test_rates_may_be_tried_for_a_shorter_time(askd_settings, askd_config):
    config = askd_config(askd_settings)
    askd_settings["training"]["tune_epochs"] = 0.5
    shorter = askd_config(askd_settings)
    keys = {stage: Cell(stage, "references", config.teachers[0], "CE", 1e-3, 1).key for stage in (TUNE, FINAL)}
    assert keys[FINAL](config) == keys[FINAL](shorter) and keys[TUNE](config) != keys[TUNE](shorter)


def test_dev_chooses_the_rate(askd_settings, askd_config):
    config = askd_config(askd_settings)
    teacher = config.teachers[0]
    cells = tune_cells(config, "references", teacher, "CE")
    keys = [cell.key(config) for cell in cells]

    def done(*rates):
        lines = [{"sets": {"dev": {"wer": rate}}} if rate is not None else {"error": "not finite"} for rate in rates]
        return {
            key: {**line, "learning_rate": cell.learning_rate}
            for key, cell, line in zip(keys, cells, lines, strict=False)
        }

    def rate(lines):
        return chosen_rate(config, "references", teacher, "CE", lines)

    assert (rate(done(0.3)), rate(done(0.3, 0.2)), rate(done(0.2, 0.2))) == (None, 1e-3, 1e-4)
    assert (rate(done(None, 0.9)), rate(done(None, None))) == (1e-3, None)
    final = final_cells(config, "references", teacher, "CE", done(0.3, 0.2))
    assert [(cell.learning_rate, cell.seed) for cell in final] == [(1e-3, 1), (1e-3, 2)]


def test_sets_in_other_languages_are_for_teachers_that_know_them(askd_settings, askd_config):
    askd_settings["sets"]["german"] = {"data": "german", "language": "de", "multilingual": True}
    askd_settings["teachers"].append({"name": "tiny.en"})
    config = askd_config(askd_settings)
    assert [list(sets_of(config, teacher)) for teacher in config.teachers] == [["test", "german"], ["test"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": [{"nam": "tiny"}]}, "teachers has 'nam'; it can have name, language"),
        ({"training": {"epoch": 1}}, "training has 'epoch'"),
        ({"tables": {"one": {"arms": ["KD"]}}}, "table 'one' names the arm 'KD'; there are CE, ASKD"),
        ({"tables": {"one": {"labels": "gold"}}}, "labels='gold' is not one of references, pseudo"),
        ({"train": {"data": "train", "casing": "upper"}}, "casing='upper' is not one of"),
        ({"seeds": [0, 1]}, "tune_seed=0 is one of the seeds"),
        ({"baseline": "KD"}, "the baseline 'KD' is not one of the arms"),
        ({"main_set": "exam"}, "the main_set 'exam' is not one of the sets"),
        ({"keep_weights": ["KD"]}, "keep_weights names the arm 'KD'"),
    ],
)
def test_a_config_is_refused_in_one_line(change, message, askd_settings, askd_config):
    with pytest.raises(InputError, match=message):
        askd_config({**askd_settings, **change})


def test_rows_of_noise_need_no_text(askd_places, askd_settings, askd_config):
    noise = askd_config(askd_settings).measuring.noise
    assert len(load_rows(noise, Place(None, askd_places / "data", askd_places), require_text=False)) == 3
