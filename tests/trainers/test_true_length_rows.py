"""The order of rows at true length: every row once, in steps of one context, whatever the step is split into."""

import copy
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.filtering import usable_rows
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.row_checks import RowCheck
from fastwhisper.errors import InputError
from fastwhisper.trainers import true_length_rows
from fastwhisper.trainers.askd_trainer import ASKDTrainer
from fastwhisper.trainers.true_length_rows import TrueLengthSampler, rows_audio_frames

from ..hub_folders import demo_processor
from ..sounds import tone, write_speech_folder
from ..tiny_models import tiny_whisper

WINDOW = 3_000
# 103 rows of 4 contexts, one of them the window's.
CONTEXTS = [(200, 300, 700, WINDOW)[index * index % 4] for index in range(70)] + [400] * 33


def sampler(step_rows=8, probability=0.25, seed=3, contexts=CONTEXTS):
    return TrueLengthSampler(contexts, WINDOW, step_rows, probability, seed)


def epoch(order, number):
    order.set_epoch(number)
    return list(order)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_every_row_comes_once_an_epoch(probability):
    order = sampler(probability=probability)
    assert len(order) == len(CONTEXTS)
    for number in range(3):
        drawn = epoch(order, number)
        assert sorted(row for row, _ in drawn) == list(range(len(CONTEXTS)))
        share = sum(full for _, full in drawn) / len(drawn)
        assert share == probability if probability in (0.0, 1.0) else 0.1 < share < 0.45


def test_steps_hold_one_context_but_for_what_is_left_over():
    for number in range(4):
        drawn = epoch(sampler(), number)
        heard = [WINDOW if full else CONTEXTS[row] for row, full in drawn]
        steps = [heard[start : start + 8] for start in range(0, len(heard), 8)]
        pure = Counter(step[0] for step in steps if len(step) == 8 and len(set(step)) == 1)
        expected = {context: count // 8 for context, count in Counter(heard).items()}
        mixed = [step for step in steps if len(set(step)) > 1]
        # A step of leftovers may happen to be of one context.
        assert all(pure[context] >= expected[context] for context in expected)
        assert sum(map(len, steps)) - 8 * sum(expected.values()) < 8 * len(expected)
        assert all(step == sorted(step) for step in mixed) and [len(step) for step in steps[:-1]] == [8] * 12


def test_the_order_changes_with_epoch_and_seed_alone():
    order = sampler()
    assert epoch(order, 0) == epoch(sampler(), 0) == epoch(order, 0)
    assert epoch(order, 0) != epoch(order, 1) != epoch(sampler(seed=4), 1)
    heads = {tuple(epoch(order, number)[0] for _ in range(1)) for number in range(8)}
    assert len(heads) > 4


def test_draws_depend_on_seed_epoch_and_row_alone():
    """Not on the rows of a step, nor on how many rows there are."""
    draws = dict(epoch(sampler(step_rows=8), 2))
    assert dict(epoch(sampler(step_rows=1), 2)) == dict(epoch(sampler(step_rows=64), 2)) == draws
    fewer = dict(epoch(sampler(contexts=CONTEXTS[:50]), 2))
    assert fewer == {row: draws[row] for row in range(50)}
    assert dict(epoch(sampler(), 3)) != draws != dict(epoch(sampler(seed=4), 2))


# ---- where the lengths come from ----


SECONDS = [0.4, 2.5, 1.0, 1.51, 3.999]


@pytest.fixture
def rows(tmp_path):
    return load_speech_dataset(write_speech_folder(tmp_path / "speech", SECONDS))


def test_the_check_of_the_rows_keeps_their_seconds(rows, demo_tokenizer, monkeypatch):
    """Rows that are dropped take their seconds along; nothing is read a second time."""
    processor = demo_processor(demo_tokenizer, seconds=2)
    usable = usable_rows(rows, RowCheck.for_training(processor))
    assert usable.seconds == pytest.approx([0.4, 1.0, 1.51])
    again = usable_rows(rows, RowCheck.for_training(processor))
    assert again.seconds == usable.seconds  # from the cache
    monkeypatch.setattr(true_length_rows, "audio_duration", None)
    assert rows_audio_frames(usable.dataset, usable.seconds, processor.feature_extractor) == [40, 100, 151]
    assert usable_rows(rows.to_iterable_dataset(), RowCheck()).seconds is None


def test_lengths_without_a_check_are_those_that_the_collator_finds(rows, demo_tokenizer):
    processor = demo_processor(demo_tokenizer, seconds=4)
    prepared = processor.feature_extractor(tone(1.7), sampling_rate=16_000, return_tensors="np").input_features[0]
    everything = [*rows, {"input_features": prepared, "labels": [1]}]
    found = rows_audio_frames(everything, None, processor.feature_extractor)
    batch = SpeechCollator(processor, true_length=True)([{**row, "labels": [1]} for row in everything])
    assert found == batch["audio_frames"].tolist()
    assert found[:5] == [40, 250, 100, 151, 400] and abs(found[5] - 170) <= 1
    assert rows_audio_frames(Dataset.from_list(everything[5:]), [None], processor.feature_extractor) == found[5:]


def test_seconds_of_other_rows_are_refused(rows, demo_tokenizer):
    with pytest.raises(InputError, match="train_seconds names 2 lengths for 5 rows"):
        rows_audio_frames(rows, [1.0, 2.0], demo_processor(demo_tokenizer).feature_extractor)


# ---- in a Trainer ----


def clips(seconds):
    return [{"audio": {"array": tone(length), "sampling_rate": 16_000}, "labels": [5, 6]} for length in seconds]


@pytest.fixture
def trainer_of(demo_tokenizer, tmp_path):
    def build(dataset, train_seconds=None, probability=0.25, **settings):
        teacher = tiny_whisper(demo_tokenizer, seconds=4)
        settings = {
            "per_device_train_batch_size": 4, "max_steps": 8, "save_strategy": "no", "report_to": "none",
            "use_cpu": True, "disable_tqdm": True, "true_length": True, "full_length_probability": probability,
            **settings,
        }  # fmt: skip
        return ASKDTrainer(
            model=FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1),
            teacher_model=teacher,
            args=ASKDTrainingArguments(output_dir=str(tmp_path / "run"), **settings),
            train_dataset=dataset,
            train_seconds=train_seconds,
            data_collator=SpeechCollator(demo_processor(demo_tokenizer, seconds=4)),
        )

    return build


