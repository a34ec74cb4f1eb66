"""Figures of claims that are heat maps: accuracy by shift, and where layers look. Pure."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from convjax.analysis.plots.parts import wrapped
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.nn.geometry import Layer, input_span
from convjax.studies.figures import put_heading
from convjax.studies.page import ClaimFigure

KINDS = ("trained", "untrained")


def shift_figure(maps: Mapping[str, Mapping[int, Any]]) -> ClaimFigure:
    """Accuracy by shift of every arm.

    Args:
      maps: what `convjax.studies.measures.shifts.measure_shifts` found, by seed, of every arm by its label.
    """
    means = {label: np.mean([one["accuracy"] for one in found.values()], axis=0) for label, found in maps.items()}
    first = next(iter(next(iter(maps.values())).values()))
    offsets, middle = first["offsets"], len(first["offsets"]) // 2
    told = ", ".join(
        f"{label} {100 * mean[middle, middle]:.1f} % centered and {100 * mean[middle, [0, -1]].mean():.1f} % moved "
        f"{offsets[-1]} pixels to a side"
        for label, mean in means.items()
    )
    caption = (
        f"Mean accuracy (%) over seeds on {first['images']:,} test images, moved by up to {offsets[-1]} pixels down "
        "and to the right (negative: up and to the left). Inside the lines 99 and 90 % of the digits' ink is still in "
        "the image."
    )
    draw = functools.partial(_shift_maps, means, np.asarray(first["ink"]), offsets)
    return ClaimFigure("shifts", draw, caption, f"Accuracy of shifted digits: {told}.")


@styled
def _shift_maps(means: Mapping[str, np.ndarray], ink: np.ndarray, offsets: Sequence[int], *, theme: Theme) -> Figure:
    """One heat map `[down, right]` per arm, on one scale of 0 to 100 %."""
    figure = ThemedFigure(2.35 * len(means) + 0.9, 3.1, theme)
    maps = {wrapped(label, 24): 100 * mean for label, mean in means.items()}
    panels = _put_maps(figure, maps, highest=100, start=offsets[0] - 0.5, columns=len(maps), label="test accuracy (%)")
    ticks = offsets[:: max(1, len(offsets) // 4)]
    for axes in panels:
        axes.contour(offsets, offsets, ink, levels=[0.9, 0.99], colors="#ffffff", linewidths=0.8)
        axes.set_xticks(ticks)
        axes.set_yticks(ticks, None if axes is panels[0] else [""] * len(ticks))
        axes.set_xlabel("right (pixels)")
    panels[0].set_ylabel("down (pixels)")
    put_heading(figure, "Accuracy on shifted digits, after training on centered ones")
    return figure


def fields_figure(layers: Sequence[Layer], found: Mapping[int, Any]) -> ClaimFigure:
    """Effective receptive fields of every layer.

    Args:
      layers: the network's plan.
      found: what `convjax.studies.measures.receptive.measure_fields` found, by seed.
    """
    maps, told = {}, []
    sizes = {layer.name: layer.receptive_field.size[0] for layer in layers if layer.receptive_field is not None}
    for name in next(iter(found.values()))["trained"]:
        maps[name] = np.mean([one["trained"][name]["map"] for one in found.values()], axis=0)
        trained, untrained = (np.mean([one[kind][name]["width"] for one in found.values()]) for kind in KINDS)
        told.append(f"{name} {sizes[name]} in theory, {trained:.1f} ({untrained:.1f} untrained)")
    caption = (
        "How much every pixel moves the center of each layer's feature map: root mean square of the gradients over 500 "
        "test images and all channels, relative to the largest; mean over seeds. The frame is the theoretical "
        f"receptive field. Widths in pixels: {'; '.join(told)}."
    )
    draw = functools.partial(_field_maps, layers, maps)
    return ClaimFigure("fields", draw, caption, f"Receptive fields: {'; '.join(told)}.")


@styled
def _field_maps(layers: Sequence[Layer], maps: Mapping[str, np.ndarray], *, theme: Theme) -> Figure:
    """One heat map per layer, by its name, with the frame of its receptive field."""
    columns = min(3, len(maps))
    figure = ThemedFigure(2.2 * columns + 0.8, 2.45 * -(-len(maps) // columns) + 0.6, theme)
    depths = {layer.name: depth for depth, layer in enumerate(layers, start=1)}
    for axes, name in zip(_put_maps(figure, maps, columns=columns, label="gradient, relative"), maps, strict=True):
        seen = layers[: depths[name]]
        ys, xs = input_span(seen, [side // 2 for side in seen[-1].output_shape[:2]])
        height, width = ys.stop - ys.start, xs.stop - xs.start
        axes.add_patch(Rectangle((xs.start, ys.start), width, height, fill=False, linewidth=1.4, edgecolor="#ffffff"))
        axes.set(xticks=[], yticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{name}: {height}x{width}", fontsize=FONT_SIZE - 0.5)
    put_heading(figure, "Where the center of each layer's map looks")
    return figure


def _put_maps(
    figure: Figure,
    maps: Mapping[str, np.ndarray],
    *,
    columns: int,
    label: str,
    highest: float = 1.0,
    start: float = 0.0,
) -> list[Axes]:
    """Heat maps `[down, right]` of values from 0 to `highest`, by title, and one color bar with this label.

    `start` is the coordinate of the upper left corner on both axes; cells have side 1.
    """
    norm, panels = Normalize(0.0, highest), []
    for number, (title, values) in enumerate(maps.items(), start=1):
        axes = figure.add_subplot(-(-len(maps) // columns), columns, number)
        down, right = (start + np.arange(side + 1) for side in values.shape)
        axes.pcolormesh(right, down, values, cmap="viridis", norm=norm, edgecolors="face", linewidth=0.1, gid="cells")
        axes.set_aspect("equal")
        axes.set_xlim(right[0], right[-1])
        axes.set_ylim(down[-1], down[0])
        axes.grid(visible=False)
        axes.set_title(title)
        panels.append(axes)
    bar = figure.colorbar(ScalarMappable(norm, matplotlib.colormaps["viridis"]), ax=panels, shrink=0.8, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return panels
