"""Batches, trainers and settings for the tests of the ASKD trainer."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration

from ..tiny_models import tiny_whisper


def make_rows(count, vocab_size, seed=0, frames=200):
    """Rows with random features and labels of 3 to 9 tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "input_features": torch.randn(80, frames, generator=generator),
            "labels": torch.randint(vocab_size, (3 + index % 7,), generator=generator),
        }
        for index in range(count)
    ]


def collate(rows):
    labels = [row["labels"] for row in rows]
    return {
        "input_features": torch.stack([row["input_features"] for row in rows]),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
    }


@pytest.fixture
def make_trainer(demo_tokenizer, tmp_path):
    """Build a trainer of a fresh 2 layer student of the 4 layer teacher."""

    def build(rows=8, student=None, teacher=None, folder="run", callbacks=None, dataset=None, **settings):
        teacher = tiny_whisper(demo_tokenizer) if teacher is None else teacher
        if student is None:
            student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
        settings = {
            "per_device_train_batch_size": 4,
            "max_steps": 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "learning_rate": 1e-3,
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 0,
            **settings,
        }
        return ASKDTrainer(
            model=student,
            teacher_model=teacher,
            args=ASKDTrainingArguments(output_dir=str(tmp_path / folder), **settings),
            train_dataset=dataset if dataset is not None else make_rows(rows, len(demo_tokenizer)),
            data_collator=collate,
            callbacks=callbacks,
        )

    return build


def logged(trainer, key="loss"):
    """The values of a key over the log lines of training."""
    return [line[key] for line in trainer.state.log_history if "loss" in line]


def assert_same_training(mine, other, keys, rel=2e-5, abs=1e-7):
    """Two trainers have logged the same, and their weights are the same."""
    for key in keys:
        assert logged(mine, key) == pytest.approx(logged(other, key), rel=rel, abs=abs), key
    for (name, weight), expected in zip(mine.model.named_parameters(), other.model.parameters(), strict=True):
        # Adam divides a gradient near zero by its own size.
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=2e-5, msg=name)


class LargestTensor(TorchDispatchMode):
    """Within its context, `elements` is the size of the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return returned