def batches(trainer, number=0):
    loader = trainer.get_train_dataloader()
    loader.set_epoch(number)
    return [(b["input_features"].shape[-1], b["context_frames"].tolist()) for b in loader]


LENGTHS = [0.3 + 0.01 * index for index in range(16)] + [1.6] * 8 + [3.4] * 9


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_as_wide_as_their_context(trainer_of, workers):
    trainer = trainer_of(clips(LENGTHS), probability=0.0, dataloader_num_workers=workers)
    seen = batches(trainer)
    assert all(width == max(contexts) for width, contexts in seen)
    assert sorted(frames for _, contexts in seen for frames in contexts) == [100] * 16 + [300] * 8 + [400] * 9
    assert all(len(set(contexts)) == 1 for _, contexts in seen)
    full = batches(trainer_of(clips(LENGTHS), probability=1.0))
    assert all(width == 400 and set(contexts) == {400} for width, contexts in full)


def test_epochs_draw_anew_and_given_seconds_are_believed(trainer_of):
    trainer = trainer_of(clips(LENGTHS), train_seconds=LENGTHS)
    assert batches(trainer, 0) == batches(trainer, 0) != batches(trainer, 1)
    assert trainer.train_dataset[0].keys() == {"audio", "labels"}


def test_a_stream_is_not_grouped(trainer_of):
    def rows():
        yield from clips(LENGTHS)

    from datasets import IterableDataset

    seen = batches(trainer_of(IterableDataset.from_generator(rows), probability=0.5))
    contexts = [frames for _, batch in seen for frames in batch]
    own = [100 * int(np.ceil(length + 0.5 - 1e-9)) for length in LENGTHS]
    assert all(frames in (mine, 400) for frames, mine in zip(contexts, own, strict=True))
    assert 4 < sum(frames != mine for frames, mine in zip(contexts, own, strict=True)) < 24


def test_the_order_of_transformers_stays_without_true_length(trainer_of, demo_tokenizer):
    settings = {"true_length": False, "train_sampling_strategy": "sequential", "remove_unused_columns": False}
    trainer = trainer_of(clips([0.3 + 0.1 * index for index in range(6)]), max_steps=1, **settings)
    with pytest.raises(KeyError):
        batches(copy.copy(trainer))
    widths = [batch["input_features"].shape[-1] for batch in trainer.get_train_dataloader()]
    assert widths == [400, 400]
    names = type(trainer._get_train_sampler()).__name__
    assert names == "SequentialSampler"
    with pytest.raises(InputError, match="leave out train_sampling_strategy=sequential"):
        trainer_of(clips(LENGTHS), train_sampling_strategy="sequential")
