"""What do borders cost, and does padding bring it back? valid against same, for 3x3 and 4x4 windows.

python -m experiments.border_effects
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from experiments import padding

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

SIZES = ("3", "4")
STUDY = dataclasses.replace(
    padding.STUDY,
    axes={"padding": ("valid", "same"), "kernel_size": SIZES},
    base={"channels": "8-16-16", "epochs": 2},
    seeds=3,
    quick={"channels": "4-8-8", "train_size": 1000},
)
MATCHED = dataclasses.replace(STUDY, match="flops")
NAMES = {"plain": "at equal channels", "flops": "at equal FLOPs"}


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """The maps shrink and padding keeps them, by arithmetic; that it pays is measured, where borders cost most."""
    from convjax.config import RunConfig
    from convjax.nn.geometry import plan
    from convjax.studies.verdict import difference, exact

    def sides(padding: str) -> list[tuple[int, int]]:
        layers = plan(RunConfig(padding=padding), (28, 28, 1), 10)
        return [(layer.input_shape[0], layer.output_shape[0]) for layer in layers if layer.kind == "Conv2D"]

    def told(padding: str) -> str:
        return ", ".join(f"{before}x{before} to {after}x{after}" for before, after in sides(padding))

    found = [
        exact(
            "without padding a map shrinks by two tiles alongside each dimension in every 3x3 convolution",
            all(before - after == 2 for before, after in sides("valid")),
            told("valid"),
        ),
        exact(
            "with padding the output has the same width and height as the input",
            all(before == after for before, after in sides("same")),
            told("same"),
        ),
    ]
    for study, name in NAMES.items():
        for size in SIZES:
            valid, same = (evidence.values(study=study, padding=kind, kernel_size=size) for kind in ("valid", "same"))
            part = f"{name} padding makes a net of {size}x{size} windows more accurate"
            # The chapter says no word about accuracy for its own 3x3; where a net loses most of its map it must show.
            found.append(difference(part, valid, same, claimed="higher", decides=size == "4"))
    return found


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Where windows fit, and every seed of every arm."""
    from convjax.studies.figures import accuracy_figure
    from convjax.studies.layer_figures import windows_figure

    shown = [
        windows_figure("valid", "The nine 3x3 windows that fit a 5x5 input", (5, 5), theme=theme),
        windows_figure("same", "With padding: one window around every tile", (5, 5), theme=theme, padding="same"),
    ]
    for study, name in NAMES.items():
        arms = {}
        for size in SIZES:
            for kind in ("valid", "same"):
                arm = evidence.arm(study=study, padding=kind, kernel_size=size)
                label = f"{size}x{size}, {kind}, channels {arm.config.channels}"
                arms[label] = evidence.values(study=study, padding=kind, kernel_size=size)
        shown.append(accuracy_figure(study, f"Test accuracy by padding, {name}", arms, theme=theme))
    return shown


CLAIM = Claim(
    name="border_effects",
    title="Border effects and padding",
    section="Border effects and padding",
    quote=(
        "Output width and height may differ from the input width and height due to border effects, which can be "
        "countered by padding the input feature map. Padding adds an appropriate number of rows and columns on each "
        "side so that it is possible to fit center convolution windows around every input tile."
    ),
    studies={"plain": STUDY, "flops": MATCHED},
    judge=judge,
    figures=figures,
    would_change=(
        "Sizes are arithmetic. Whether padding pays is not: MNIST's digits keep four pixels from the border, and "
        "images whose content reaches it should gain more. Three 4x4 windows are all that fit without padding, so "
        "that the last of them is left with a single position: the more layers, the larger the gain must be. Padding "
        "also leaves larger maps and with them more parameters in the dense layer; only the channels are matched, not "
        "these."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
