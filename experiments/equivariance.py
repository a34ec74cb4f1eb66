"""Do feature maps move as the image does? Convolutions, max-pooling with stride 2, and borders, layer by layer.

python -m experiments.equivariance

Expect (MNIST, 10,000 images, channels 16-32-32, 1 epoch, 3 seeds): relative error 0 up to rounding after convolutions
with stride 1, and 0.16 after the first max-pooling for a shift by 1 pixel.
"""

from __future__ import annotations

from typing import Any

from convjax import analysis, studies
from convjax.studies import measures
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement

ROUNDING = 1e-5
MARGIN = 0.01
SHIFTS = (1, 2, 4)
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
        "Test images are shifted by 1, 2 and 4 pixels. The error of a feature map is the difference between the map of "
        "the shifted image and the shifted map, relative to its norm: over positions away from borders and padding, "
        "and over all positions. Accuracy is not the question here, so training is short."
    ),
    arms=tuple(ARMS.values()),
    baseline={"padding": "valid", "pool": "max"},
    base={"channels": "16-32-32", "train_size": 10_000, "epochs": 1},
    seeds=3,
    quick={"channels": "4-8-8", "train_size": 1000},
    measurements=(Measurement("equivariance", lambda trained: measures.measure_equivariance(trained)),),
)


def measured(equivariance: studies.StudyRuns) -> dict[str, dict[int, Any]]:
    """What was measured, by seed, of every arm."""
    return {name: equivariance.measured("equivariance", **fields) for name, fields in ARMS.items()}


def errors(found: dict[int, Any], layer: int, pixels: int, where: str = "inside") -> dict[int, float]:
    """The error of a layer (its index among the feature maps) for a shift, by seed; seeds without one are left out."""
    values = {seed: one[where][layer][one["shifts"].index(pixels)] for seed, one in found.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def judge(equivariance: studies.StudyRuns) -> list[studies.Finding]:
    """Convolutions with stride 1 are equivariant up to rounding; what pooling and borders do does not decide."""
    found = measured(equivariance)
    pooled, padded = found["valid, max-pooling"], found["same, max-pooling"]
    plain, averaged = found["valid, no pooling"], found["valid, average-pooling"]
    layers = next(iter(pooled.values()))["layers"]
    pooling, last = layers.index("max_pooling2d_1"), len(layers) - 1
    by_any = [value for layer in range(3) for pixels in SHIFTS for value in errors(plain, layer, pixels).values()]
    by_four = [value for layer in range(len(layers)) for value in errors(pooled, layer, 4).values()]

    def rounding(part: str, values: list[float], note: str = "") -> studies.Finding:
        largest = max(values, default=float("nan"))
        return studies.exact(part, largest < ROUNDING, f"largest relative error {largest:.1g}{note}")

    def small(part: str, values: dict[int, float]) -> studies.Finding:
        one, limit = analysis.statistics.summarize(values), studies.within(MARGIN)
        metric, note = "relative error", f"{one.n} seeds"
        return studies.estimate(part, one.mean, one.t_interval, limit, metric=metric, note=note, decides=False)

    note = ", three layers, shifts by 1, 2 and 4 pixels, away from borders"
    return [
        rounding("after convolutions with stride 1 a feature map moves as the image does", by_any, note),
        rounding("with two 2x2 max-poolings it does for shifts by 4 pixels, the product of their strides", by_four),
        small("after the first max-pooling it does for a shift by 1 pixel", errors(pooled, pooling, 1)),
        small("after all layers it does for a shift by 1 pixel", errors(pooled, last, 1)),
        small("with average-pooling it does for a shift by 1 pixel", errors(averaged, last, 1)),
        small("at the borders of a padded convolution it does", errors(padded, 0, 1, "all")),
        small("at the borders of all padded layers it does for a shift by 4 pixels", errors(padded, last, 4, "all")),
    ]


def figures(equivariance: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """The error layer by layer."""
    return [studies.equivariance_figure(measured(equivariance))]


CLAIM = Claim(
    name="equivariance",
    title="Convolutions move with the image",
    section="The convolution operation",
    quote="Patterns are translation invariant.",
    studies={"equivariance": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "The first part is a theorem: a convolution commutes with shifts (strictly, it is equivariant, not invariant). "
        "Only a wrong implementation would contradict it. How much max-pooling breaks for shifts that are not a "
        "multiple of its stride depends on how smooth the maps are: blurring before subsampling (Zhang 2019) lowers "
        "it, larger strides raise it. Border effects depend on how much of the image's content reaches the border."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
