"""Learning curves of an ablation's arms, and of a single run. Pure, as `convjax.analysis.plots.accuracy`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from convjax.analysis.arms import Arms
from convjax.analysis.curves import Lines, arm_curve, mean_curve
from convjax.analysis.metrics import metric_named
from convjax.analysis.plots.parts import (
    SMALL,
    WIDTH,
    handle,
    near_range,
    put_title,
    set_log_ticks,
    short_labels,
    wrapped,
)
from convjax.analysis.plots.theme import FONT_SIZE, MARKERS, Theme, ThemedFigure, drawable, styled
from convjax.analysis.wording import listed
from convjax.errors import UserError

MOST_LINES = len(MARKERS)
"""Lines that one chart tells apart; more arms get a small chart each."""

MOST_CHARTS = 30
"""Small charts in one figure: of more arms those with the best means have one."""

_STYLES = {"train": "-", "validation": "--"}

Parts = Mapping[str, pd.DataFrame]
"""An arm's curves (`arm_curve`) by the part of the data, `train` and `validation`."""


@styled
def learning_curves(
    arms: Arms, lines: Sequence[Mapping[int, Lines]], quantity: str = "accuracy", *, theme: Theme
) -> Figure:
    """Training (and validation) loss or accuracy by epoch: mean over seeds, with the band from lowest to highest.

    Up to `MOST_LINES` lines share one chart. With more, each arm gets a small chart in front of the range of all
    arms' means; beyond `MOST_CHARTS` arms only the best do. Where a seed stopped before the others, a cross says so
    and every seed has a thin line.

    Args:
      arms: the arms.
      lines: for every arm the metrics of its seeds (`convjax.analysis.curves.read_lines`).
      quantity: `loss` or `accuracy`.
      theme: see the module.

    Raises:
      UserError: no run has a line of metrics.
    """
    curves = [{part: arm_curve(by_seed, f"{part}_{quantity}") for part in _STYLES} for by_seed in lines]
    measured = [index for index, parts in enumerate(curves) if not all(curve.empty for curve in parts.values())]
    if not measured:
        raise UserError("no run has metrics of its epochs; run one again to see its learning curves")
    shown = _best(arms, measured)
    validated = any(not curves[index]["validation"].empty for index in shown)
    labels = short_labels(arms)
    named = [(labels[index], curves[index]) for index in shown]
    if len(shown) * (1 + validated) <= MOST_LINES:
        figure = _shared_chart(named, quantity, theme)
    else:
        figure = _small_charts(named, curves, quantity, theme)
    which = "Training and validation" if validated else "Training"
    some = f", best {len(shown)} of {len(measured):,} arms" if len(shown) < len(measured) else ""
    put_title(figure, arms, f"{which} {quantity} by {listed(arms.varying)}{some}")
    return figure


