"""Strided convolutions are rarely used and max-pooling is instead: rightly? At equal channels and at equal FLOPs.

python -m experiments.strides_or_pooling
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from experiments import stride

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

ARMS = {"max-pooling": {"stride": "1", "pool": "max"}, "strides": {"stride": "2-2-1", "pool": "none"}}
STUDY = dataclasses.replace(
    stride.STUDY,
    arms=tuple(ARMS.values()),
    baseline=ARMS["max-pooling"],
    base={**stride.STUDY.base, "channels": "8-16-16", "epochs": 2},
    seeds=3,
    quick={"channels": "4-8-8", "train_size": 1000},
)
MATCHED = dataclasses.replace(STUDY, match="flops")
NAMES = {"plain": "at equal channels and parameters", "flops": "at equal FLOPs"}


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Downsampling by 2, twice, in either way; a strided layer costs half, which matching gives back as channels."""
    from convjax.studies.verdict import difference

    found = []
    for study, name in NAMES.items():
        pooled, strided = (evidence.values(study=study, **arm) for arm in ARMS.values())
        part = f"{name} 2x2 max-pooling is more accurate than convolutions with stride 2"
        found.append(difference(part, strided, pooled, claimed="higher"))
    return found


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Where strided windows sit, and every seed."""
    from convjax.studies.figures import accuracy_figure
    from convjax.studies.layer_figures import windows_figure

    arms = {}
    for study, name in NAMES.items():
        for label, arm in ARMS.items():
            arm = evidence.arm(study=study, **arm)
            if study == "plain" or label == "strides":
                text = f"{label}, {arm.config.channels}" + (f", {name}" if label == "strides" else "")
                arms[text] = evidence.values(study=study, **arm)
    return [
        windows_figure("windows", "3x3 windows with stride 2 in a 5x5 input", (5, 5), theme=theme, stride="2"),
        accuracy_figure("accuracy", "Test accuracy by way of downsampling", arms, theme=theme),
    ]


CLAIM = Claim(
    name="strides_or_pooling",
    title="Strides are rarely used, max-pooling is",
    section="Convolution strides",
    quote=(
        "Strided convolutions are rarely used in practice. To downsample feature maps, instead of strides, we use the "
        "max-pooling operation."
    ),
    studies={"plain": STUDY, "flops": MATCHED},
    judge=judge,
    figures=figures,
    would_change=(
        "Deeper nets with normalisation and longer training do well with strides (all-convolutional nets, "
        "Springenberg et al. 2015; residual nets), so that depth, width and epochs may change the answer, and so may "
        "data whose features are not thin strokes, which a stride can step over. Here nets have three convolutions, a "
        "quarter of the chapter's width and two epochs."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
