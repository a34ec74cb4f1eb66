"""Pooling and the gradient of windows against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from convjax.nn.fast.strided import compiled_apart, overlap_add, strided
from convjax.nn.pool import avg_pool, max_pool

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

GEOMETRY = [
    ((2, 2), (2, 2)),
    ((3, 3), (2, 2)),
    ((3, 2), (1, 3)),
    ((2, 2), (3, 3)),
    ((1, 1), (1, 1)),
    ((5, 1), (2, 1)),
    ((4, 4), (4, 4)),
]


def reference(x, window, strides, kind):
    dimensions = (1, *window, 1), (1, *strides, 1), "VALID"
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, *dimensions)
    return lax.reduce_window(x, 0.0, lax.add, *dimensions) / float(np.prod(window))


@pytest.mark.parametrize(("window", "strides"), GEOMETRY)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_output_and_gradient_agree_with_xla(kind, window, strides):
    """On small whole numbers, so that most windows tie."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, (2, 9, 10, 3)), jnp.float32)
    pool = {"max": max_pool, "avg": avg_pool}[kind]
    y = reference(x, window, strides, kind)
    weights = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)

    def output_and_gradient(function):
        return jit(lambda x: (function(x), jax.grad(lambda x: jnp.vdot(function(x), weights))(x)))(x)

    actual = output_and_gradient(lambda x: pool(x, window, strides))
    expected = output_and_gradient(lambda x: reference(x, window, strides, kind))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-6)


def test_the_stride_is_the_window_by_default():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(max_pool(x, (3, 2))[0, :, :, 0], [[13, 15, 17], [31, 33, 35]])
    np.testing.assert_array_equal(avg_pool(x, (3, 2))[0, :, :, 0], [[6.5, 8.5, 10.5], [24.5, 26.5, 28.5]])


def test_rows_and_columns_left_over_get_no_gradient():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, (2, 2))))(jnp.ones((1, 5, 5, 1)))[0, :, :, 0]
    assert gradient.sum() == 4
    assert not gradient[4].any()
    assert not gradient[:, 4].any()


def test_more_window_positions_than_int8_counts():
    x = jnp.zeros((1, 12, 12, 1)).at[0, 11, 11, 0].set(1.0)
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, (12, 12))))(x)
    np.testing.assert_array_equal(gradient, x)


@pytest.mark.parametrize(
    ("starts", "stride", "count", "size"),
    [
        ([0, 1, 2], 1, 5, 7),
        ([0, 1, 2], 2, 3, 9),
        ([-1, 0, 1], 1, 6, 6),
        ([-2, 1, 0, 1], 3, 3, 8),
        ([4], 5, 1, 7),
    ],
)
def test_overlap_add_is_the_transpose_of_slicing(starts, stride, count, size):
    rng = np.random.default_rng(0)
    pieces = rng.standard_normal((len(starts), 2, count, 3)).astype(np.float32)
    expected = np.zeros((2, size, 3), np.float32)
    for piece, start in zip(pieces, starts, strict=True):
        for index in range(count):
            if 0 <= start + stride * index < size:
                expected[:, start + stride * index] += piece[:, index]
    np.testing.assert_allclose(overlap_add(list(jnp.asarray(pieces)), starts, stride, size, 1), expected, atol=1e-6)


def test_strided():
    np.testing.assert_array_equal(strided(jnp.arange(20).reshape(2, 10), 1, 3, 4, 1), [[1, 5, 9], [11, 15, 19]])


def test_one_pass_is_not_merged_into_its_users():
    """On CPU the compiled program calls it: nothing that reads the result computes it again."""
    double = compiled_apart(lambda factor, x: factor * x)
    program = jax.jit(lambda x: jnp.sum(jnp.sin(double(2.0, x)))).lower(jnp.ones(1000)).compile().as_text()
    assert "call(" in program
    assert jax.grad(lambda x: double(2.0, x))(1.0) == 2.0
