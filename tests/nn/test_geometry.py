"""The closed forms against what XLA itself makes of the same windows, and against counting by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import (
    ReceptiveField,
    input_span,
    output_shape,
    output_size,
    pad_amounts,
    plan,
    same_padding,
    total_flops,
    total_parameters,
)

CONV = ("NHWC", "HWIO", "NHWC")


def axes(rng, count):
    """`count` random (size, window, stride)."""
    return zip(rng.integers(1, 40, count), rng.integers(1, 12, count), rng.integers(1, 6, count), strict=True)


def test_sizes_and_padding_are_xlas_for_two_thousand_windows():
    rng = np.random.default_rng(0)
    rows, columns = axes(rng, 2000), axes(rng, 2000)
    empty = 0
    for vertical, horizontal in zip(rows, columns, strict=True):
        shape, window, strides = ((int(a), int(b)) for a, b in zip(vertical, horizontal, strict=True))

        def outputs(x, kernel, window=window, strides=strides):
            for padding in ("VALID", "SAME"):
                yield lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=CONV)
                yield lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), padding)

        x, kernel = jax.ShapeDtypeStruct((1, *shape, 1), "f4"), jax.ShapeDtypeStruct((*window, 1, 1), "f4")
        expected = [output.shape[1:3] for output in jax.eval_shape(lambda *a: [*outputs(*a)], x, kernel)]
        valid, same = (output_shape(shape, window, strides, padding) for padding in ("valid", "same"))
        assert [valid, valid, same, same] == expected
        empty += 0 in valid
        assert pad_amounts(shape, window, strides, "same") == tuple(lax.padtype_to_pads(shape, window, strides, "SAME"))
        assert pad_amounts(shape, window, strides, "valid") == ((0, 0), (0, 0))
    assert empty > 50  # windows that do not fit were among them


@given(size=st.integers(1, 10**6), window=st.integers(1, 10**4), stride=st.integers(1, 10**4))
def test_same_padding_is_just_enough(size, window, stride):
    before, after = same_padding(size, window, stride)
    positions = output_size(size, window, stride, "same")
    assert positions == -(-size // stride)
    assert 0 <= before <= after <= before + 1
    reach = (positions - 1) * stride + window
    # Either the windows end with the padded input, or they leave some input out and nothing is padded.
    assert reach == size + before + after or (before == after == 0 and reach < size)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans()), min_size=1, max_size=4),
    offset=st.integers(0, 2),
)
def test_receptive_field_is_where_the_gradient_reaches(steps, offset):
    """The input pixels on which a position far from the borders depends, through windows of ones."""
    field = ReceptiveField()
    for window, stride, _ in steps:
        field = field.through((window, 1), (stride, 1))
    size, jump = field.size[0], field.jump[0]
    assert (field.size[1], field.jump[1]) == (1, 1)
    length = size + 8 * jump
    assume(length <= 600)

    def position(x, index):
        for window, stride, is_convolution in steps:
            if is_convolution:
                x = np.convolve(x, np.ones(window), "valid")[::stride]
            else:
                x = np.lib.stride_tricks.sliding_window_view(x, window)[::stride].mean(axis=1)
        return x[index]

    # The gradient of a linear map, a column at a time.
    identity = np.eye(length)
    first, second = (
        np.flatnonzero([position(column, index) for column in identity]) for index in (2 + offset, 3 + offset)
    )
    assert first[-1] - first[0] + 1 == size
    assert second[0] - first[0] == jump


def test_receptive_field_of_the_chapter_by_gradient():
    """The chapter's features, measured as gradients of XLA's own convolutions and (average) pooling."""

    def features(x):
        for layer in plan(RunConfig(pool="avg"), (64, 64, 1), 10):
            if layer.kind == "Conv2D":
                kernel = jnp.ones((*layer.window, 1, 1))
                x = lax.conv_general_dilated(x, kernel, layer.strides, "VALID", dimension_numbers=CONV)
            elif layer.kind == "AveragePooling2D":
                x = lax.reduce_window(x, 0.0, lax.add, (1, *layer.window, 1), (1, *layer.strides, 1), "VALID")
        return x

    gradient = jax.grad(lambda x: features(x)[0, 3, 4, 0])(jnp.zeros((1, 64, 64, 1)))
    rows, columns = np.nonzero(gradient[0, :, :, 0])
    field = plan(RunConfig(), (64, 64, 1), 10)[4].receptive_field
    assert field == ReceptiveField((18, 18), (4, 4))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3 * 4, 3 * 4 + 17, 4 * 4, 4 * 4 + 17)
    assert len(rows) == 18 * 18


@settings(max_examples=8)
@given(data=st.data())
def test_what_every_position_sees_is_where_the_gradient_of_xlas_windows_reaches(data):
    """Any stack of paddings, strides and pooling, over an image whose sides differ."""

    def drawn(low, high, width):
        return "-".join(f"{data.draw(st.integers(low, high))}x{width}" for _ in range(2))

    config = RunConfig(
        channels="1-1",
        kernel_size=drawn(2, 5, 3),
        stride=drawn(1, 2, 1),
        padding="-".join(data.draw(st.sampled_from(["valid", "same"])) for _ in range(2)),
        pool="avg+",
        pool_size=drawn(1, 2, 2),
        pool_stride="1",
    )
    image = (data.draw(st.integers(22, 26)), 9)
    layers = plan(config, (*image, 1), 10)[:4]

    @jax.jit
    def gradients():
        """Of every position with respect to every pixel: ones through XLA's sums over windows are linear."""

        def features(x):
            for layer in layers:
                window, strides = (1, *layer.window, 1), (1, *layer.strides, 1)
                x = lax.reduce_window(x, 0.0, lax.add, window, strides, layer.padding.upper())
            return x[0, :, :, 0]

        return jax.jacrev(features)(jnp.zeros((1, *image, 1)))[:, :, 0, :, :, 0]

    for position, gradient in zip(np.ndindex(layers[-1].output_shape[:2]), np.concatenate(gradients()), strict=True):
        seen = np.zeros(image, bool)
        seen[input_span(layers, position)] = True
        np.testing.assert_array_equal(gradient != 0, seen)


