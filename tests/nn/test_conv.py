"""Every lowering against XLA's own convolution and pooling, with XLA's own gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from convjax.nn.activations import ACTIVATIONS
from convjax.nn.conv import Block, conv2d, conv_stack
from convjax.nn.fast import winograd
from convjax.nn.geometry import output_shape, pad_amounts

METHODS = ("xla", "patches", "winograd")

# Optimisation takes most of the compiler's time and is not what is tested here.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def reference_conv(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding.upper(),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def reference_block(x, kernel, bias, block):
    a = ACTIVATIONS[block.activation](reference_conv(x, kernel, block.strides, block.padding) + bias[None, None, None])
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


def output_and_gradients(function, *arguments):
    """The output of `function` and the gradients of a randomly weighted sum of it."""
    (weights,) = draw(9, jax.eval_shape(function, *arguments).shape)

    @jit
    def everything(arguments):
        y, pull_back = jax.vjp(function, *arguments)
        return y, *jax.tree.leaves(pull_back(weights))

    return everything(arguments)


def check(blocks, x, parameters, methods):
    """Output and gradients with respect to input, kernels and biases, of each method against the reference."""
    expected = output_and_gradients(lambda x, p: reference_stack(x, blocks, p), x, parameters)
    for method in methods:
        stack = lambda x, p, method=method: conv_stack(x, blocks, p, method=method)  # noqa: E731
        for a, e in zip(output_and_gradients(stack, x, parameters), expected, strict=True):
            assert_close(a, e)


small = st.tuples(st.integers(1, 3), st.integers(1, 3))


sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
cases = st.fixed_dictionaries(
    {
        "kernel": sizes,
        "strides": small,
        "pool_size": small,
        "pool_strides": small,
        "padding": st.sampled_from(("valid", "same")),
        "image": st.tuples(st.integers(1, 15), st.integers(1, 15)),
        "pool": st.sampled_from(("max", "avg", "none")),
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "channels": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "batch": st.integers(1, 3),
    }
)


def fitting(case):
    """A block that fits its image, and the shapes of images and kernel."""
    image, kernel, padding, pool = case["image"], case["kernel"], case["padding"], case["pool"]
    size = output_shape(image, kernel, case["strides"], padding)
    if 0 in size:
        padding, size = "same", output_shape(image, kernel, case["strides"], "same")
    if pool != "none" and 0 in output_shape(size, case["pool_size"], case["pool_strides"], "valid"):
        pool = "none"
    block = Block(case["strides"], padding, case["activation"], pool, case["pool_size"], case["pool_strides"])
    return block, (case["batch"], *image, case["channels"][0]), (*kernel, *case["channels"])


@settings(max_examples=8)
@given(cases)
def test_block_agrees_with_xla(case):
    check_block(case)


@pytest.mark.slow
@settings(max_examples=60)
@given(cases)
def test_many_blocks_agree_with_xla(case):
    check_block(case)


def check_block(case):
    block, image_shape, kernel_shape = fitting(case)
    x, kernel, bias = draw(0, image_shape, kernel_shape, kernel_shape[-1:])
    check((block,), x, ((kernel, bias),), METHODS)


@pytest.mark.parametrize(
    ("window", "strides", "padding", "tile", "groups"),
    [
        ((3, 2), (1, 1), "same", 7, 1),
        ((3, 3), (1, 1), "valid", 5, 1),
        ((2, 3), (1, 1), "same", 6, 1),
        ((1, 3), (2, 2), "valid", 3, 1),
        ((5, 5), (1, 1), "same", 4, 1),
        ((5, 5), (2, 2), "same", 6, 1),
        ((2, 5), (1, 3), "valid", 4, 1),
        ((3, 7), (1, 1), "same", 2, 1),
        ((3, 7), (1, 1), "same", 5, 2),
        ((2, 7), (3, 2), "valid", 3, 2),
        ((3, 3), (1, 1), "valid", 6, 1),
        ((4, 4), (2, 3), "same", 1, 1),
    ],
)
def test_every_tiling_agrees_with_xla(window, strides, padding, tile, groups):
    x, kernel = draw(1, (2, 11, 14, 3), (*window, 3, 4))
    size = output_shape((11, 14), window, strides, padding)
    before = tuple(low for low, _ in pad_amounts((11, 14), window, strides, padding))
    plan = winograd.Plan((11, 14), window, strides, before, size, tile, groups)

    def convolve(x, kernel):
        return winograd.convolve(x.transpose(3, 1, 2, 0), kernel, plan).transpose(3, 1, 2, 0)

    expected = output_and_gradients(lambda x, kernel: reference_conv(x, kernel, strides, padding), x, kernel)
    for a, e in zip(output_and_gradients(convolve, x, kernel), expected, strict=True):
        assert_close(a, e)


@pytest.mark.parametrize(("tile", "taps"), [(m, r) for m in range(1, 8) for r in range(2, 9 - m + 1)])
def test_minimal_filtering(tile, taps):
    """A^T ((G g) * (B^T d)) is the filter's output, for every F(m, r) of up to eight products."""
    a, g, b = (matrix.astype(np.float64) for matrix in winograd.transforms(tile, taps))
    rng = np.random.default_rng(0)
    signal, taps_drawn = rng.standard_normal(tile + taps - 1), rng.standard_normal(taps)
    direct = np.correlate(signal, taps_drawn, "valid")
    np.testing.assert_allclose(
        a.T @ ((g @ taps_drawn) * (b.T @ signal)), direct, atol=1e-6 * np.abs(direct).max() + 1e-6
    )


