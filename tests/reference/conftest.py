"""Keras 3 on its JAX backend is the oracle here."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _keras_rules():
    """Keras relies on JAX's ordinary promotion, which the other tests forbid."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
