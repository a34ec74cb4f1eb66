"""Learning curves of an ablation's arms, and of a single run. Pure, as `convjax.analysis.plots.accuracy`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from convjax.analysis.arms import Arm, Arms
from convjax.analysis.curves import Curve, Lines, arm_curve
from convjax.analysis.metrics import metric_named
from convjax.analysis.plots.parts import (
    SMALL,
    WIDTH,
    by_text,
    handle,
    near_range,
    put_title,
    set_log_ticks,
    short_labels,
    wrapped,
)
from convjax.analysis.plots.theme import FONT_SIZE, MARKERS, Theme, ThemedFigure, drawable, styled
from convjax.errors import UserError

MOST_LINES = len(MARKERS)
"""Lines that one chart tells apart; more arms get a small chart each."""

MOST_CHARTS = 30
"""Small charts in one figure: of more arms those with the best means have one."""


@styled
def learning_curves(
    arms: Arms, lines: Sequence[Mapping[int, Lines]], quantity: str = "accuracy", *, theme: Theme
) -> Figure:
    """Training (and validation) loss or accuracy by epoch: mean over seeds, with the band from lowest to highest.

    Up to `MOST_LINES` lines share one chart; with more, arms get a small one each (the best
    `MOST_CHARTS` do), before the range of all arms' means.
    Where a seed stopped before the others, a cross says so and every seed has a thin line.

    Args:
      arms: the arms.
      lines: for every arm the metrics of its seeds (`convjax.analysis.curves.read_lines`).
      quantity: `loss` or `accuracy`.
      theme: see the module.

    Raises:
      UserError: no run has a line of metrics.
    """
    train = [arm_curve(by_seed, f"train_{quantity}") for by_seed in lines]
    validation = [arm_curve(by_seed, f"validation_{quantity}") for by_seed in lines]
    shown = [index for index in range(len(train)) if train[index] or validation[index]]
    if not shown:
        raise UserError("no run has metrics of its epochs; run one again to see its learning curves")
    measured, shown = len(shown), _best(arms, shown)
    validated = any(validation[index] for index in shown)
    labels = short_labels(arms)
    if len(shown) * (2 if validated else 1) <= MOST_LINES:
        figure = ThemedFigure(WIDTH, 3.4 + 0.2 * math.ceil(len(shown) / 2), theme)
        axes = figure.add_subplot()
        _prepare_epochs(axes, quantity, [c for c in (*train, *validation) if c])
        for place, index in enumerate(shown):
            colour, marker = theme.series[place], MARKERS[place]
            _draw_curve(axes, train[index], quantity, colour, marker, "-")
            _draw_curve(axes, validation[index], quantity, colour, marker, "--")
        handles = [
            handle(theme.series[place], MARKERS[place], wrapped(labels[index], 30), "-")
            for place, index in enumerate(shown)
        ]
        if validated:
            handles += [handle(theme.muted, "", "training", "-"), handle(theme.muted, "", "validation", "--")]
        longest = max(len(line) for entry in handles for line in str(entry.get_label()).splitlines())
        columns = max(1, min(len(handles), 4, 58 // (longest + 7)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)
        axes.set_xlabel("epoch")
        axes.set_ylabel(_quantity_heading(quantity))
    else:
        figure = _small_curves(labels, shown, train, validation, quantity, theme)
    which = "Training and validation" if validated else "Training"
    some = f", best {len(shown)} of {measured:,} arms" if len(shown) < measured else ""
    put_title(figure, arms, f"{which} {quantity} by {by_text(arms)}{some}")
    return figure


@styled
def run_curves(lines: Lines, title: str, *, theme: Theme) -> Figure:
    """Loss and accuracy of a single run, side by side, by epoch."""
    figure = ThemedFigure(8.0, 3.4, theme)
    validated = False
    for position, quantity in enumerate(("loss", "accuracy")):
        axes = figure.add_subplot(1, 2, position + 1)
        curves = {part: arm_curve({0: lines}, f"{part}_{quantity}") for part in ("train", "validation")}
        present = {part: curve for part, curve in curves.items() if curve is not None}
        if present:
            _prepare_epochs(axes, quantity, list(present.values()))
        for place, (part, style) in enumerate((("train", "-"), ("validation", "--"))):
            _draw_curve(axes, present.get(part), quantity, theme.series[place], MARKERS[place], style)
        validated = validated or "validation" in present
        axes.set_xlabel("epoch")
        axes.set_ylabel(_quantity_heading(quantity))
        axes.set_title(quantity.capitalize())
    handles = [handle(theme.series[0], MARKERS[0], "training (mean over the epoch's batches)", "-")]
    if validated:
        handles.append(handle(theme.series[1], MARKERS[1], "validation (after the epoch)", "--"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.6)
    figure.suptitle(drawable(title), x=0.01, ha="left")
    return figure


def _best(arms: Arms, shown: Sequence[int]) -> list[int]:
    """At most `MOST_CHARTS` of these arms, those with the best means, in their order."""
    sign = 1 if arms.metric.lower_is_better else -1
    ranked = sorted(shown, key=lambda index: _rank(arms.arms[index], sign))
    return sorted(ranked[:MOST_CHARTS])


def _rank(arm: Arm, sign: int) -> float:
    finite = [value for value in arm.values.values() if math.isfinite(value)]
    return sign * math.fsum(finite) / len(finite) if finite else math.inf


def _quantity_heading(quantity: str) -> str:
    return metric_named(quantity).heading


def _prepare_epochs(axes: Axes, quantity: str, curves: Sequence[Curve]) -> None:
    last = max(int(curve.epochs[-1]) for curve in curves)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlim(0.8 if last <= 10 else 0, last + 0.2 if last <= 10 else last * 1.02)
    if quantity == "loss":
        lowest, highest = min(float(curve.low.min()) for curve in curves), max(float(c.high.max()) for c in curves)
        if lowest > 0 and highest > 3 * lowest:
            axes.set_yscale("log")
            set_log_ticks(axes.yaxis, lowest, highest, "{:.3g}".format)
            return
    scale = metric_named(quantity).scale
    values = sorted(float(value) * scale for curve in curves for value in (*curve.low, *curve.high))
    low, high = near_range(values)
    if (low, high) != (values[0], values[-1]):
        margin = 0.06 * (high - low) or 1e-3
        axes.set_ylim(low - margin, high + margin)


def _draw_curve(axes: Axes, curve: Curve | None, quantity: str, colour: str, marker: str, style: str) -> None:
    if curve is None:
        return
    scale = metric_named(quantity).scale
    if curve.seeds > 1:
        axes.fill_between(curve.epochs, curve.low * scale, curve.high * scale, color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        curve.epochs,
        curve.mean * scale,
        color=colour,
        linestyle=style,
        marker=marker if len(curve.epochs) <= 12 else "",
        markersize=4,
        markeredgecolor="none",
        gid="curve",
    )
    if len({epochs[-1] for epochs, _ in curve.paths}) > 1:
        for epochs, values in curve.paths:
            axes.plot(epochs, np.array(values) * scale, color=colour, linestyle=style, linewidth=0.7, gid="seed")
            if epochs[-1] < curve.epochs[-1]:
                # Off the scale it stands at the edge.
                end = float(np.clip(values[-1] * scale, *sorted(axes.get_ylim())))
                axes.plot(epochs[-1:], [end], "x", color=colour, ms=6, mew=1.6, gid="stopped", clip_on=False)


def _small_curves(
    labels: Sequence[str],
    shown: Sequence[int],
    train: Sequence[Curve | None],
    validation: Sequence[Curve | None],
    quantity: str,
    theme: Theme,
) -> Figure:
    columns = 3
    rows = math.ceil(len(shown) / columns)
    titles = [wrapped(labels[index], 20) for index in shown]
    lines = max(title.count("\n") + 1 for title in titles)
    figure = ThemedFigure(WIDTH, rows * (1.15 + 0.15 * lines) + 1.2, theme)
    everything = [curve for curve in (*train, *validation) if curve]
    scale = metric_named(quantity).scale
    background = _range_of_means([curve for curve in train if curve] or everything)
    first: Axes | None = None
    for place, (index, title) in enumerate(zip(shown, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1, sharex=first, sharey=first)
        if first is None:
            first = axes
            _prepare_epochs(axes, quantity, everything)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
        epochs, low, high = background
        axes.fill_between(epochs, low * scale, high * scale, color=theme.grid, linewidth=0)
        _draw_curve(axes, train[index], quantity, theme.series[0], "", "-")
        _draw_curve(axes, validation[index], quantity, theme.series[1], "", "--")
        axes.set_title(title, fontsize=SMALL)
        outer_left, outer_bottom = place % columns == 0, place >= len(shown) - columns
        axes.tick_params(
            labelsize=SMALL, labelleft=outer_left, left=outer_left, labelbottom=outer_bottom, bottom=outer_bottom
        )
        if outer_bottom and place // columns == rows - 1:
            axes.set_xlabel("epoch", fontsize=SMALL)
    handles = [
        handle(theme.series[0], "", "training", "-"),
        *([handle(theme.series[1], "", "validation", "--")] if any(validation) else []),
        Line2D([], [], color=theme.grid, linewidth=6, label="range of all arms' training means"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.supylabel(_quantity_heading(quantity), fontsize=FONT_SIZE)
    return figure


def _range_of_means(curves: Sequence[Curve]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Epochs, and the lowest and highest mean of any arm in each."""
    by_epoch: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, mean in zip(curve.epochs, curve.mean, strict=True):
            if math.isfinite(mean):
                by_epoch.setdefault(int(epoch), []).append(float(mean))
    epochs = sorted(by_epoch)
    low, high = ([extreme(by_epoch[epoch]) for epoch in epochs] for extreme in (min, max))
    return np.array(epochs), np.array(low), np.array(high)
