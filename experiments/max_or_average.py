"""Max-pooling over average-pooling: rightly? With 2x2 windows side by side and with 3x3 windows that overlap.

python -m experiments.max_or_average
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.claims import Claim, run
from experiments import pooling

if TYPE_CHECKING:
    from convjax.analysis.claims_page import ClaimFigure
    from convjax.analysis.evidence import Evidence
    from convjax.analysis.verdict import Finding

WINDOWS = {"2x2": {"pool_size": "2", "pool_stride": "0"}, "overlapping 3x3": {"pool_size": "3", "pool_stride": "2"}}
STUDY = dataclasses.replace(
    pooling.STUDY,
    arms=tuple({"pool": pool, **window} for window in WINDOWS.values() for pool in ("max", "avg")),
    baseline={"pool": "max", **WINDOWS["2x2"]},
    base={**pooling.STUDY.base, "channels": "8-16-16", "epochs": 2},
    quick={"channels": "4-8-8", "train_size": 1000},
)


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Maximum against mean over the same windows; FLOPs and parameters are then equal, and that is checked."""
    from convjax.analysis.verdict import difference, exact

    found = []
    for name, window in WINDOWS.items():
        maximum, mean = (evidence.values(pool=pool, **window) for pool in ("max", "avg"))
        part = f"{name} max-pooling is more accurate than {name} average-pooling"
        found.append(difference(part, mean, maximum, claimed="higher", decides=name == "2x2"))
    cells = [evidence.cell(pool=pool, **WINDOWS["2x2"]) for pool in ("max", "avg")]
    sizes = [(cell.parameters, cell.flops) for cell in cells]
    evidence_text = f"{sizes[0][0]:,} parameters and {sizes[0][1]:,} FLOPs an image"
    found.append(exact("the comparison is at equal FLOPs and parameters", sizes[0] == sizes[1], evidence_text))
    return found


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed."""
    from convjax.analysis.claim_plots import accuracy_figure

    arms = {
        f"{name}, {label}": evidence.values(pool=pool, **window)
        for name, window in WINDOWS.items()
        for pool, label in (("max", "maximum"), ("avg", "average"))
    }
    return [accuracy_figure("accuracy", "Test accuracy by pooling", arms, theme=theme)]


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
