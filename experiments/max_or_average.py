"""Max-pooling over average-pooling: rightly? Over the same 2x2 windows, so at equal FLOPs and equal parameters.

python -m experiments.max_or_average
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from experiments import pooling

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

POOLS = {"max": "maximum", "avg": "average"}
STUDY = dataclasses.replace(
    pooling.STUDY,
    arms=tuple({"pool": pool, "pool_size": "2", "pool_stride": "0"} for pool in POOLS),
    baseline={"pool": "max"},
    base={**pooling.STUDY.base, "channels": "8-16-16", "epochs": 2},
    seeds=3,
    quick={"channels": "4-8-8", "train_size": 1000},
)


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Maximum against mean over the same windows; FLOPs and parameters are then equal, and that is checked."""
    from convjax.studies.verdict import difference, exact

    maximum, mean = (evidence.values(pool=pool) for pool in POOLS)
    sizes = [(arm.parameters, arm.flops) for arm in (evidence.arm(pool=pool) for pool in POOLS)]
    return [
        difference("2x2 max-pooling is more accurate than 2x2 average-pooling", mean, maximum, claimed="higher"),
        exact(
            "the comparison is at equal FLOPs and parameters",
            sizes[0] == sizes[1],
            f"{sizes[0][0]:,} parameters and {sizes[0][1]:,} FLOPs an image",
        ),
    ]


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed."""
    from convjax.studies.figures import accuracy_figure

    arms = {name: evidence.values(pool=pool) for pool, name in POOLS.items()}
    return [accuracy_figure("accuracy", "Test accuracy by 2x2 pooling", arms, theme=theme)]


CLAIM = Claim(
    name="max_or_average",
    title="Max-pooling over average-pooling",
    section="The max-pooling operation",
    quote=(
        "Max-pooling extracts windows from the input feature maps and outputs the max value of each channel. Max "
        "pooling is usually done with 2x2 windows and stride of 2."
    ),
    studies={"pooling": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "A maximum keeps whether a feature is there, a mean dilutes it: the sparser the features, the larger the "
        "difference should be, and thin white strokes on black are dense where it matters. Wider nets, more epochs and "
        "natural images may answer otherwise; averages also lose less when followed by few layers, as here."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
