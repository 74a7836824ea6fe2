"""A Hub on this machine for the tests that push."""

import pytest

from ..fake_hub import running_hub


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub
