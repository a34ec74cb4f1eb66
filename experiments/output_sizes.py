"""Is the chapter's arithmetic of output sizes right? Every number of its text and figures, and XLA's own sizes.

python -m experiments.output_sizes
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

GEOMETRIES = 1000
CHAPTER = ((26, 26, 32), (13, 13, 32), (11, 11, 64), (5, 5, 64), (3, 3, 64), (576,), (64,), (10,))


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """The chapter's numbers against the closed forms, and the closed forms against XLA."""
    from convjax.config import RunConfig
    from convjax.nn.geometry import Axis, plan
    from convjax.studies.verdict import exact

    shapes = tuple(layer.output_shape for layer in plan(RunConfig(), (28, 28, 1), 10))
    five = {
        name: Axis(5, 3, stride, padding)
        for name, stride, padding in (("valid", 1, "valid"), ("same", 1, "same"), ("stride", 2, "valid"))
    }
    windows = {name: axis.count**2 for name, axis in five.items()}
    large = {padding: Axis(28, 3, 2, padding).count for padding in ("valid", "same")}
    wrong = disagreements()
    return [
        exact(
            "the summary's output shapes are those of the arithmetic",
            shapes == CHAPTER,
            ", ".join("x".join(map(str, shape)) for shape in shapes),
        ),
        exact(
            "there are 9 positions for a 3x3 window in a 5x5 map, and the output is 3x3",
            windows["valid"] == 9,
            f"{windows['valid']} positions",
        ),
        exact(
            "with padding there is one window around every tile of the 5x5 map",
            windows["same"] == 25 and five["same"].pads == (1, 1),
            f"{windows['same']} windows, with one row or column of zeros on each side",
        ),
        exact(
            "a 3x3 window with stride 2 extracts 4 patches from a 5x5 map",
            windows["stride"] == 4,
            str(windows["stride"]),
        ),
        exact(
            "stride 2 downsamples width and height by 2",
            large["same"] == 14,
            f"28 to {large['same']} with padding; without, the border effect comes on top: {large['valid']}",
        ),
        exact(
            f"the closed forms give XLA's own sizes and padding, for {GEOMETRIES:,} random windows",
            not wrong,
            f"{len(wrong)} disagreements",
        ),
    ]


def disagreements(count: int = GEOMETRIES) -> list[tuple[int, int, int, str]]:
    """Of random windows along one axis those where XLA's size or padding is another; none is expected."""
    import jax
    import numpy as np
    from jax import lax

    from convjax.nn.geometry import Axis

    generator = np.random.default_rng(0)
    found = []
    for size, window, stride in zip(*(generator.integers(1, top, count) for top in (64, 12, 6)), strict=True):
        size, window, stride = int(size), int(window), int(stride)
        for padding in ("valid", "same"):
            axis = Axis(size, window, stride, padding)
            pads = lax.padtype_to_pads((size,), (window,), (stride,), padding.upper())

            def slide(x: jax.Array, window: int = window, stride: int = stride, padding: str = padding) -> jax.Array:
                return lax.reduce_window(x, 0.0, lax.add, (window,), (stride,), padding.upper())

            shape = jax.eval_shape(slide, jax.ShapeDtypeStruct((size,), np.float32)).shape
            if shape != (axis.count,) or tuple(pads[0]) != axis.pads:
                found.append((size, window, stride, padding))
    return found


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """The chapter's figures 5.5 to 5.7."""
    from convjax.studies.layer_figures import windows_figure

    return [
        windows_figure("valid", "Valid locations of 3x3 patches in a 5x5 input", (5, 5), theme=theme),
        windows_figure("same", "Padding a 5x5 input to extract 25 3x3 patches", (5, 5), theme=theme, padding="same"),
        windows_figure("stride", "3x3 patches with strides of 2x2", (5, 5), theme=theme, stride="2"),
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
        "Nothing but an error: these are counts, and experiments.geometry prints them for any network. Other "
        "libraries may split an odd padding otherwise (PyTorch pads both sides alike); Keras, TensorFlow and XLA put "
        "the odd one at the end."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
