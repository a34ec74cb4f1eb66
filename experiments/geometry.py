"""Output sizes, border effects and where windows sit, by arithmetic alone. No data, no training.

python -m experiments.geometry --input=28 --kernel_size=3 --padding=valid --stride=2

Less than a second. Expect: a 13x13 output, because a 3x3 window with stride 2 fits 13 times into 28 tiles.
"""

import os
import re

from absl import flags

from convjax.analysis import plots
from convjax.config import FIELD_NAMES, RunConfig
from convjax.errors import UserError
from convjax.flags import define_model_flags, run_program
from convjax.nn.geometry import plan

FIELDS = ("channels", "kernel_size", "padding", "stride", "pool", "pool_size", "pool_stride")
LARGEST = 32_768

_INPUT = flags.DEFINE_string("input", "28", "size of the input: N or HxW")
_DRAWING = flags.DEFINE_bool("drawing", True, "draw the windows of every layer")
_SVG = flags.DEFINE_string("svg", "", "also write the drawing to this file, .svg or .png")


def config_from_flags() -> RunConfig:
    """The network of the flags: as many layers as the longest list has values; no pooling unless named.

    Raises:
      UserError: an impossible value.
    """
    values = {name: str(flags.FLAGS[name].value) for name in FIELDS if flags.FLAGS[name].present}
    layers = max((text.count("-") + 1 for text in values.values()), default=1)
    return RunConfig.from_dict({"channels": "-".join(["1"] * layers), "pool": "none", "dense_units": "0", **values})


def input_size(text: str) -> tuple[int, int]:
    """`(height, width)` of `N` or `HxW`.

    Raises:
      UserError: the text is not a size.
    """
    sides = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    height, width = (int(side) for side in (sides[1], sides[2] or sides[1])) if sides else (0, 0)
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise UserError(f"--input={text}: expected a size from 1 to {LARGEST} such as 28, or HxW such as 28x32")
    return height, width


def main(argv: list[str]) -> None:
    """Prints every layer's arithmetic and draws its windows."""
    layers = plan(config_from_flags(), (*input_size(_INPUT.value), 1), 1)
    layers = tuple(layer for layer in layers if layer.receptive_field is not None)
    print(plots.window_text.describe_layers(layers, drawing=_DRAWING.value))
    if _SVG.value:
        path = plots.theme.save(plots.windows.window_plot(layers), os.path.expanduser(_SVG.value))
        print(f"\nwrote {path}")


if __name__ == "__main__":
    define_model_flags(skip=[name for name in FIELD_NAMES if name not in FIELDS])
    run_program(main)
