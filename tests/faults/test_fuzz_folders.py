"""Broken model folders, seeded: each is refused in one line or gives what the whole folder gives."""

from benchmarks.fuzz_folders import fuzz_model_folders


def test_broken_folders_are_refused_in_one_line_or_change_nothing():
    report = fuzz_model_folders(30, seed=7, verbs=["transcribe", "init", "card", "push", "slm transcribe"])

    assert report["tracebacks"] == [] and report["wrong in silence"] == []
    assert report["refused"] > 10