def test_filtering_as_published():
    """F(2, 3) of Lavin & Gray (2016), section 4.1, up to signs and scales that cancel between G and B."""
    a, g, b = winograd.transforms(2, 3)
    np.testing.assert_array_equal(np.abs(b.T), [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]])
    np.testing.assert_array_equal(np.abs(g), [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]])
    np.testing.assert_array_equal(np.abs(a), [[1, 0], [1, 1], [1, 1], [0, 1]])


def test_too_many_products_are_refused():
    with pytest.raises(ValueError, match=r"F\(4, 7\) takes 10 products; at most 8"):
        winograd.transforms(4, 7)


CHAPTER = (
    Block(activation="relu", pool="max", pool_size=(2, 2), pool_strides=(2, 2)),
    Block(activation="relu", pool="max", pool_size=(2, 2), pool_strides=(2, 2)),
    Block(activation="relu"),
)


def chapter_parameters():
    shapes = [(3, 3, a, b) for a, b in itertools.pairwise((1, 8, 16, 16))]
    drawn = [draw(index, shape, shape[-1:]) for index, shape in enumerate(shapes)]
    return [(kernel / np.sqrt(np.prod(kernel.shape[:3]), dtype=np.float32), bias) for kernel, bias in drawn]


@pytest.mark.parametrize("batch", [1, 16, 132])
def test_chapter_stack(batch):
    """132 images are worked on in chunks."""
    (x,) = draw(3, (batch, 28, 28, 1))
    check(CHAPTER, x, chapter_parameters(), ("auto", *METHODS))


def test_rows_that_no_pooling_reads_are_not_computed():
    """The second pooling covers 10x10 of 11x11, so the first convolution needs no more than 24x24 of 26x26."""
    (x,) = draw(3, (2, 28, 28, 1))
    program = str(jax.make_jaxpr(lambda p: conv_stack(x, CHAPTER, p, method="patches"))(chapter_parameters()))
    assert "f32[8,24,24,2]" in program
    assert "26,26" not in program


@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_seeds_equals_a_loop(method):
    x, weights = draw(3, (2, 4, 28, 28, 1), (4, 3, 3, 16))
    parameters = jax.tree.map(lambda p: jnp.stack([p, -p]), chapter_parameters())

    def gradients(x, parameters):
        return jax.grad(lambda p: jnp.vdot(conv_stack(x, CHAPTER, p, method=method), weights))(parameters)

    together, alone = jit(jax.vmap(gradients))(x, parameters), jit(gradients)
    for seed in range(2):
        one = alone(x[seed], jax.tree.map(lambda p, seed=seed: p[seed], parameters))
        jax.tree.map(lambda a, b, seed=seed: assert_close(a[seed], b), together, one)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_scores_the_same_in_any_batch(method):
    (x,) = draw(3, (6, 28, 28, 1))
    run = jit(lambda x: conv_stack(x, CHAPTER, chapter_parameters(), method=method))
    assert_close(jnp.concatenate([run(x[:3]), run(x[3:])]), run(x), 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16(method):
    (x,) = draw(3, (4, 28, 28, 1))
    parameters = chapter_parameters()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (x, parameters))
    y, gradients = jit(jax.value_and_grad(lambda p: jnp.sum(conv_stack(half[0], CHAPTER, p, method=method))))(half[1])
    assert {leaf.dtype for leaf in jax.tree.leaves((y, gradients))} == {jnp.dtype(jnp.bfloat16)}
    assert_close(y, jnp.sum(reference_stack(x, CHAPTER, parameters)), 3e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", ["max", "none"])
def test_not_a_number_is_passed_on(method, pool):
    """At least where XLA's convolution shows it; Winograd's tiles may spread it over neighbours of the same image."""
    (x, kernel, bias) = draw(3, (2, 12, 12, 3), (3, 3, 3, 4), (4,))
    x = x.at[1, 5, 5, 0].set(jnp.nan)
    block = Block(activation="relu", pool=pool, pool_size=(2, 2), pool_strides=(2, 2))
    y = np.isnan(jit(lambda x: conv_stack(x, (block,), ((kernel, bias),), method=method))(x))
    expected = np.isnan(reference_block(x, kernel, bias, block))
    assert expected.any()
    assert y[expected].all()
    assert not y[0].any()


@pytest.mark.parametrize("method", METHODS)
def test_tied_maxima_give_the_gradient_to_the_first(method):
    """In a constant image only the first position of each window gets a gradient; a larger value takes it."""
    x = jnp.ones((1, 6, 6, 1)).at[0, 1, 1, 0].set(2.0)
    kernel, bias = jnp.ones((1, 1, 1, 1)), jnp.zeros(1)
    block = Block(pool="max", pool_size=(2, 2), pool_strides=(2, 2))
    gradient = jit(jax.grad(lambda x: jnp.sum(conv_stack(x, (block,), ((kernel, bias),), method=method))))(x)
    expected = np.zeros((6, 6))
    expected[::2, ::2] = 1
    expected[0, 0], expected[1, 1] = 0, 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


def test_conv2d_is_a_stack_of_one():
    x, kernel, bias = draw(0, (2, 9, 8, 3), (3, 2, 3, 4), (4,))
    block = Block((2, 1), "same", "tanh", "avg", (2, 2), (1, 2))
    assert_close(
        jit(lambda x: conv2d(x, kernel, (2, 1), "same"))(x),
        reference_conv(x, kernel, (2, 1), "same"),
    )
    actual = conv_stack(x, (block,), ((kernel, bias),))
    assert_close(actual, reference_block(x, kernel, bias, block))
