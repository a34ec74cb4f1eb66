"""Where the windows of convolutions and poolings sit, as plain text: the arithmetic, and a drawing of each layer."""

from collections.abc import Sequence

from convjax.nn.geometry import Axis, Layer, axes_of

MOST_PANELS = 25
"""Windows that are drawn one by one, each in a picture of the whole input, as in the chapter's figures."""

_LARGEST_PANEL = 9
_WIDEST = 110
_LONGEST_LINE = 72
_FIRST, _LAST = 5, 3

LEGEND = "# tile in the window, o its center, . other tile, + padding in the window, : other padding"


def describe_layers(layers: Sequence[Layer], *, drawing: bool = True) -> str:
    """Every layer's arithmetic, in words, and a drawing of its windows.

    Args:
      layers: convolutions and poolings, as of `convjax.nn.geometry.plan`.
      drawing: also draw.
    """
    rows, columns = layers[0].input_shape[:2]
    sizes = [f"{rows}x{columns}", *(f"{layer.name} {_by(layer.output_shape[:2])}" for layer in layers)]
    parts = [" -> ".join(sizes)]
    for layer in layers:
        parts.append(describe(layer))
        if drawing:
            parts.append(draw(layer))
    return "\n\n".join([*parts, *([LEGEND] if drawing else [])])


def describe(layer: Layer) -> str:
    """Output size, padding, what is lost at each border and where windows start."""
    rows, columns = axes_of(layer)
    field = layer.receptive_field
    assert field is not None
    lost = _sides(rows.lost, columns.lost, "tiles around which no window fits") or "nothing at any border"
    lines = [
        ("output", f"{rows.count}x{columns.count} = {_formula(rows)} x {_formula(columns)}"),
        ("padding", _padding(rows, columns)),
        # Pooling windows stand side by side; nobody centers them around a tile.
        ("lost", lost if layer.kind == "Conv2D" else ""),
        ("unread", _unread(rows, columns)),
        ("windows", f"start at rows {_listed(rows.starts)}; columns {_listed(columns.starts)}"),
        ("sees", f"{_by(field.size)} of the input, neighbors {_stride(field.jump)} apart"),
    ]
    head = (
        f"{layer.name} ({layer.kind}): {_by(layer.window)} window, stride {_stride(layer.strides)}, "
        f"padding {layer.padding}, on {rows.size}x{columns.size}"
    )
    return "\n".join([head, *(f"  {name:<8} {text}" for name, text in lines if text)])


def draw(layer: Layer) -> str:
    """All windows, each in a picture of the input, where these are few and small; else one line per window."""
    rows, columns = axes_of(layer)
    if has_panels(layer) and columns.count * (2 * _padded_size(columns) + 2) <= _WIDEST:
        return _panels(rows, columns)
    if rows == columns:
        return _windows(rows, "rows, and so columns")
    return f"{_windows(rows, 'rows')}\n\n{_windows(columns, 'columns')}"


def has_panels(layer: Layer) -> bool:
    """Whether its windows are few enough, and its input small enough, to draw each."""
    rows, columns = axes_of(layer)
    largest = max(_padded_size(rows), _padded_size(columns))
    return rows.count * columns.count <= MOST_PANELS and largest <= _LARGEST_PANEL


def center(axis: Axis, start: int) -> int | None:
    """The center tile of the window that begins at `start`; None where it is even and has none."""
    return start + axis.window // 2 if axis.window % 2 else None


def tiles(axis: Axis) -> range:
    """All tiles, padding included."""
    return range(-axis.pads[0], axis.size + axis.pads[1])


def _padded_size(axis: Axis) -> int:
    return len(tiles(axis))


def _formula(axis: Axis) -> str:
    if axis.padding == "same":
        return f"ceil({axis.size} / {axis.stride})"
    return f"(({axis.size} - {axis.window}) // {axis.stride} + 1)"


def _padding(rows: Axis, columns: Axis) -> str:
    if rows.padding == "valid":
        return "none"
    split = _sides(rows.pads, columns.pads, "zeros")
    odd = any(before != after for before, after in (rows.pads, columns.pads))
    return (split or "none is needed") + ("; the odd one goes to the end" if odd else "")


def _unread(rows: Axis, columns: Axis) -> str:
    parts = [_sides((0, rows.unread[1]), (0, columns.unread[1]), "tiles that no window reaches")]
    if rows.unread[0] or columns.unread[0]:
        parts.append(f"{rows.unread[0]} rows and {columns.unread[0]} columns between windows")
    return "; ".join(filter(None, parts))


def _sides(rows: tuple[int, int], columns: tuple[int, int], what: str) -> str:
    """`top 1, bottom 1, left 1, right 1 (what)`; empty where there are none."""
    sides = dict(zip(("top", "bottom", "left", "right"), (*rows, *columns), strict=True))
    if not any(sides.values()):
        return ""
    return f"{', '.join(f'{side} {count}' for side, count in sides.items())} ({what})"


def _listed(values: range) -> str:
    if len(values) <= 4:
        return ", ".join(map(str, values))
    return f"{values[0]}, {values[1]}, {values[2]} ... {values[-1]}"


def _by(pair: Sequence[int]) -> str:
    return f"{pair[0]}x{pair[1]}"


def _stride(strides: tuple[int, int]) -> str:
    return str(strides[0]) if strides[0] == strides[1] else _by(strides)


def _panels(rows: Axis, columns: Axis) -> str:
    """Pictures in the order of the output's positions."""
    bands = []
    for top in rows.starts:
        panels = [_panel(rows, columns, top, left) for left in columns.starts]
        bands.append("\n".join("   ".join(parts).rstrip() for parts in zip(*panels, strict=True)))
    return "\n\n".join(bands)


def _panel(rows: Axis, columns: Axis, top: int, left: int) -> list[str]:
    return [
        " ".join(
            "o"
            if (row, column) == (center(rows, top), center(columns, left))
            else _sign(
                inside=top <= row < top + rows.window and left <= column < left + columns.window,
                padding=not (0 <= row < rows.size and 0 <= column < columns.size),
            )
            for column in tiles(columns)
        )
        for row in tiles(rows)
    ]


def _windows(axis: Axis, name: str) -> str:
    """Each window as a line that shows which tiles of the axis it covers."""
    if _padded_size(axis) > _LONGEST_LINE:
        return f"({_padded_size(axis)} {name} are too many for a drawing of {_LONGEST_LINE} characters per line)"
    margin = max(len("window"), len(str(axis.count - 1)) + 1)
    numbers = [tile if 0 <= tile < axis.size else None for tile in tiles(axis)]
    tens = "".join(str(tile // 10) if tile is not None and tile % 10 == 0 else " " for tile in numbers)
    units = "".join(" " if tile is None else str(tile % 10) for tile in numbers)
    lines = [f"{'':{margin}}  {tens}".rstrip(), f"{'window':<{margin}}  {units}  ({name})"]
    for index, start in enumerate(axis.starts):
        if _FIRST <= index < axis.count - _LAST and axis.count > _FIRST + _LAST + 1:
            if index == _FIRST:
                lines.append(f"{'...':>{margin}}")
            continue
        signs = (
            "o"
            if tile == center(axis, start)
            else _sign(inside=start <= tile < start + axis.window, padding=not 0 <= tile < axis.size)
            for tile in tiles(axis)
        )
        lines.append(f"{index:>{margin}}  {''.join(signs)}")
    return "\n".join(lines)


def _sign(*, inside: bool, padding: bool) -> str:
    return "#.+:"[(not inside) + 2 * padding]
