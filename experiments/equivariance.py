"""Do feature maps move as the image does? Convolutions, max-pooling with stride 2, and borders, layer by layer.

python -m experiments.equivariance
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement, Trained

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

ROUNDING = 1e-5
MARGIN = 0.01


def equivariance(trained: Trained) -> dict[str, Any]:
    """See `convjax.studies.measures.shifts`."""
    from convjax.studies.measures import shifts

    return shifts.equivariance(trained)


ARMS = {
    "valid, max-pooling": {"padding": "valid", "pool": "max"},
    "same, max-pooling": {"padding": "same", "pool": "max"},
    "valid, average-pooling": {"padding": "valid", "pool": "avg"},
    "valid, no pooling": {"padding": "valid", "pool": "none"},
}
STUDY = Study(
    name="equivariance",
    question="By how much does a feature map of a shifted image differ from the shifted feature map?",
    reading=(
        "Test images are shifted by 1, 2 and 4 pixels. The error of a feature map is the difference between what it "
        "becomes and what it was, shifted, in shares of its norm; over positions away from borders and padding, and "
        "over all. Accuracy is not the question here, so that training is short."
    ),
    arms=tuple(ARMS.values()),
    baseline={"padding": "valid", "pool": "max"},
    base={"channels": "16-32-32", "train_size": 10_000, "epochs": 1},
    seeds=3,
    quick={"channels": "4-8-8", "train_size": 1000},
    measurements=(Measurement("equivariance", equivariance),),
)


def errors(found: dict[int, Any], layer: int, pixels: int, where: str = "inside") -> dict[int, float]:
    """The error of a layer (its index among the feature maps) for a shift, by seed; seeds without one are left out."""
    values = {seed: one[where][layer][one["shifts"].index(pixels)] for seed, one in found.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Convolutions with stride 1 are equivariant to the last digit; beside that, what pooling and borders do."""
    from convjax.analysis.statistics import summarise
    from convjax.studies.verdict import estimate, exact

    found = {name: evidence.measured("equivariance", **fields) for name, fields in ARMS.items()}
    max_pooled, plain = found["valid, max-pooling"], found["valid, no pooling"]
    layers = next(iter(max_pooled.values()))["layers"]
    pooling, last = layers.index("max_pooling2d_1"), len(layers) - 1
    by_one = [value for layer in range(3) for pixels in (1, 2, 4) for value in errors(plain, layer, pixels).values()]
    by_stride = [value for layer in range(len(layers)) for value in errors(max_pooled, layer, 4).values()]

    def moved(part: str, values: dict[int, float]) -> "Finding":
        summary = summarise(values)
        return estimate(
            part,
            summary.mean,
            summary.t_interval,
            claimed="equal",
            margin=MARGIN,
            metric="relative error",
            note=f"{summary.n} seeds",
            decides=False,
        )

    border = errors(found["same, max-pooling"], 0, 1, "all"), errors(found["same, max-pooling"], last, 4, "all")
    return [
        exact(
            "after convolutions with stride 1 a feature map moves as the image does",
            bool(by_one) and max(by_one) < ROUNDING,
            f"largest relative error {max(by_one, default=float('nan')):.1g}, three layers, shifts by 1, 2 and 4 "
            "pixels, away from borders",
        ),
        exact(
            "with two max-poolings by 2 it still does for shifts by 4 pixels, the product of their strides",
            bool(by_stride) and max(by_stride) < ROUNDING,
            f"largest relative error {max(by_stride, default=float('nan')):.1g}",
        ),
        moved("after the first max-pooling it does for a shift by 1 pixel", errors(max_pooled, pooling, 1)),
        moved("after all layers it does for a shift by 1 pixel", errors(max_pooled, last, 1)),
        moved("with average-pooling it does for a shift by 1 pixel", errors(found["valid, average-pooling"], last, 1)),
        moved("at the borders of a padded convolution it does", border[0]),
        moved("at the borders of the whole padded stack it does for a shift by 4 pixels", border[1]),
    ]


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """The error layer by layer."""
    from convjax.studies.figures import equivariance_figure

    found = {name: evidence.measured("equivariance", **fields) for name, fields in ARMS.items()}
    return [equivariance_figure(found, theme=theme)]


CLAIM = Claim(
    name="equivariance",
    title="Convolutions move with the image",
    section="The convolution operation",
    quote="Patterns are translation invariant.",
    studies={"equivariance": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "The first part is a theorem (a convolution commutes with shifts; strictly it is equivariant, not invariant): "
        "only a wrong implementation would contradict it. How much max-pooling breaks for shifts that are no multiple "
        "of its stride depends on how smooth the maps are: blurring before subsampling (Zhang 2019) lowers it, larger "
        "strides raise it. Border effects depend on how much of the image's content reaches the border."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
