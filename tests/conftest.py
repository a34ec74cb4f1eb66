"""Settings for all tests: strict JAX, no network, caches in a folder of the session's own."""

import os
import tempfile

_cache = tempfile.TemporaryDirectory(prefix="convjax-tests-")
os.environ["XDG_CACHE_HOME"] = _cache.name
os.environ.pop("CONVJAX_DATA_DIR", None)
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# The same examples every time, however slow the machine: a failure can be looked into.
hypothesis.settings.register_profile(
    "convjax", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("convjax")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def digits():
    """The embedded digits: 4,000 real training and 1,000 test images."""
    from convjax import data

    return data.load("mnist_5k")
