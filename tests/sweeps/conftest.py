"""Small real runs: 200 digits, a net of a few channels, seconds each."""

import pytest

from convjax.config import RunConfig
from convjax.sweeps.run import Options


@pytest.fixture
def small():
    """A run that takes a second or two."""
    return RunConfig(dataset="mnist_5k", train_size=200, channels="4-6", dense_units="8", epochs=2)


@pytest.fixture
def options(tmp_path):
    """Options with a store of the test's own."""
    return Options(workdir=str(tmp_path / "runs"))