def test_flops_by_hand():
    """Every multiplication that the loops of a convolution do, padding included, and as many additions."""
    config = RunConfig(channels="2-3", kernel_size="2x3-1", padding="same-valid", stride="2x1-1", dense_units="4")
    layers = plan(config, (5, 4, 3), 6)
    by_name = {layer.name: layer for layer in layers}

    def count(name, in_channels, out_channels):
        layer = by_name[name]
        loops = (*layer.output_shape[:2], *layer.window, in_channels, out_channels)
        return 2 * sum(1 for _ in itertools.product(*map(range, loops)))

    assert by_name["conv2d_1"].output_shape == (3, 4, 2)
    assert by_name["conv2d_1"].flops == count("conv2d_1", 3, 2) == 2 * 12 * 6 * 3 * 2
    assert by_name["conv2d_2"].flops == count("conv2d_2", 2, 3)
    assert by_name["dense_1"].flops == 2 * 6 * 4
    assert by_name["dense_2"].flops == 2 * 4 * 6
    assert total_flops(layers) == sum(layer.flops for layer in layers) == 864 + 24 + 48 + 48
    assert total_parameters(layers) == (2 * 3 * 3 * 2 + 2) + (2 * 3 + 3) + (6 * 4 + 4) + (4 * 6 + 6)


def test_flops_are_xlas_where_nothing_is_padded():
    """XLA counts a multiply-add as two as well; in padding it counts none, so those layers are left out."""
    for layer in plan(RunConfig(kernel_size="3-5x2-1", stride="1-2x1-1", pool="none"), (20, 17, 3), 10):
        if layer.kind == "Conv2D":
            shapes = (1, *layer.input_shape), (*layer.window, layer.input_shape[-1], layer.output_shape[-1])
            function = lambda x, k, s=layer.strides: lax.conv_general_dilated(x, k, s, "VALID", dimension_numbers=CONV)  # noqa: E731
        elif layer.kind == "Dense":
            shapes, function = ((1, *layer.input_shape), (*layer.input_shape, *layer.output_shape)), jnp.matmul
        else:
            assert layer.flops == 0
            continue
        arguments = [jax.ShapeDtypeStruct(shape, "f4") for shape in shapes]
        assert jax.jit(function).lower(*arguments).cost_analysis()["flops"] == layer.flops


def test_a_plan_goes_from_layer_to_layer():
    config = RunConfig(channels="4-5", pool="max-avg", pool_size="3-2", pool_stride="1x2-0", dropout="0.1-0.2-0.3")
    layers = plan(config, (14, 15, 2), 7)
    assert [layer.name for layer in layers] == [
        "conv2d_1", "max_pooling2d_1", "dropout_1", "conv2d_2", "average_pooling2d_1", "flatten_1", "dropout_2",
        "dense_1", "dropout_3", "dense_2",
    ]  # fmt: skip
    assert layers[0].input_shape == (14, 15, 2)
    for before, after in itertools.pairwise(layers):
        assert after.input_shape == before.output_shape
    assert [layer.output_shape for layer in layers] == [
        (12, 13, 4), (10, 6, 4), (10, 6, 4), (8, 4, 5), (4, 2, 5), (40,), (40,), (64,), (64,), (7,),
    ]  # fmt: skip
    assert [layer.rate for layer in layers if layer.kind == "Dropout"] == [0.1, 0.2, 0.3]
    assert [layer.activation_bytes for layer in layers][:2] == [4 * 12 * 13 * 4, 4 * 10 * 6 * 4]
    assert layers[-1].activation == "softmax"
    assert layers[4].receptive_field is not None
    assert all(layer.receptive_field is None for layer in layers[5:])


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"kernel_size": "3-3-13"},
            ("conv2d_3 (Conv2D)", "(5, 5, 64)", "13x13 kernel", "5x5 feature map", "--kernel_size", "--padding=same"),
        ),
        ({"kernel_size": "1x29"}, ("conv2d_1 (Conv2D)", "(28, 28, 1)", "1x29 kernel", "--kernel_size")),
        ({"stride": "9-1-1"}, ("conv2d_2 (Conv2D)", "(1, 1, 32)", "--stride")),
        (
            {"pool_size": "2-12-2"},
            ("max_pooling2d_2 (MaxPooling2D)", "(11, 11, 64)", "12x12 window", "leaves nothing", "--pool_size"),
        ),
        ({"pool": "avg", "pool_size": "27"}, ("average_pooling2d_1 (AveragePooling2D)", "27x27", "--pool=none")),
        ({"channels": "65536-65536"}, ("conv2d_2 (Conv2D) is too large", "--channels")),
        (
            {"model": "dense", "dense_units": "65536-65536"},
            ("dense_2 (Dense) is too large", "(65536,)", "--dense_units"),
        ),
    ],
)
def test_an_impossible_stack_is_refused_by_layer_shape_and_flag(values, parts):
    with pytest.raises(UserError) as error:
        plan(RunConfig(**values), (28, 28, 1), 10)
    for part in parts:
        assert part in str(error.value)
