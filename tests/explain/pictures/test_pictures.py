"""Color scales, sheets, sliding windows, animations and the page: what is in them, not how they look."""

import functools
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from convjax.analysis.plots.theme import DARK
from convjax.config import RunConfig
from convjax.explain.pictures import architecture, colors, maps, training, why, windows
from convjax.explain.pictures.animation import Animation, evenly, last_frame, to_gif
from convjax.explain.pictures.gallery import Chapter, Picture, write_gallery
from convjax.explain.pictures.parts import decimals, mosaic, number
from convjax.explain.sliding import slide_kernel
from convjax.nn.geometry import plan

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def lightness(rgb):
    """CIE L* of sRGB colors `[..., 3]`, from their luminance (IEC 61966-2-1)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126729, 0.7151522, 0.0721750])
    return np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)


def test_the_signed_scale_is_even_and_symmetric_in_lightness():
    rgb = colors.diverging()(np.arange(257))[:, :3]
    light = lightness(rgb)
    steps = np.diff(light)
    np.testing.assert_allclose(light, light[::-1], atol=0.6)
    np.testing.assert_allclose(steps[:128], steps[:128].mean(), atol=0.15)
    assert steps[:128].min() > 0
    assert steps[128:].max() < 0
    assert light[128] > 95
    # Blue against yellow tells the sign, which color-blind people see.
    assert (rgb[:100, 2] - rgb[:100, 0] > 0.05).all()
    assert (rgb[-100:, 0] - rgb[-100:, 2] > 0.05).all()


def test_scales_span_their_values():
    norm = colors.around_zero(np.array([-1.0, 3.0, np.nan]))
    assert (norm.vmin, norm.vmax) == (-3.0, 3.0)
    norm = colors.from_zero(np.array([0.5, 2.0]))
    assert (norm.vmin, norm.vmax) == (0.0, 2.0)
    norm = colors.from_zero(np.zeros(3))
    assert norm.vmax > norm.vmin


def test_a_mosaic_has_every_tile_in_its_place():
    tiles = np.arange(5 * 2 * 3, dtype=float).reshape(5, 2, 3)
    sheet = mosaic(tiles, 3, gap=1)
    assert sheet.shape == (5, 11)
    np.testing.assert_array_equal(sheet[:2, 4:7], tiles[1])
    np.testing.assert_array_equal(sheet[3:, :3], tiles[3])
    assert np.isnan(sheet[3:, 8:]).all()  # no sixth tile
    assert np.isnan(sheet[:, 3]).all()
    assert mosaic(np.zeros((2, 4, 4, 3)), 2).shape == (4, 9, 3)


def test_numbers_have_a_true_minus_sign():
    assert [number(value) for value in (-0.123, 0.0, 1234.5)] == [f"{MINUS}0.12", "0", "1,234"]
    assert [decimals(value) for value in (-0.123, -0.001)] == [f"{MINUS}0.12", "0.00"]


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_window_film_shows_patch_products_and_value():
    image, kernel = np.round(np.random.default_rng(0).random((5, 5)), 1), np.array([[1.0, 0.5], [0.0, -0.25]])
    sliding = slide_kernel(image, kernel)
    frames = list(windows.window_frames(sliding, "Film", theme="dark"))
    assert len(frames) == 16
    assert f"{image[0, 0]:.1f}{TIMES}1.00 + {image[0, 1]:.1f}{TIMES}0.50" in "".join(texts_of(frames[0]))
    value = f"{sliding.output[-1, -1]:.2f}".replace("-", MINUS)
    assert any(text.endswith(f"= {value}") for text in texts_of(frames[-1]))
    assert frames[-1].get_suptitle() == "Film: step 16 of 16"
    assert frames[-1]._suptitle.get_color() == DARK.ink
    assert len(list(windows.window_frames(sliding, "Film", 5, theme="light"))) == 5
    assert evenly(16, 5) == [0, 4, 8, 11, 15]


def test_the_crop_is_the_most_varied_piece():
    image = np.zeros((9, 9))
    image[4:6, 5:9] = 1.0
    piece = windows.crop(image, 4)
    assert piece.shape == (4, 4)
    assert piece.std() == pytest.approx(0.5)
    edge = np.array([[-1.0], [1.0]])  # responds to the upper and the lower edge of the bar
    assert windows.crop(image, 4, edge).any(axis=1).tolist() == [False, True, True, False]


def test_diagrams_name_every_layer_with_its_shape():
    layers = plan(RunConfig(dropout="0.5", stride="1-2-1", padding="same"), (28, 28, 1), 10)
    texts = texts_of(architecture.layer_diagram(layers, "Layers"))
    for layer in layers:
        assert any(text.startswith(layer.name) for text in texts)
        assert TIMES.join(f"{size:,}" for size in layer.output_shape) in texts
        if layer.parameters:
            assert f"{layer.parameters:,}" in texts
    scale = architecture.scale_drawing(layers, "Scale")
    drawn = {tuple(patch.get_xy()[0]) for patch in scale.axes[0].patches}
    assert len(drawn) >= len(layers) - 1


def test_sheets_take_rgb_dense_and_signed_layers():
    rng = np.random.default_rng(0)
    layers = plan(RunConfig(channels="3", activation="tanh", dense_units="5"), (8, 10, 3), 2)
    image = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    outputs = {layer.name: rng.normal(size=layer.output_shape) for layer in layers}
    figure = maps.feature_sheet(image, outputs, layers, ["cat", "dog"], "Maps")
    titles = [axes.get_title("left") for axes in figure.axes]
    assert any(f"conv2d_1 (Conv2D, tanh): 6{TIMES}8{TIMES}3" in title for title in titles)
    ticks = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert {"cat", "dog"} <= set(ticks)
    signed = [axes for axes in figure.axes if axes.images and axes.images[0].get_cmap().name == "blue_orange"]
    assert signed
    assert all(axes.images[0].norm.vmin == -axes.images[0].norm.vmax for axes in signed)


@pytest.mark.parametrize("cams", [{}, {"conv2d_1": np.ones((8, 8))}])
def test_maps_of_a_class_have_their_ranges(cams):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    signed = dict.fromkeys(("gradient", "smooth", "occlusion"), np.eye(8))
    row = why.Explained(image, "seven: 99 %\npredicted", signed | cams)
    figure = why.why_sheet([row, row], "Why", "a run")
    below = [axes.get_xlabel() for axes in figure.axes]
    assert below.count("\N{PLUS-MINUS SIGN}1") == 6
    assert below.count("0 to 1") == 2 * len(cams)
    wrong = why.wrong_sheet([(row, row)], "Wrong", "a run")
    assert sum(bool(axes.images) for axes in wrong.axes) >= 5


def test_inside_shows_each_layer_by_epoch():
    lines = [
        {
            "epoch": epoch,
            "weight_norm": {"conv2d_1": 1.0 + epoch, "dense_1": 2.0},
            "gradient_norm": {"conv2d_1": 0.5 / epoch, "dense_1": None},
            "dead_channels": {"conv2d_1": 0.25},
        }
        for epoch in (1, 2, 3)
    ]
    figure = training.inside_plot(lines, "Inside")
    weights, gradients, dead = figure.axes
    assert [list(line.get_ydata()) for line in weights.lines] == [[2, 3, 4], [2, 2, 2]]
    assert [list(line.get_ydata()) for line in dead.lines] == [[25, 25, 25]]
    assert len(gradients.lines) == 1


def moving(theme):
    for value in (0.2, 0.9):
        yield Figure(figsize=(2, 1), facecolor=(value, value, value))


ANIMATION = Animation("moves", "A square <grows>.", "It grows.", moving, 100)


def test_a_gif_has_every_frame_and_its_time():
    content = to_gif(ANIMATION, "light")
    with Image.open(io.BytesIO(content)) as gif:
        assert gif.n_frames == 2
        assert gif.info["loop"] == 0
        times, grays = [], []
        for index in range(2):
            gif.seek(index)
            times.append(gif.info["duration"])
            grays.append(np.asarray(gif.convert("L")).mean())
    assert times == [100, 400]
    assert grays == pytest.approx([51, 229.5], abs=3)
    with Image.open(io.BytesIO(last_frame(content))) as still:
        assert np.asarray(still.convert("L")).mean() == pytest.approx(grays[1], abs=3)


def test_the_page_holds_every_picture_and_loads_nothing(tmp_path):
    layers = plan(RunConfig(), (28, 28, 1), 10)
    draw = functools.partial(architecture.scale_drawing, layers, "Layers")
    picture = Picture("layers", "Boxes & arrows.", "What is <where>.", draw)
    wrote = []
    page = write_gallery(
        tmp_path, "A run", "Facts.", [Chapter("One", "Text.", [picture, ANIMATION])], ["no film"], wrote.append
    )
    names = ["layers.png", "layers.svg", "moves.gif", "visualize.html"]
    assert [path.name for path in wrote] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    text = page.read_text()
    assert text.count("<svg") == 1
    assert ">Layers</title>" in text
    assert "var(--ink)" in text
    assert "What is &lt;where&gt;." in text
    assert "no film" in text
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', text)
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "(prefers-color-scheme: dark)" in text.split("<picture>")[1]
