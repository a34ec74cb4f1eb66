"""Small real runs: 200 digits, a net of a few channels, seconds each."""

import pytest

from convjax.sweeps.options import Options
from tests.helpers.sweeps import SMALL


@pytest.fixture
def small():
    """A run that takes a second or two."""
    return SMALL


@pytest.fixture
def options(tmp_path):
    """Options with a store of the test's own."""
    return Options(workdir=str(tmp_path / "runs"))
