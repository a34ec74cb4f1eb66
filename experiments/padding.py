"""Does padding matter, and does it matter more for larger windows and deeper stacks? The chapter: border effects.

python -m experiments.padding
"""

from collections.abc import Sequence

from convjax.studies.study import Study, run
from convjax.sweeps.grid import Arm


def border_effect(arms: Sequence[Arm]) -> str:
    """How many positions of its input grid each convolution loses at the borders, per arm."""
    from convjax import data
    from convjax.nn.geometry import plan

    lines = ["positions lost at the borders, each convolution (input grid -> output grid):"]
    for arm in arms:
        info = data.image_info(arm.config.dataset, **arm.config.data_settings)
        layers = [layer for layer in plan(arm.config, *info) if layer.kind == "Conv2D"]
        lost = []
        for layer in layers:
            height, width = layer.input_shape[:2]
            kept = layer.output_shape[0] * layer.output_shape[1]
            share = 1 - kept / (height * width)
            lost.append(f"{height}x{width} -> {layer.output_shape[0]}x{layer.output_shape[1]} ({share:.0%})")
        lines.append(f"  {arm.label}: " + ", ".join(lost))
    return "\n".join(lines)


STUDY = Study(
    name="padding",
    question=(
        "Does padding=same give another test accuracy than padding=valid, and more so for larger kernels and depth?"
    ),
    reading=(
        "Valid windows lose kernel_size - 1 rows and columns in every layer, same windows none. Without borders the "
        "maps stay larger, so that same has more FLOPs and, through the flattened map, more parameters in the dense "
        "layer; the table shows both, and --match removes the advantage. 4x4 is the largest window that fits the "
        "chapter's three convolutions without padding. MNIST's borders are empty: on data whose borders matter the "
        "answer may differ."
    ),
    axes={"padding": ("valid", "same"), "kernel_size": ("3", "4"), "channels": ("32-64", "32-64-64")},
    baseline={"padding": "valid"},
    details=border_effect,
)

if __name__ == "__main__":
    run(STUDY)
