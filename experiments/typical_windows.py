"""Are windows rightly "typically 3x3 or 5x5"? 1x1, 3x3, 5x5 and 7x7 at equal channels and at equal FLOPs.

python -m experiments.typical_windows
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from experiments import kernel_size

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

SIZES = ("1", "3", "5", "7")
MARGIN = 0.002
"""What a larger window must gain to be worth having: 0.2 points, some twice the spread of the chapter's seeds."""

STUDY = dataclasses.replace(
    kernel_size.STUDY,
    axes={"kernel_size": SIZES},
    base={**kernel_size.STUDY.base, "channels": "4-8-8", "epochs": 2},
    seeds=3,
    quick={"train_size": 1000},
)
# 3x3 has twice the channels here, so that 7x7 is left with some.
MATCHED = dataclasses.replace(STUDY, base={**STUDY.base, "channels": "8-16-16"}, match="flops")
NAMES = {"plain": "at equal channels", "flops": "at equal FLOPs"}


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """The typical windows beat the smallest, and the largest gains nothing over them that is worth having."""
    from convjax.analysis.statistics import paired
    from convjax.studies.verdict import difference, estimate

    found = []
    for study, name in NAMES.items():
        one, three, five, seven = (evidence.values(study=study, kernel_size=size) for size in SIZES)
        for size, values in (("3x3", three), ("5x5", five)):
            part = f"{name} {size} windows are more accurate than 1x1"
            found.append(difference(part, one, values, claimed="higher"))
        gain = paired(three, seven)
        found.append(
            estimate(
                f"{name} 7x7 windows gain less than {100 * MARGIN:.1f} points over 3x3",
                gain.mean_difference,
                gain.t_interval,
                claimed="lower",
                than=MARGIN,
                metric="difference in accuracy",
                note=f"of the test images, {gain.n} seeds",
            )
        )
        found.append(
            difference(f"{name} 5x5 windows are more accurate than 3x3", three, five, claimed="higher", decides=False)
        )
    return found


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed of every window, without the 1x1 that would squeeze the others."""
    from convjax.studies.figures import accuracy_figure

    shown = []
    for study, name in NAMES.items():
        arms = {}
        for size in SIZES[1:]:
            arm = evidence.arm(study=study, kernel_size=size)
            label = f"{size}x{size}, channels {arm.config.channels}"
            arms[label] = evidence.values(study=study, kernel_size=size)
        mean = evidence.summary(study=study, kernel_size="1").mean
        title = f"Test accuracy by window, {name} (1x1, not drawn: {100 * mean:.2f} %)"
        shown.append(accuracy_figure(study, title, arms, theme=theme))
    return shown


CLAIM = Claim(
    name="typical_windows",
    title="Windows are 3x3 or 5x5",
    section="The convolution operation",
    quote="Size of the patches extracted from the inputs: Typically, these are 3x3 or 5x5.",
    studies={"plain": STUDY, "flops": MATCHED},
    judge=judge,
    figures=figures,
    would_change=(
        "The sentence tells a custom; what can be tested is whether another window would be the better custom here. "
        "Digits of 28x28 pixels have strokes two to three pixels wide: on larger images larger first windows may pay. "
        "All arms are an eighth (at equal FLOPs a quarter) of the chapter's width and train for two epochs; longer "
        "training would favour the arms with more parameters. Strides, dilation and depth, which also widen what is "
        "seen, are held fixed."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
