"""A few hundred broken inputs, the same each time; `python -m benchmarks.fuzz` tries as many as one likes."""

import datasets
import pytest

from benchmarks.fuzz import SUBJECTS, fuzz

COUNTS = {"audio": 120, "metadata": 40, "texts": 120, "recipes": 10}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_nothing_breaks_and_nothing_is_wrong_in_silence(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    found = fuzz(subject, COUNTS[subject])
    assert found.inputs >= COUNTS[subject] // 2
    assert found.tracebacks == found.half_files == found.wrong == []
