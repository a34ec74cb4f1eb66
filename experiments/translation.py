"""Does a convnet recognise a digit wherever it stands? Trained on centred digits, tested on shifted ones.

python -m experiments.translation
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

MARGIN = 0.01
WHOLE = 4
"""Pixels by which a digit, 20 pixels wide in an image of 28, can be moved and stay in the image."""


def shifted_accuracy(trained: Trained) -> dict[str, Any]:
    """See `convjax.studies.measures.shifts`."""
    from convjax.studies.measures import shifts

    return shifts.shifted_accuracy(trained)


ARMS = {
    "convnet": {"model": "convnet", "head": "flatten"},
    "convnet, averaged head": {"model": "convnet", "head": "gap"},
    "dense": {"model": "dense"},
}
STUDY = Study(
    name="translation",
    question="What does a net that was trained on centred digits make of shifted ones?",
    reading=(
        "The arms are a convnet as the chapter's but half as wide, the same with a global average in place of Flatten "
        "(what it has found, but not where), and the dense net. No training image is moved. MNIST's digits are 20 "
        "pixels wide in images of 28: up to 4 pixels nothing is cut off, beyond that the map of what is left in the "
        "image tells how much."
    ),
    arms=tuple(ARMS.values()),
    baseline={"model": "convnet", "head": "flatten"},
    base={"channels": "16-32-32", "train_size": 10_000, "epochs": 3},
    seeds=3,
    quick={"channels": "8-16-16", "train_size": 2000},
    measurements=(Measurement("shifts", shifted_accuracy),),
)


def at_distance(maps: dict[int, Any], distance: int) -> dict[int, float]:
    """Mean accuracy over the eight directions at so many pixels, by seed; at 0 that of the centred digits."""
    steps = (-distance, 0, distance)
    places = [(down, right) for down in steps for right in steps if (down, right) != (0, 0) or not distance]
    accuracies = {}
    for seed, found in maps.items():
        index = {offset: position for position, offset in enumerate(found["offsets"])}
        values = [found["accuracy"][index[down]][index[right]] for down, right in places]
        accuracies[seed] = sum(values) / len(values)
    return accuracies


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Is a shift that cuts nothing off harmless to the convnet, and less harmful than to the dense net?"""
    from convjax.studies.verdict import difference

    maps = {name: evidence.measured("shifts", **fields) for name, fields in ARMS.items()}
    centred = {name: at_distance(found, 0) for name, found in maps.items()}
    moved = {name: at_distance(found, WHOLE) for name, found in maps.items()}
    lost = {name: {seed: centred[name][seed] - moved[name][seed] for seed in centred[name]} for name in maps}
    return [
        difference(
            f"digits shifted by {WHOLE} pixels are recognised as well as centred ones, to {100 * MARGIN:g} point",
            centred["convnet"],
            moved["convnet"],
            claimed="equal",
            margin=MARGIN,
        ),
        difference(
            f"a shift by {WHOLE} pixels costs the convnet less accuracy than the dense net",
            lost["dense"],
            lost["convnet"],
            claimed="lower",
        ),
        difference(
            "by 1 pixel, digits are recognised as well as centred ones",
            centred["convnet"],
            at_distance(maps["convnet"], 1),
            claimed="equal",
            margin=MARGIN,
            decides=False,
        ),
        difference(
            f"with an averaged head a shift by {WHOLE} pixels costs the convnet less than with Flatten",
            lost["convnet"],
            lost["convnet, averaged head"],
            claimed="lower",
            decides=False,
        ),
    ]


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """A map of accuracy by shift for every net, and what is left in the image."""
    from convjax.studies.figures import shift_figure

    return [shift_figure({name: evidence.measured("shifts", **fields) for name, fields in ARMS.items()}, theme=theme)]


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
        "Training images that are shifted too (--augment=shift=0.2) would teach any of these nets what the claim takes "
        "for granted. The claim is about patterns, the test about the whole net: its convolutions do find a pattern "
        "anywhere (see the next claim), but the dense layers on top read from a flattened map and are told where. "
        "Without them (the averaged head) most of the loss should go; what stays is due to pooling and borders."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
