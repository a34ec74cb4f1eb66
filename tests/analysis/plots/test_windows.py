"""Where windows sit: the closed forms against counting, against XLA's gradients, and as they are drawn."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from convjax.analysis.plots.theme import PAGE, save, to_page_svg
from convjax.analysis.plots.window_text import describe_layers, draw
from convjax.analysis.plots.windows import window_plot
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import Axis, plan

RNG = np.random.default_rng(0)


def layers_of(size, **values):
    config = RunConfig(**{"channels": "1", "pool": "none", "dense_units": "0", **values})
    return [layer for layer in plan(config, (*size, 1), 1) if layer.receptive_field]


def test_windows_along_an_axis_are_those_one_finds_by_sliding_for_five_thousand_axes():
    """Sliding a window over the (padded) axis, tile by tile, as XLA pads it."""
    for _ in range(5000):
        size, window, stride = int(RNG.integers(1, 40)), int(RNG.integers(1, 12)), int(RNG.integers(1, 9))
        padding = ("valid", "same")[RNG.integers(2)]
        axis = Axis(size, window, stride, padding)
        ((before, after),) = lax.padtype_to_pads((size,), (window,), (stride,), padding.upper())
        starts = list(range(-before, size + after - window + 1, stride))
        assert list(axis.starts) == starts
        assert axis.count == len(starts)
        assert axis.pads == (before, after)
        read = [{tile for tile in range(start, start + window) if 0 <= tile < size} for start in starts]
        assert [axis.readers(tile) for tile in range(size)] == [sum(tile in r for r in read) for tile in range(size)]
        unread = [tile for tile in range(size) if not any(tile in r for r in read)]
        end = max(map(max, read), default=-1)
        assert axis.unread == (sum(tile < end for tile in unread), sum(tile > end for tile in unread))
        assert axis.padded[0] == sum(start < 0 for start in starts)
        assert axis.padded[1] == sum(start + window > size for start in starts)
        if padding == "same":
            assert axis.lost == (0, 0)
        elif stride == 1 and starts:
            assert size - sum(axis.lost) == len(starts)
            assert axis.lost[0] == (window - 1) // 2  # the tiles before the first window's center


@settings(max_examples=12)
@given(
    size=st.integers(5, 12),
    window=st.integers(1, 5),
    stride=st.integers(1, 6),
    padding=st.sampled_from(["valid", "same"]),
)
def test_readers_are_the_gradient_of_xlas_convolution_with_ones(size, window, stride, padding):
    axis = Axis(size, window, stride, padding)
    kernel = jnp.ones((window, 1, 1))
    total = jax.jit(
        jax.grad(
            lambda x: jnp.sum(
                lax.conv_general_dilated(x, kernel, (stride,), padding.upper(), dimension_numbers=("NHC", "HIO", "NHC"))
            )
        )
    )
    readers = total(jnp.zeros((1, size, 1)))[0, :, 0]
    np.testing.assert_array_equal(readers, [axis.readers(tile) for tile in range(size)])


def test_a_stack_of_layers_has_xlas_shapes_for_a_thousand_stacks():
    """Whole plans, per-layer windows, strides, paddings and poolings, or the refusal of one."""
    checked = refused = 0
    for _ in range(1000):
        depth = int(RNG.integers(1, 4))

        def drawn(low, high, depth=depth):
            return "-".join(f"{a}x{b}" for a, b in RNG.integers(low, high, (depth, 2)))

        values = {
            "channels": "-".join(["1"] * depth),
            "kernel_size": drawn(1, 6),
            "stride": drawn(1, 4),
            "padding": "-".join(RNG.choice(["valid", "same"], depth)),
            "pool": "max+",
            "pool_size": drawn(1, 4),
            "pool_stride": drawn(1, 4),
        }
        size = tuple(int(side) for side in RNG.integers(1, 40, 2))
        config = RunConfig(**values)

        def output(x, config=config):
            for window, stride, padding, pool, step in zip(
                config.layer_kernel_sizes, config.layer_strides, config.layer_paddings,
                config.layer_pool_sizes, config.layer_pool_strides, strict=True,
            ):  # fmt: skip
                x = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *stride, 1), padding.upper())
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, *pool, 1), (1, *step, 1), "VALID")
            return x

        expected = jax.eval_shape(output, jax.ShapeDtypeStruct((1, *size, 1), "f4")).shape[1:3]
        try:
            layers = layers_of(size, **values)
        except UserError:
            assert 0 in expected
            refused += 1
        else:
            assert layers[-1].output_shape[:2] == expected
            checked += 1
    assert checked > 300
    assert refused > 100


CHAPTER = {
    # The chapter's figure 5.5: nine 3x3 windows in a 5x5 input; 5.6: 25 with padding; 5.7: stride 2.
    "5.5": ({}, 9, {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)}),
    "5.6": ({"padding": "same"}, 25, set(itertools.product(range(5), range(5)))),
    "5.7": ({"stride": "2"}, 4, {(1, 1), (1, 3), (3, 1), (3, 3)}),
}


@pytest.mark.parametrize("figure", CHAPTER)
def test_the_chapters_figures_in_letters(figure):
    """Read back from the drawing: one panel a window, each with its center and, inside the input, its nine tiles."""
    values, count, centers = CHAPTER[figure]
    bands = draw(layers_of((5, 5), **values)[0]).split("\n\n")
    rows = [[re.split(" {3}", line) for line in band.splitlines()] for band in bands]
    panels = [panel for row in rows for panel in zip(*row, strict=True)]
    assert len(panels) == count
    found = set()
    for panel in panels:
        grid = np.array([line.split() for line in panel])
        margin = (len(grid) - 5) // 2
        assert np.sum(np.isin(grid, ["#", "o", "+"])) == 9
        ((row, column),) = np.argwhere(grid == "o") - margin
        found.add((int(row), int(column)))
        input_tiles = grid[margin : margin + 5, margin : margin + 5]
        assert not np.isin(input_tiles, ["+", ":"]).any()
        assert np.isin(grid, ["+", ":"]).sum() == grid.size - 25
    assert found == centers


def test_every_line_of_the_arithmetic():
    text = describe_layers(layers_of((28, 27), kernel_size="3x4", stride="2"), drawing=False)
    assert text.splitlines()[0] == "28x27 -> conv2d_1 13x12"
    for line in (
        "conv2d_1 (Conv2D): 3x4 window, stride 2, padding valid, on 28x27",
        "output   13x12 = ((28 - 3) // 2 + 1) x ((27 - 4) // 2 + 1)",
        "lost     top 1, bottom 1, left 1, right 2 (tiles around which no window fits)",
        "unread   top 0, bottom 1, left 0, right 1 (tiles that no window reaches)",
        "windows  start at rows 0, 2, 4 ... 24; columns 0, 2, 4 ... 22",
        "sees     3x4 of the input, neighbors 2 apart",
    ):
        assert line in text
    text = describe_layers(layers_of((28, 28), padding="same", stride="2"), drawing=False)
    assert "output   14x14 = ceil(28 / 2) x ceil(28 / 2)" in text
    assert "padding  top 0, bottom 1, left 0, right 1 (zeros); the odd one goes to the end" in text
    text = describe_layers(layers_of((9, 9), kernel_size="1", stride="3"), drawing=False)
    assert "4 rows and 4 columns between windows" in text


def test_a_large_input_is_drawn_a_line_a_window():
    lines = draw(layers_of((28, 28), stride="2")[0]).splitlines()
    assert lines[2] == "     0  #o#" + "." * 25
    assert "   ..." in lines
    assert lines[-1] == "    12  " + "." * 24 + "#o#."
    assert "too many" in draw(layers_of((500, 500))[0])
    frame = window_plot(layers_of((30_000, 30_000))).axes[0]
    assert sum(len(line.get_xdata()) for line in frame.lines) < 100
    assert sum(len(lines.get_segments()) for lines in frame.collections) < 100


@pytest.mark.parametrize(("values", "windows"), [(CHAPTER["5.6"][0], 25), ({"stride": "2", "pool": "max+"}, 5)])
def test_the_figure_has_a_box_for_every_window(values, windows, tmp_path):
    layers = layers_of((5, 5), **values)
    figure = window_plot(layers)
    path = save(figure, tmp_path / "windows.svg")
    # The frame of every window is drawn in the first series' color, and nothing else is.
    frame = figure.theme.series[0]
    assert len(re.findall(rf"fill: none; stroke: {frame}", path.read_text())) == windows
    svg = to_page_svg(window_plot(layers, theme="page"), "windows", title="Windows", description="Where they sit.")
    assert not any(code in svg for code in PAGE.roles().values())
