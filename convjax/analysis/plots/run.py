"""Pictures of one finished run: learning curves, confusion matrix, the most confidently wrong test images.

`save_run_plots` reads the run's folder and writes into `RUN/plots/`; everything else here is pure.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import ArrayLike, NDArray

from convjax import sweeps, training
from convjax.analysis.plots.curves import run_curves
from convjax.analysis.plots.parts import text_color
from convjax.analysis.plots.theme import FONT_SIZE, Theme, ThemedFigure, drawable, save, styled
from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps.store import Run, read_classes

_MOST_NUMBERED = 20
"""Classes up to which a confusion matrix has numbers in its cells."""

_MOST_TICKS = 40
_MOST_IMAGES = 30
_COLUMNS = 6
_LONG_NAME, _LONGEST_NAME = 6, 18


@dataclass(frozen=True)
class Wrong:
    """Misclassified images, the most confident first.

    Attributes:
      indices: which images, `[wrong]`.
      predicted, true: their classes, `[wrong]`.
      probability: that the network gave to the predicted class, `[wrong]`.
    """

    indices: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    probability: NDArray[np.float64]


def save_run_plots(run: Run, data_dir: str) -> list[Path]:
    """Writes learning_curves.png, confusion_matrix.png and confidently_wrong.png into `RUN/plots/`.

    What a run lacks is left out: a run that diverged has no network worth a look, and one that diverged in its first
    epoch has no learning curves.

    Args:
      run: a finished run.
      data_dir: see `convjax.data.load`.

    Returns the files written.

    Raises:
      UserError: the run is not finished, or damaged, or the data is not what it was tested on.
    """
    result, written = run.result(), run.config()
    if result is None or written is None:
        raise UserError(f"{run.path} is not finished; run the same command again without --save_plots to finish it")
    config = RunConfig.from_record(written)
    folder = run.path / "plots"
    summary = f"{config.dataset}, seed {config.seed}, test accuracy {result['test_accuracy']:.2%}"
    paths = []
    if lines := run.metrics():
        paths.append(save(run_curves(lines, f"Learning curves ({summary})"), folder / "learning_curves.png"))

    names = written["data"]["class_names"]
    predicted, true = (_read_classes(run.path / f"{part}.npy") for part in ("predictions", "labels"))
    figure = confusion_plot(confusion_matrix(true, predicted, len(names)), names, f"Confusion matrix ({summary})")
    paths.append(save(figure, folder / "confusion_matrix.png"))

    if result["status"] == "done":
        images, labels, logits = _test_set(run, config, result, data_dir)
        figure = wrong_plot(images, most_confidently_wrong(logits, labels), names, len(labels), summary)
        paths.append(save(figure, folder / "confidently_wrong.png"))
    return paths


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How many examples of each true class (row) have each predicted class (column), `[classes, classes]`."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)), 1)
    return matrix


def most_confidently_wrong(logits: ArrayLike, labels: ArrayLike) -> Wrong:
    """The misclassified examples, those with the most probable prediction first.

    Args:
      logits: `[examples, classes]`.
      labels: `[examples]`.
    """
    scores = np.asarray(logits, dtype=np.float64)
    true = np.asarray(labels, dtype=np.int64)
    predicted = np.argmax(scores, axis=-1)
    # The odds against the prediction still distinguish probabilities that round to 1.
    others = np.array(scores)
    np.put_along_axis(others, predicted[:, None], -np.inf, axis=-1)
    against = np.exp(others - scores.max(axis=-1, keepdims=True)).sum(axis=-1)
    wrong = np.flatnonzero(predicted != true)
    order = wrong[np.argsort(against[wrong], kind="stable")]
    return Wrong(order, predicted[order], true[order], 1.0 / (1.0 + against[order]))


@styled
def confusion_plot(matrix: NDArray[np.int64], names: Sequence[str], title: str, *, theme: Theme) -> Figure:
    """Counts in the cells; the color is the share of the row's class, scaled so that few errors do not look like none.

    Args:
      matrix: `[classes, classes]`, rows true, columns predicted.
      names: of the classes.
      title: of the figure.
      theme: see `convjax.analysis.plots.theme`.
    """
    classes = len(names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    numbered = classes <= _MOST_NUMBERED
    side = min(max(4.5, 0.5 * classes if numbered else 8.0), 9.0)
    figure = ThemedFigure(side + 1.2, side + 0.6, theme)
    axes = figure.add_subplot()
    # From the background, so that empty cells look empty, evenly in lightness to the text's color.
    colors = LinearSegmentedColormap.from_list("shares", [theme.paper, theme.series[0], theme.ink])
    # Errors are rare: on a linear scale all but the diagonal would be one color.
    norm = PowerNorm(0.4, 0.0, 1.0)
    drawn = axes.imshow(np.ma.masked_invalid(shares), cmap=colors, norm=norm, interpolation="nearest")
    if numbered:
        edges = np.arange(classes + 1) - 0.5
        axes.hlines(edges, -0.5, classes - 0.5, color=theme.grid, linewidth=0.8)
        axes.vlines(edges, -0.5, classes - 0.5, color=theme.grid, linewidth=0.8)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                size = FONT_SIZE - (1.0 if count < 1000 else 2.0)
                shade = text_color(colors(norm(shares[row, column])))
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=shade, fontsize=size)
    step = math.ceil(classes / _MOST_TICKS)
    places = list(range(0, classes, step))
    shown = [_short(names, place) for place in places]
    turned = max(len(name) for name in shown) > 3
    axes.set_xticks(places, shown, rotation=90 if turned else 0)
    axes.set_yticks(places, shown)
    axes.tick_params(length=0, labelsize=FONT_SIZE - (0.5 if numbered else 2.0))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class's images (%)")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(FixedLocator([0, 0.01, 0.05, 0.2, 0.5, 1]))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}"))
    bar.ax.grid(visible=False)
    wide = int(10 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.wrap(drawable(title), wide)), x=0.01, ha="left")
    return figure


@styled
def wrong_plot(
    images: NDArray[np.uint8], wrong: Wrong, names: Sequence[str], total: int, summary: str, *, theme: Theme
) -> Figure:
    """A sheet of the first wrong images, each with its predicted class, the probability of that, and its true class.

    Args:
      images: `[total, height, width, channels]`; `wrong` has indices into them.
      wrong: see `most_confidently_wrong`.
      names: of the classes.
      total: how many images were classified.
      summary: of the run, for the title.
      theme: see `convjax.analysis.plots.theme`.
    """
    count = min(len(wrong.indices), _MOST_IMAGES)
    if not count:
        figure = ThemedFigure(6.5, 1.6, theme)
        figure.text(0.5, 0.4, f"All {total:,} test images are classified correctly.", ha="center", va="center")
        figure.suptitle(drawable(f"No wrong image ({summary})"), x=0.01, ha="left")
        return figure
    rows = math.ceil(count / _COLUMNS)
    height, width = images.shape[1:3]
    tall = min(max(height / width, 0.5), 2.0)
    labels = [tuple(_short(names, index) for index in pair) for pair in zip(wrong.predicted, wrong.true, strict=True)]
    long = max(len(name) for pair in labels[:count] for name in pair) > _LONG_NAME
    figure = ThemedFigure(_COLUMNS * 1.45, rows * (1.3 * tall + (0.65 if long else 0.5)) + 0.8, theme)
    for place in range(count):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        picture = _picture(images[wrong.indices[place]])
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        taken, true = labels[place]
        chance = _percent(wrong.probability[place])
        axes.set_title(f"{taken}\n{chance}" if long else f"{taken}  {chance}", color=theme.bad, loc="center")
        axes.text(0.5, -0.04, f"true: {true}", transform=axes.transAxes, ha="center", va="top")
    title = f"The {count:,} most confidently wrong of {len(wrong.indices):,} wrong images"
    if count == len(wrong.indices):
        title = "The only wrong image" if count == 1 else f"All {count:,} wrong images, the most confident first"
    title = f"{title}, among {total:,} test images\n{summary}; red: predicted class and its probability"
    figure.suptitle("\n".join(map(drawable, title.split("\n"))), x=0.01, ha="left")
    return figure


def _picture(image: NDArray[np.uint8]) -> NDArray[Any]:
    """`[height, width, channels]` for Matplotlib: RGB as it is, anything else gray."""
    return image if image.shape[-1] == 3 else image.mean(axis=-1)


def _percent(probability: float) -> str:
    return ">99.99 %" if probability > 0.9999 else f"{100 * probability:.2f} %"


def _short(names: Sequence[str], index: int) -> str:
    """A class's name, cut where it is long, or its number where the font lacks a character."""
    name = str(names[index])
    if drawable(name) != name:
        return str(index)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def _read_classes(path: Path) -> NDArray[np.int64]:
    try:
        return read_classes(path).astype(np.int64)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); --noresume runs it again") from None


def _test_set(
    run: Run, config: RunConfig, result: dict[str, Any], data_dir: str
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]:
    """Test images and labels, and the logits of the run's newest checkpoint."""
    dataset = sweeps.dataset_of(config, data_dir)
    if dataset.fingerprint != result["dataset_fingerprint"]:
        raise UserError(
            f"the {config.dataset} data (fingerprint {dataset.fingerprint}) is not what {run.path} was tested on "
            f"({result['dataset_fingerprint']}); give the --data_dir that the run had"
        )
    _, task, params = training.checkpoint.load_params(run.path)
    return np.asarray(dataset.test.images), dataset.test.labels, training.predict_all(task, params, dataset.test)
