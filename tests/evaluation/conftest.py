"""A teacher that soon stops talking: random models write until they may not."""

import pytest

from ..tiny_models import tiny_whisper


@pytest.fixture
def teacher(demo_tokenizer):
    """A random 2 + 4 layer Whisper with a 2 s window, at most 16 tokens a window, and the demo's vocabulary."""
    return tiny_whisper(demo_tokenizer, max_target_positions=16)
