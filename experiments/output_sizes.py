"""Is the chapter's arithmetic of output sizes right? Every number of its text and figures, and XLA's own sizes.

python -m experiments.output_sizes

Expect: every number agrees. Nothing is trained.
"""

from __future__ import annotations

from convjax import studies
from convjax.config import RunConfig
from convjax.nn.geometry import Axis, plan
from convjax.studies import measures
from convjax.studies.claim import Claim, run

GEOMETRIES = 1000
CHAPTER = ((26, 26, 32), (13, 13, 32), (11, 11, 64), (5, 5, 64), (3, 3, 64), (576,), (64,), (10,))


def judge() -> list[studies.Finding]:
    """The chapter's numbers against the closed forms, and the closed forms against XLA."""
    shapes = tuple(layer.output_shape for layer in plan(RunConfig(), (28, 28, 1), 10))
    valid, same, strided = Axis(5, 3, 1, "valid"), Axis(5, 3, 1, "same"), Axis(5, 3, 2, "valid")
    half = {padding: Axis(28, 3, 2, padding).count for padding in ("valid", "same")}
    wrong = measures.xla_disagreements(GEOMETRIES)
    sizes = ", ".join("x".join(map(str, shape)) for shape in shapes)
    parts = {
        "the output shapes of the summary follow from the arithmetic": (shapes == CHAPTER, sizes),
        "there are 9 positions for a 3x3 window in a 5x5 map, and the output is 3x3": (
            valid.count == 3,
            f"{valid.count**2} positions",
        ),
        "with padding there is one window around every tile of the 5x5 map": (
            same.count == 5 and same.pads == (1, 1),
            f"{same.count**2} windows, with one row or column of zeros on each side",
        ),
        "a 3x3 window with stride 2 extracts 4 patches from a 5x5 map": (
            strided.count == 2,
            f"{strided.count**2} patches",
        ),
        "stride 2 downsamples width and height by 2": (
            half["same"] == 14,
            f"28 to {half['same']} with padding, and to {half['valid']} without, because of the border effect",
        ),
        f"the closed forms give XLA's own sizes and padding for {GEOMETRIES:,} random windows": (
            not wrong,
            f"{len(wrong)} disagreements",
        ),
    }
    return [studies.exact(part, *settled) for part, settled in parts.items()]


def figures() -> list[studies.ClaimFigure]:
    """The chapter's figures 5.5 to 5.7."""
    return [
        studies.windows_figure("valid", "Valid locations of 3x3 patches in a 5x5 input"),
        studies.windows_figure("same", "Padding a 5x5 input to extract 25 3x3 patches", padding="same"),
        studies.windows_figure("stride", "3x3 patches with strides of 2x2", stride="2"),
    ]


CLAIM = Claim(
    name="output_sizes",
    title="Output sizes",
    section="Border effects and padding",
    quote=(
        "There are 9 positions around which we can center a 3x3 window, forming a 3x3 grid. The output map shrinks by "
        "two tiles alongside each dimension: 28x28 input features become 26x26 after the first convolution layer."
    ),
    studies={},
    judge=judge,
    figures=figures,
    would_change=(
        "Only an error: these are counts, and experiments.geometry prints them for any network. Other libraries may "
        "split an odd padding differently: PyTorch pads both sides alike, while Keras, TensorFlow and XLA put the odd "
        "row or column at the end."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
