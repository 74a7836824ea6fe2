"""A tiny FastSLM computes what it computed when golden_fastslm.json was written, on every version of its packages."""

import json

import numpy as np
import pytest

from ..golden.golden_fastslm import FILE, OPTIONS, outputs

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("option", OPTIONS)
def test_outputs_are_the_stored_ones(option):
    computed = outputs(option)
    assert computed.keys() == GOLDEN[option].keys()
    for name, stored in GOLDEN[option].items():
        np.testing.assert_allclose(computed[name], stored, atol=1e-3, rtol=1e-3, err_msg=name)


def test_the_options_compute_other_things():
    for name in ("speech", "logits", "answer", "stitched"):
        assert GOLDEN["published"][name] != GOLDEN["own options"][name]
