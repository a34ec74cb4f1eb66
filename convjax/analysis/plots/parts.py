"""The common parts of an ablation's plots: labels, titles, legends, limits and ticks."""

import math
import re
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from convjax.analysis.arms import Arms
from convjax.analysis.metrics import short_number
from convjax.analysis.plots.theme import FONT_SIZE, drawable
from convjax.analysis.statistics import Summary
from convjax.analysis.wording import field_text

WIDTH = 4.8
"""Of a chart, in inches: its text stays readable on a phone."""

SMALL = FONT_SIZE - 1.5
LABEL_WIDTH = 26
_TITLE_WIDTH = 50
_FAR = 0.85


def short_labels(arms: Arms) -> list[str]:
    """`3, valid`: only the values of the fields that vary, for charts that name the fields once."""
    positions = [arms.by.index(name) for name in arms.varying]
    return [drawable(", ".join(field_text(arm.key[position]) for position in positions)) for arm in arms.arms]


def put_title(figure: Figure, arms: Arms, text: str, width: int = _TITLE_WIDTH) -> None:
    """A title on top, at the left, wrapped to the figure, with the data's name."""
    data = f" ({arms.common['dataset']})" if "dataset" in arms.common else ""
    columns = max(width, int(width * figure.get_figwidth() / WIDTH))
    title = "\n".join(textwrap.wrap(drawable(text[0].upper() + text[1:] + data), columns))
    figure.suptitle(title, x=0.01, ha="left")


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width)) or text


def handle(color: str, marker: str, label: str, style: LineStyleType = "") -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=color, marker=marker, linestyle=style, label=label, markeredgecolor="none")


def text_color(background: Sequence[float] | NDArray[np.float64]) -> str:
    """White on a dark background (red, green, blue, ... from 0 to 1), black on a light one."""
    red, green, blue = background[:3]
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#000000"


def near_window(arms: Arms, summaries: Sequence[Summary]) -> tuple[float, float]:
    """Limits of the metric's axis, in its unit: all values and intervals without a few values far from the rest."""
    scale = arms.metric.scale
    values = sorted(value * scale for arm in arms.arms for value in arm.values.values() if math.isfinite(value))
    if not values:
        return 0.0, 1.0
    low, high = near_range(values)
    ends = [
        end * scale
        for summary in summaries
        if summary.t_interval is not None and low <= summary.mean * scale <= high
        for end in (summary.t_interval.low, summary.t_interval.high)
    ]
    spread = high - low
    # A wide interval of very few seeds may leave the picture, but must not set its scale.
    low = min([low, *(max(end, low - spread) for end in ends)])
    high = max([high, *(min(end, high + spread) for end in ends)])
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 1e-3
    return low - margin, high + margin


def near_range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest of ascending `values`, without outliers.

    Outliers are less than a third of the values, and the others take up less than 15 % of the whole range.
    """
    low, high = 0, len(values) - 1
    gaps = np.diff(values)
    if gaps.size and gaps.max() > _FAR * (values[-1] - values[0]):
        gap = int(np.argmax(gaps))
        if gap + 1 < len(values) / 3:
            low = gap + 1
        elif len(values) - gap - 1 < len(values) / 3:
            high = gap
    return values[low], values[high]


def set_log_ticks(axis: Axis, low: float, high: float, text: Callable[[float], str]) -> None:
    """A few round ticks on a logarithmic axis, for a part of a decade as for many decades."""
    if high > 4 * low:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1,) if high > 5000 * low else (1, 3) if high > 200 * low else (1, 2, 5)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
    else:
        ticks = list(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    axis.set_major_locator(FixedLocator([tick for tick in ticks if tick > 0]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def tick_number(value: float) -> str:
    """`short_number` without zeros at the end: `2 M`."""
    text = short_number(value)
    return re.sub(r"\.?0+(?= )", "", text) if "." in text else text
