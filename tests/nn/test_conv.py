"""Every lowering against XLA's own convolution and pooling, with XLA's own gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from convjax.nn.activations import ACTIVATIONS
from convjax.nn.conv import Block, conv2d, conv_block, conv_stack
from convjax.nn.geometry import output_shape

METHODS = ("xla", "patches", "winograd")


def reference_block(x, kernel, bias, block):
    z = lax.conv_general_dilated(
        x,
        kernel,
        block.strides,
        block.padding.upper(),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    a = ACTIVATIONS[block.activation](z + bias)
    window, strides = (1, *block.pool_size, 1), (1, *block.pool_strides, 1)
    if block.pool == "max":
        return lax.reduce_window(a, -jnp.inf, lax.max, window, strides, "VALID")
    if block.pool == "avg":
        return lax.reduce_window(a, 0.0, lax.add, window, strides, "VALID") / float(np.prod(block.pool_size))
    return a


def reference_stack(x, blocks, parameters):
    for block, (kernel, bias) in zip(blocks, parameters, strict=True):
        x = reference_block(x, kernel, bias, block)
    return x


def draw(seed, *shapes, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def assert_close(actual, expected, tolerance=1e-5):
    """Largest difference, relative to the largest entry, or to 1, the size of what is summed, where terms cancel."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = max(np.abs(expected).max(), 1.0)
    assert np.abs(actual - expected).max() <= tolerance * scale


def check(blocks, x, parameters, methods, tolerance=1e-5):
    """Output and gradients with respect to input, kernels and biases, of each method against the reference."""
    (weights,) = draw(9, jax.eval_shape(lambda: reference_stack(x, blocks, parameters)).shape)

    def run(stack):
        def everything(x, parameters, weights):
            y, pull_back = jax.vjp(stack, x, parameters)
            return y, *jax.tree.leaves(pull_back(weights))

        # Optimisation takes most of the compiler's time and is not what is tested here.
        options = {"xla_backend_optimization_level": 0}
        return jax.jit(everything).lower(x, parameters, weights).compile(options)(x, parameters, weights)

    expected = run(lambda x, parameters: reference_stack(x, blocks, parameters))
    for method in methods:
        actual = run(lambda x, parameters, method=method: conv_stack(x, blocks, parameters, method=method))
        for a, e in zip(actual, expected, strict=True):
            assert_close(a, e, tolerance)


windows = st.tuples(st.integers(1, 7), st.integers(1, 7))
small = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def cases(draw):
    """A block and an image that it fits."""
    kernel, strides, pool_size, pool_strides = draw(windows), draw(small), draw(small), draw(small)
    padding = draw(st.sampled_from(("valid", "same")))
    image = draw(st.tuples(st.integers(1, 15), st.integers(1, 15)))
    pool = draw(st.sampled_from(("max", "avg", "none")))
    size = output_shape(image, kernel, strides, padding)
    if 0 in size:
        padding, size = "same", output_shape(image, kernel, strides, "same")
    if pool != "none" and 0 in output_shape(size, pool_size, pool_strides, "valid"):
        pool = "none"
    activation = draw(st.sampled_from(sorted(ACTIVATIONS)))
    block = Block(strides, padding, activation, pool, pool_size, pool_strides)
    channels = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    return block, (draw(st.integers(1, 3)), *image, channels[0]), (*kernel, *channels)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(cases())
def test_block_agrees_with_xla(case):
    block, image_shape, kernel_shape = case
    x, kernel, bias = draw(0, image_shape, kernel_shape, kernel_shape[-1:])
    check((block,), x, ((kernel, bias),), METHODS)


CHAPTER = (
    Block(activation="relu", pool="max", pool_size=(2, 2), pool_strides=(2, 2)),
    Block(activation="relu", pool="max", pool_size=(2, 2), pool_strides=(2, 2)),
    Block(activation="relu"),
)


def chapter_parameters(channels=(1, 8, 16, 16), size=3):
    shapes = [(size, size, a, b) for a, b in itertools.pairwise(channels)]
    return [
        (kernel / np.sqrt(np.prod(kernel.shape[:3])), bias)
        for kernel, bias in (draw(index, shape, shape[-1:]) for index, shape in enumerate(shapes))
    ]


@pytest.mark.parametrize("batch", [1, 16, 132])
def test_chapter_stack(batch):
    """132 images are worked on in chunks."""
    (x,) = draw(3, (batch, 28, 28, 1))
    check(CHAPTER, x, chapter_parameters(), ("auto", *METHODS))