@styled
def run_curves(lines: Lines, title: str, *, theme: Theme) -> Figure:
    """Loss and accuracy of a single run, side by side, by epoch."""
    figure = ThemedFigure(8.0, 3.4, theme)
    validated = False
    for position, quantity in enumerate(("loss", "accuracy")):
        axes = figure.add_subplot(1, 2, position + 1)
        curves = {part: arm_curve({0: lines}, f"{part}_{quantity}") for part in _STYLES}
        validated = validated or not curves["validation"].empty
        _prepare_epochs(axes, quantity, list(curves.values()))
        for place, (part, curve) in enumerate(curves.items()):
            _draw_curve(axes, curve, quantity, theme.series[place], MARKERS[place], _STYLES[part])
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric_named(quantity).heading)
        axes.set_title(quantity.capitalize())
    handles = [handle(theme.series[0], MARKERS[0], "training (mean over the epoch's batches)", "-")]
    if validated:
        handles.append(handle(theme.series[1], MARKERS[1], "validation (after the epoch)", "--"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.6)
    figure.suptitle(drawable(title), x=0.01, ha="left")
    return figure


def _best(arms: Arms, measured: Sequence[int]) -> list[int]:
    """At most `MOST_CHARTS` of these arms, those with the best means, in their order."""
    sign = 1 if arms.metric.lower_is_better else -1
    means = {index: arms.arms[index].mean for index in measured}
    ranked = sorted(measured, key=lambda index: sign * means[index] if math.isfinite(means[index]) else math.inf)
    return sorted(ranked[:MOST_CHARTS])


def _prepare_epochs(axes: Axes, quantity: str, curves: Sequence[pd.DataFrame]) -> None:
    """The axes' limits and ticks."""
    known = [curve for curve in curves if not curve.empty]
    if not known:
        return
    last = max(int(curve.index[-1]) for curve in known)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlim(0.8 if last <= 10 else 0, last + 0.2 if last <= 10 else last * 1.02)
    extremes = np.sort(np.concatenate([part for c in known for part in (c.min(axis=1), c.max(axis=1))]))
    if quantity == "loss" and extremes[0] > 0 and extremes[-1] > 3 * extremes[0]:
        axes.set_yscale("log")
        set_log_ticks(axes.yaxis, extremes[0], extremes[-1], "{:.3g}".format)
        return
    values = (extremes * metric_named(quantity).scale).tolist()
    low, high = near_range(values)
    if (low, high) != (values[0], values[-1]):
        margin = 0.06 * (high - low) or 1e-3
        axes.set_ylim(low - margin, high + margin)


def _draw_curve(axes: Axes, curve: pd.DataFrame, quantity: str, color: str, marker: str, style: str) -> None:
    scaled = curve * metric_named(quantity).scale
    if curve.empty:
        return
    if len(scaled.columns) > 1:
        axes.fill_between(scaled.index, scaled.min(axis=1), scaled.max(axis=1), color=color, alpha=0.15, linewidth=0)
    axes.plot(
        mean_curve(scaled),
        color=color,
        linestyle=style,
        marker=marker if len(scaled) <= 12 else "",
        markersize=4,
        markeredgecolor="none",
        gid="curve",
    )
    seeds = [values.dropna() for _, values in scaled.items()]
    if len({values.index[-1] for values in seeds}) > 1:
        for values in seeds:
            axes.plot(values, color=color, linestyle=style, linewidth=0.7, gid="seed")
            if values.index[-1] < scaled.index[-1]:
                # Off the scale it stands at the edge.
                low, high = sorted(axes.get_ylim())
                end = float(np.clip(values.iloc[-1], low, high))
                axes.plot(values.index[-1:], [end], "x", color=color, ms=6, mew=1.6, gid="stopped", clip_on=False)


def _shared_chart(curves: Sequence[tuple[str, Parts]], quantity: str, theme: Theme) -> Figure:
    """One chart for all arms, given with their labels."""
    figure = ThemedFigure(WIDTH, 3.4 + 0.2 * math.ceil(len(curves) / 2), theme)
    axes = figure.add_subplot()
    _prepare_epochs(axes, quantity, [curve for _, parts in curves for curve in parts.values()])
    handles = []
    for (label, parts), color, marker in zip(curves, theme.series, MARKERS, strict=False):
        for part, curve in parts.items():
            _draw_curve(axes, curve, quantity, color, marker, _STYLES[part])
        handles.append(handle(color, marker, wrapped(label, 30), "-"))
    if not all(parts["validation"].empty for _, parts in curves):
        handles += [handle(theme.muted, "", "training", "-"), handle(theme.muted, "", "validation", "--")]
    longest = max(len(line) for entry in handles for line in str(entry.get_label()).splitlines())
    columns = max(1, min(len(handles), 4, 58 // (longest + 7)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric_named(quantity).heading)
    return figure


def _small_charts(curves: Sequence[tuple[str, Parts]], every: Sequence[Parts], quantity: str, theme: Theme) -> Figure:
    """A chart for each of some arms, before the range of every arm's means."""
    columns = 3
    rows = math.ceil(len(curves) / columns)
    titles = [wrapped(label, 20) for label, _ in curves]
    lines = max(title.count("\n") + 1 for title in titles)
    figure = ThemedFigure(WIDTH, rows * (1.15 + 0.15 * lines) + 1.2, theme)
    trained, validation = ([parts[name] for parts in every if not parts[name].empty] for name in _STYLES)
    means = pd.concat(map(mean_curve, trained or validation), axis=1).sort_index().dropna(how="all")
    means *= metric_named(quantity).scale
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    _prepare_epochs(grid[0], quantity, trained + validation)
    grid[0].xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
    for place, (axes, title, (_, parts)) in enumerate(zip(grid, titles, curves, strict=False)):
        axes.fill_between(means.index, means.min(axis=1), means.max(axis=1), color=theme.grid, linewidth=0)
        for (part, curve), color in zip(parts.items(), theme.series, strict=False):
            _draw_curve(axes, curve, quantity, color, "", _STYLES[part])
        axes.set_title(title, fontsize=SMALL)
        left, bottom = place % columns == 0, place >= len(curves) - columns
        axes.tick_params(labelsize=SMALL, labelleft=left, left=left, labelbottom=bottom, bottom=bottom)
        if place // columns == rows - 1:
            axes.set_xlabel("epoch", fontsize=SMALL)
    for axes in grid[len(curves) :]:
        axes.remove()
    handles = [
        handle(theme.series[0], "", "training", "-"),
        *([handle(theme.series[1], "", "validation", "--")] if validation else []),
        Line2D([], [], color=theme.grid, linewidth=6, label="range of all arms' training means"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.supylabel(metric_named(quantity).heading, fontsize=FONT_SIZE)
    return figure
