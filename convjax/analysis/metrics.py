"""The name of a measured number, which direction is better, and how it is written."""

import math
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
ABSENT = "\N{EM DASH}"


@dataclass(frozen=True)
class Metric:
    """A numeric column of the run store.

    Attributes:
      name: the column's name, such as `test_accuracy`.
      title: words for a heading, without the unit.
      unit: `%` for fractions that are written as percentages, otherwise empty.
      difference_unit: of a difference; percentages differ by points.
      lower_is_better: None where neither direction is better (parameters, FLOPs).
      decimals: digits written after the point.
    """

    name: str
    title: str
    unit: str = ""
    difference_unit: str = ""
    lower_is_better: bool | None = None
    decimals: int = 4

    @property
    def heading(self) -> str:
        """Title with unit: `test accuracy (%)`."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def scale(self) -> float:
        """What a stored value is multiplied by when written: 100 for percentages."""
        return 100.0 if self.unit == "%" else 1.0

    def format(self, value: float, *, signed: bool = False) -> str:
        """The value as written in a table, without the unit."""
        if not math.isfinite(value):
            return ABSENT
        text = f"{abs(value) * self.scale:,.{self.decimals}f}"
        # A difference that rounds to zero keeps its sign: an interval from +0.00 excludes 0.
        sign = MINUS if value < 0 else "+" if signed and value > 0 else ""
        return sign + text

    def with_unit(self, value: float) -> str:
        """`99.20 %`."""
        return f"{self.format(value)} {self.unit}".rstrip()

    def difference_with_unit(self, difference: float) -> str:
        """`+0.12 points`."""
        return f"{self.format(difference, signed=True)} {self.difference_unit}".rstrip()


def metric_named(name: str) -> Metric:
    """The metric of a column of the run store; unknown names are plain numbers without a direction."""
    title = name.replace("_", " ")
    if name.endswith("accuracy"):
        return Metric(name, title, "%", "points", lower_is_better=False, decimals=2)
    if name.endswith("auc"):
        return Metric(name, title.replace("auc", "ROC AUC"), lower_is_better=False)
    if name.endswith("loss"):
        return Metric(name, title, lower_is_better=True)
    if name.split("_")[0] == "seconds":
        return Metric(name, title, difference_unit="s", lower_is_better=True, decimals=1)
    if name in ("parameters", "flops"):
        return Metric(name, title, decimals=0)
    return Metric(name, title)


def short_number(value: float) -> str:
    """Three significant digits with a suffix: `5.23 M`; integers below 10,000 in full."""
    if not math.isfinite(value):
        return ABSENT
    if abs(value) < 10_000:
        return f"{value:,.4g}"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,700 is written 1.00 M, not 1e+03 k.
        if abs(value) >= limit * 0.9995:
            scaled = value / limit
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f} {suffix}"
    raise AssertionError(value)