@pytest.mark.parametrize("method", METHODS)
def test_between_sees_every_output_but_the_last_in_one_order(method):
    (x,) = draw(3, (2, 28, 28, 1))
    parameters = chapter_parameters()
    seen = []

    def between(index, y):
        seen.append((index, y.shape))
        return y * draw(index, y.shape)[0]

    actual = conv_stack(x, CHAPTER, parameters, method=method, between=between)
    assert seen == [(0, (2, 13, 13, 8)), (1, (2, 5, 5, 16))]
    expected = x
    for index, (block, (kernel, bias)) in enumerate(zip(CHAPTER, parameters, strict=True)):
        expected = reference_block(expected, kernel, bias, block)
        if index < 2:
            expected *= draw(index, expected.shape)[0]
    assert_close(actual, expected)


@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_seeds_equals_a_loop(method):
    (x,) = draw(3, (3, 4, 28, 28, 1))
    parameters = jax.tree.map(lambda p: jnp.stack([p, 2 * p, -p]), chapter_parameters())

    (weights,) = draw(4, (4, 3, 3, 16))

    @jax.jit
    def gradients(x, parameters):
        return jax.grad(lambda p: jnp.vdot(conv_stack(x, CHAPTER, p, method=method), weights))(parameters)

    together = jax.jit(jax.vmap(gradients))(x, parameters)
    for seed in range(3):
        one = gradients(x[seed], jax.tree.map(lambda p, seed=seed: p[seed], parameters))
        jax.tree.map(lambda a, b, seed=seed: assert_close(a[seed], b), together, one)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_scores_the_same_in_any_batch(method):
    (x,) = draw(3, (6, 28, 28, 1))
    run = jax.jit(lambda x: conv_stack(x, CHAPTER, chapter_parameters(), method=method))
    whole = run(x)
    assert_close(jnp.concatenate([run(x[:1]), run(x[1:4]), run(x[4:])]), whole, 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16(method):
    (x,) = draw(3, (4, 28, 28, 1))
    parameters = chapter_parameters()
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)  # noqa: E731
    run = lambda p: jnp.sum(conv_stack(cast(x), CHAPTER, p, method=method).astype(jnp.float32))  # noqa: E731
    y, gradients = jax.jit(jax.value_and_grad(run))(cast(parameters))
    assert jax.tree.leaves(gradients)[0].dtype == jnp.bfloat16
    assert_close(y, jnp.sum(reference_stack(x, CHAPTER, parameters)), 3e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", ["max", "avg", "none"])
def test_not_a_number_is_passed_on(method, pool):
    (x, kernel, bias) = draw(3, (2, 12, 12, 3), (3, 3, 3, 4), (4,))
    block = Block(activation="relu", pool=pool, pool_size=(2, 2), pool_strides=(2, 2))
    y = conv_stack(x.at[1, 5, 5, 0].set(jnp.nan), (block,), ((kernel, bias),), method=method)
    assert not np.isnan(y[0]).any()
    assert (
        np.isnan(reference_block(x.at[1, 5, 5, 0].set(jnp.nan), kernel, bias, block)[1]).any(axis=-1).sum()
        <= np.isnan(y[1]).any(axis=-1).sum()
    )


@pytest.mark.parametrize("method", METHODS)
def test_tied_maxima_give_the_gradient_to_the_first(method):
    """A constant image ties every window: each kernel entry sees only the first position of every window."""
    x = jnp.ones((1, 6, 6, 1)).at[0, 1, 1, 0].set(2.0)
    kernel, bias = jnp.ones((1, 1, 1, 1)), jnp.zeros(1)
    block = Block(pool="max", pool_size=(2, 2), pool_strides=(2, 2))
    gradient = jax.grad(lambda x: jnp.sum(conv_stack(x, (block,), ((kernel, bias),), method=method)))(x)
    expected = np.zeros((6, 6))
    expected[::2, ::2] = 1
    expected[0, 0], expected[1, 1] = 0, 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


def test_conv2d_and_conv_block_are_stacks_of_one():
    x, kernel, bias = draw(0, (2, 9, 8, 3), (3, 2, 3, 4), (4,))
    block = Block((2, 1), "same", "tanh", "avg", (2, 2), (1, 2))
    assert_close(
        conv2d(x, kernel, (2, 1), "same"),
        reference_block(x, kernel, jnp.zeros(4), Block((2, 1), "same")),
    )
    actual = conv_block(
        x,
        kernel,
        bias,
        strides=(2, 1),
        padding="same",
        activation="tanh",
        pool="avg",
        pool_size=(2, 2),
        pool_strides=(1, 2),
    )
    assert_close(actual, reference_block(x, kernel, bias, block))
