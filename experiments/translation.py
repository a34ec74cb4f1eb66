"""Does a convnet recognize a digit wherever it is? Trained on centered digits, tested on shifted ones.

python -m experiments.translation

Expect (MNIST, 10,000 images, channels 16-32-32, 3 epochs, 3 seeds): a shift by 4 pixels costs the convnet 69 points, 12
points less than the dense net; with an averaged head it costs 38 points less than with Flatten.
"""

from __future__ import annotations

from typing import Any

from convjax import studies
from convjax.studies import measures
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement

MARGIN = 0.01
WHOLE = 4
"""Pixels by which a digit, 20 pixels wide in an image of 28, can be moved and stay in the image."""

ARMS = {
    "convnet": {"model": "convnet", "head": "flatten"},
    "convnet, averaged head": {"model": "convnet", "head": "gap"},
    "dense": {"model": "dense"},
}
STUDY = Study(
    name="translation",
    question="How accurate is a net on shifted digits after training on centered ones?",
    reading=(
        "The arms are the chapter's convnet at half its width, the same with a global average instead of Flatten (it "
        "knows what it found, but not where), and the dense net. No training image is shifted. MNIST's digits are 20 "
        "pixels wide in images of 28, so a shift by up to 4 pixels cuts nothing off; for larger shifts the maps show "
        "how much of the digits is left in the image."
    ),
    arms=tuple(ARMS.values()),
    baseline={"model": "convnet", "head": "flatten"},
    base={"channels": "16-32-32", "train_size": 10_000, "epochs": 3},
    seeds=3,
    quick={"channels": "8-16-16", "train_size": 2000},
    measurements=(Measurement("shifts", lambda trained: measures.measure_shifts(trained)),),
)


def measured(shifts: studies.StudyRuns) -> dict[str, dict[int, Any]]:
    """What was measured, by seed, of every arm."""
    return {name: shifts.measured("shifts", **fields) for name, fields in ARMS.items()}


def at_distance(maps: dict[int, Any], distance: int) -> dict[int, float]:
    """Mean accuracy by seed over the eight directions at this many pixels; at 0 that of the centered digits."""
    steps = (-distance, 0, distance)
    places = [(down, right) for down in steps for right in steps if (down, right) != (0, 0) or not distance]
    accuracies = {}
    for seed, found in maps.items():
        index = {offset: position for position, offset in enumerate(found["offsets"])}
        values = [found["accuracy"][index[down]][index[right]] for down, right in places]
        accuracies[seed] = sum(values) / len(values)
    return accuracies


def judge(shifts: studies.StudyRuns) -> list[studies.Finding]:
    """Is a shift that cuts nothing off harmless to the convnet, and less harmful than to the dense net?"""
    maps = measured(shifts)
    centered, moved = ({name: at_distance(found, by) for name, found in maps.items()} for by in (0, WHOLE))
    lost = {name: {seed: centered[name][seed] - moved[name][seed] for seed in centered[name]} for name in maps}
    convnet, averaged, dense = lost.values()
    start, moved_by_one = centered["convnet"], at_distance(maps["convnet"], 1)
    equal = f"digits shifted by {WHOLE} pixels are recognized as well as centered ones, to {100 * MARGIN:g} point"
    less = f"a shift by {WHOLE} pixels costs the convnet less accuracy than the dense net"
    equal_by_one = "digits shifted by 1 pixel are recognized as well as centered ones"
    less_averaged = f"with an averaged head a shift by {WHOLE} pixels costs the convnet less than with Flatten"
    return [
        studies.difference(equal, start, moved["convnet"], studies.within(MARGIN)),
        studies.difference(less, dense, convnet, studies.below()),
        studies.difference(equal_by_one, start, moved_by_one, studies.within(MARGIN), decides=False),
        studies.difference(less_averaged, convnet, averaged, studies.below(), decides=False),
    ]


def figures(shifts: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """A map of accuracy by shift for every net, and what is left in the image."""
    return [studies.shift_figure(measured(shifts))]


CLAIM = Claim(
    name="translation",
    title="Patterns are found everywhere",
    section="The convolution operation",
    quote=(
        "Patterns are translation invariant: Certain patterns can be found everywhere in the picture (does not depend "
        "on whether it was in the lower right-corner or at a different place)."
    ),
    studies={"shifts": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "Shifted training images (--augment=shift=0.2) would teach any of these nets what the claim takes for granted. "
        "The claim is about patterns, the test about the whole net. Its convolutions do find a pattern anywhere (see "
        "the next claim), but the dense layers on top read a flattened map, which says where the pattern is. Without "
        "them (the averaged head) most of the loss should disappear; what remains is due to pooling and borders."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
