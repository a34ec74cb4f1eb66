"""Figures of the claims about layers and windows: where layers look, what can be read off them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from convjax.analysis.plots.parts import WIDTH, handle
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, styled
from convjax.analysis.plots.windows import window_plot
from convjax.analysis.statistics import summarise_all
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.nn.geometry import Layer, input_span, plan
from convjax.studies.figures import put_heading
from convjax.studies.page import ClaimFigure


def windows_figure(name: str, title: str, size: tuple[int, int], *, theme: str, **fields: str) -> ClaimFigure:
    """The windows of one convolution with these fields of RunConfig, on an input of this size."""
    layers = plan(RunConfig(channels="1", pool="none", dense_units="0", **fields), (*size, 1), 1)[:1]
    count = int(np.prod(layers[0].output_shape[:2]))
    caption = f"{title}. One picture a window, in the order of the output's positions."
    return ClaimFigure(
        name, window_plot(layers, theme=theme), caption, f"{count} windows in an input of {size[0]}x{size[1]}."
    )


def fields_figure(layers: Sequence[Layer], found: Mapping[int, Any], *, theme: str) -> ClaimFigure:
    """Effective receptive fields of every layer.

    Args:
      layers: the network's plan.
      found: what `convjax.studies.measures.receptive.measure_fields` found, by seed.
      theme: see `convjax.analysis.plots.theme`.

    Raises:
      UserError: no run has been measured.
    """
    if not found:
        raise UserError("no run's receptive fields have been measured")
    names = list(next(iter(found.values()))["trained"])
    maps = {name: np.mean([one["trained"][name]["map"] for one in found.values()], axis=0) for name in names}
    told = []
    for name in names:
        trained, untrained = (np.mean([one[kind][name]["width"] for one in found.values()]) for kind in KINDS)
        [layer] = [layer for layer in layers if layer.name == name]
        assert layer.receptive_field is not None
        told.append(f"{name} {layer.receptive_field.size[0]} in theory, {trained:.1f} ({untrained:.1f} untrained)")
    caption = (
        "How much every pixel moves the centre of each layer's feature map: root mean square of the gradients over 500 "
        "test images and all channels, relative to the largest; mean over seeds. The frame is the receptive field in "
        f"theory. Widths in pixels: {'; '.join(told)}."
    )
    return ClaimFigure(
        "fields", field_maps(layers, maps, theme=theme), caption, f"Receptive fields: {'; '.join(told)}."
    )


KINDS = ("trained", "untrained")


@styled
def field_maps(layers: Sequence[Layer], maps: Mapping[str, np.ndarray], *, theme: Theme) -> Figure:
    """A heat map a layer, with the frame of its receptive field.

    Args:
      layers: the network's plan.
      maps: gradients relative to the largest, `[height, width]`, by the layer's name.
      theme: see `convjax.analysis.plots.theme`.
    """
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    figure = ThemedFigure(2.2 * columns + 0.8, 2.45 * rows + 0.6, theme)
    norm, panels = Normalize(0.0, 1.0), []
    by_name = {layer.name: index for index, layer in enumerate(layers)}
    for number, (name, gradients) in enumerate(maps.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        panels.append(axes)
        height, width = gradients.shape
        axes.pcolormesh(gradients, cmap="viridis", norm=norm, edgecolors="face", linewidth=0.1, gid="cells")
        depth = by_name[name] + 1
        centre = [side // 2 for side in layers[by_name[name]].output_shape[:2]]
        ys, xs = input_span(layers[:depth], centre)
        frame = Rectangle((xs.start, ys.start), xs.stop - xs.start, ys.stop - ys.start, fill=False, linewidth=1.4)
        frame.set_edgecolor("#ffffff")
        axes.add_patch(frame)
        axes.set_aspect("equal")
        axes.set_ylim(height, 0)
        axes.set_xlim(0, width)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{name}: {ys.stop - ys.start}x{xs.stop - xs.start}", fontsize=FONT_SIZE - 0.5)
    bar = figure.colorbar(ScalarMappable(norm, matplotlib.colormaps["viridis"]), ax=panels, shrink=0.8, pad=0.02)
    bar.set_label("gradient, relative")
    bar.outline.set_visible(False)  # type: ignore[operator]
    put_heading(figure, "Where the centre of each layer's map looks")
    return figure


def probes_figure(found: Mapping[int, Any], *, theme: str) -> ClaimFigure:
    """Accuracy of linear probes by layer.

    Args:
      found: what `convjax.studies.measures.probes.measure_probes` found, by seed.
      theme: see `convjax.analysis.plots.theme`.

    Raises:
      UserError: no run has been measured.
    """
    if not found:
        raise UserError("no run's probes have been measured")
    first = next(iter(found.values()))
    values = {
        kind: {layer: {seed: one[kind][layer]["test_accuracy"] for seed, one in found.items()} for layer in first[kind]}
        for kind in KINDS
    }
    features = {layer: int(one["features"]) for layer, one in first["trained"].items()}
    told = ", ".join(
        f"{layer} {100 * np.mean(list(by_seed.values())):.2f} %" for layer, by_seed in values["trained"].items()
    )
    caption = (
        "Test accuracy of a logistic regression on each layer's activations, mean over seeds with its 95 % t interval; "
        "below each layer the number of its features."
    )
    return ClaimFigure(
        "probes", probe_plot(values, features, theme=theme), caption, f"Linear probes of the trained network: {told}."
    )


@styled
def probe_plot(
    values: Mapping[str, Mapping[str, Mapping[int, float]]], features: Mapping[str, int], *, theme: Theme
) -> Figure:
    """Means with intervals by layer.

    Args:
      values: test accuracies by seed, by layer, of the `trained` and the `untrained` network.
      features: how many each layer of the trained network has.
      theme: see `convjax.analysis.plots.theme`.
    """
    figure = ThemedFigure(WIDTH * 1.25, 3.4, theme)
    axes = figure.add_subplot()
    order = list(features)
    for kind, colour, marker, style in (
        ("trained", theme.series[0], "o", "-"),
        ("untrained", theme.series[1], "s", ""),
    ):
        summaries = summarise_all(list(values[kind].values()))
        places = [order.index(layer) for layer in values[kind]]
        means = [100 * summary.mean for summary in summaries]
        axes.plot(places, means, marker=marker, linestyle=style or "none", color=colour, gid=kind)
        for place, summary in zip(places, summaries, strict=True):
            if summary.t_interval is not None:
                ends = [100 * summary.t_interval.low, 100 * summary.t_interval.high]
                axes.plot([place, place], ends, color=colour, linewidth=2.4, solid_capstyle="butt")
    names = [name.replace("max_pooling2d", "max").replace("conv2d", "conv").replace("_", " ") for name in order]
    axes.set_xticks(
        range(len(order)), [f"{name}\n{features[layer]:,}" for name, layer in zip(names, order, strict=True)]
    )
    axes.set_ylabel("test accuracy (%)")
    axes.set_xlabel("layer, number of features")
    handles = [
        handle(theme.series[0], "o", "trained network", "-"),
        handle(theme.series[1], "s", "untrained network"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    put_heading(figure, "What a linear classifier reads off each layer")
    return figure
