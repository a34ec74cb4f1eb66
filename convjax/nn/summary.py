"""The layer table, with Keras's columns, names and totals as the chapter prints them."""

import math
from collections.abc import Sequence

from convjax.nn.geometry import Layer, total_flops, total_parameters

_WIDTH = 65
_COLUMNS = (29, 26)


def layer_table(layers: Sequence[Layer], *, verbose: bool = False) -> str:
    """The table of `layers`; `verbose` adds receptive field, FLOPs and memory of one image's forward pass."""
    head = ["Layer (type)", "Output Shape", "Param #"]
    rows = [[f"{layer.name} ({layer.kind})", _shape(layer.output_shape), f"{layer.parameters:,}"] for layer in layers]
    if verbose:
        head += ["Receptive field", "FLOPs", "Activations"]
        for row, layer in zip(rows, layers, strict=True):
            row += [_field(layer), f"{layer.flops:,}", _bytes(layer.activation_bytes)]
    columns = list(zip(head, *rows, strict=True))
    widths = [max(len(cell) for cell in column) + 3 for column in columns]
    for index, minimum in enumerate(_COLUMNS):
        widths[index] = max(widths[index], minimum)
    rule = max(_WIDTH, sum(widths))
    lines = ["_" * rule, _line(head, widths), "=" * rule]
    for row in rows:
        lines += [_line(row, widths), "_" * rule]
    lines[-1] = "=" * rule
    total = total_parameters(layers)
    fixed = sum(layer.statistics for layer in layers)
    lines += [f"Total params: {total:,}", f"Trainable params: {total - fixed:,}", f"Non-trainable params: {fixed:,}"]
    if verbose:
        activations = sum(layer.activation_bytes for layer in layers)
        lines += [
            f"Total FLOPs: {total_flops(layers):,} an image, forward (a multiply-add counts as two)",
            f"Memory, float32: parameters {_bytes(4 * total)}, activations {_bytes(activations)} an image",
        ]
    return "\n".join([*lines, "_" * rule])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _shape(shape: Sequence[int]) -> str:
    return f"(None, {', '.join(map(str, shape))})"


def _field(layer: Layer) -> str:
    if layer.receptive_field is None:
        return "all"
    height, width = layer.receptive_field.size
    return f"{height}x{width}"


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    exponent = min(int(math.log(count, 1024)), 3)
    return f"{count / 1024**exponent:.1f} {('KiB', 'MiB', 'GiB')[exponent - 1]}"
