"""Keras 3 on its JAX backend is the oracle here. It must be set up before anything imports it."""

import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
# Keras writes its settings there, and would read the user's.
_home = tempfile.TemporaryDirectory(prefix="convjax-keras-")
os.environ["KERAS_HOME"] = _home.name

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _keras_rules():
    """Keras relies on JAX's ordinary type promotion, which the other tests forbid."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def pytest_collection_modifyitems(items):
    """Keras's own deprecated calls are not ours to fail on."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(r"ignore::DeprecationWarning:keras\..*"))
