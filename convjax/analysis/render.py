"""A table as text for a terminal, Markdown, LaTeX (booktabs), CSV, JSON, or an HTML fragment.

The first three and HTML show the columns meant for readers, rounded. CSV and JSON hold the columns meant for
programs, in full precision.
"""

import csv
import html
import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convjax.analysis.metrics import ABSENT, MINUS


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
      key: name in CSV and JSON.
      title: heading for readers.
      left: aligned left (words) rather than right (numbers).
      header: names its row, so it is repeated where a wide table is broken up.
      panel: columns of one panel stay together where a wide table is broken up.
      shown: in text, Markdown, LaTeX, HTML; exported: in CSV and JSON.
    """

    key: str
    title: str = ""
    left: bool = False
    header: bool = False
    panel: str = ""
    shown: bool = True
    exported: bool = True


@dataclass(frozen=True)
class Cell:
    """A value for programs, the text for readers, and whether it is marked as the best."""

    value: Any = None
    text: str = ABSENT
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Columns, rows of as many cells, and notes to be read with them."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row needs one cell for every column")


def to_text(table: Table, width: int = 110) -> str:
    """Aligned plain text; the best is marked `*`.

    A table wider than `width` characters is broken into panels that repeat the header columns; headings and notes
    are wrapped.
    """
    shown = [index for index, column in enumerate(table.columns) if column.shown]
    columns = {index: _text_column(table, index) for index in shown}
    widths = {index: max(map(len, lines)) for index, lines in columns.items()}
    blocks = []
    for panel in _panels(table, shown, widths, width):
        lines = []
        for line in range(len(columns[panel[0]])):
            cells = [
                f"{columns[index][line]:{'<' if table.columns[index].left else '>'}{widths[index]}}" for index in panel
            ]
            lines.append("  ".join(cells).rstrip())
        head = len(lines) - len(table.rows)
        # Headings of fewer lines stand on the rule: no panel needs more empty lines on top than the tallest.
        heading = [line for line in lines[:head] if line]
        rule = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (sum(widths[index] for index in panel) + 2 * (len(panel) - 1))
        blocks.append("\n".join([*heading, rule, *lines[head:]]))
    notes = [
        textwrap.fill(note, width, initial_indent="- ", subsequent_indent="  ", break_long_words=False)
        for note in table.notes
    ]
    caption = textwrap.fill(table.caption, width)
    return "\n\n".join([caption, *blocks, *(["\n".join(notes)] if notes else [])]) + "\n"


def to_markdown(table: Table) -> str:
    """A GitHub table with caption and notes; the best is bold."""

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    columns = [column for column in table.columns if column.shown]
    lines = [row([_escape_markdown(column.title) for column in columns])]
    lines.append(row([":--" if column.left else "--:" for column in columns]))
    for cells in _shown_rows(table):
        texts = [_escape_markdown(cell.text) for cell in cells]
        lines.append(row([f"**{text}**" if cell.best else text for cell, text in zip(cells, texts, strict=True)]))
    parts = [f"**{_escape_markdown(table.caption)}**", "\n".join(lines)]
    if table.notes:
        parts.append("\n".join(f"- {_escape_markdown(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    r"""A `table` environment for `\usepackage{booktabs}`; panels become tabulars below each other; the best is bold."""
    shown = [index for index, column in enumerate(table.columns) if column.shown]
    tabulars = []
    for panel in _split_panels(table, shown):
        columns = [table.columns[index] for index in panel]
        lines = [
            rf"  \begin{{tabular}}{{@{{}}{''.join('l' if column.left else 'r' for column in columns)}@{{}}}}",
            r"    \toprule",
            f"    {' & '.join(_escape_latex(column.title) for column in columns)} \\\\",
            r"    \midrule",
        ]
        for cells in table.rows:
            texts = [
                rf"\textbf{{{_escape_latex(cells[index].text)}}}"
                if cells[index].best
                else _escape_latex(cells[index].text)
                for index in panel
            ]
            lines.append(f"    {' & '.join(texts)} \\\\")
        lines += [r"    \bottomrule", r"  \end{tabular}"]
        tabulars.append("\n".join(lines))
    parts = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape_latex(table.caption)}}}",
        *(f"\n  \\medskip\n{tabular}" for tabular in tabulars),
    ]
    if table.notes:
        notes = "\n".join(rf"    {_escape_latex(note)}.\par" for note in table.notes)
        parts.append(f"  \\begin{{flushleft}}\\footnotesize\n{notes}\n  \\end{{flushleft}}")
    return "\n".join([*parts, r"\end{table}"]) + "\n"


def to_csv(table: Table) -> str:
    """Comma-separated values with a header line; empty where there is no value. Captions and notes are left out."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.key for column in table.columns if column.exported])
    for record in _records(table):
        writer.writerow(
            [
                "" if value is None else str(value).lower() if isinstance(value, bool) else value
                for value in record.values()
            ]
        )
    return file.getvalue()


def to_json(table: Table) -> str:
    """`{"caption": ..., "rows": [{key: value}], "notes": [...]}`; null where there is no value."""
    content = {"caption": table.caption, "rows": list(_records(table)), "notes": list(table.notes)}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_html(table: Table) -> str:
    """A `<table>` with caption and a list of notes, to be put into a page; the best is in `<strong>`."""
    columns = [column for column in table.columns if column.shown]

    def kind(column: Column) -> str:
        return "" if column.left else ' class="number"'

    heads = "".join(f'<th scope="col"{kind(column)}>{_escape_html(column.title)}</th>' for column in columns)
    lines = [
        "<table>",
        f"<caption>{_escape_html(table.caption)}</caption>",
        f"<thead><tr>{heads}</tr></thead>",
        "<tbody>",
    ]
    for cells in _shown_rows(table):
        line = ""
        for column, cell in zip(columns, cells, strict=True):
            text = f"<strong>{_escape_html(cell.text)}</strong>" if cell.best else _escape_html(cell.text)
            tag, scope = ("th", ' scope="row"') if column.header else ("td", "")
            line += f"<{tag}{scope}{kind(column)}>{text}</{tag}>"
        lines.append(f"<tr>{line}</tr>")
    lines += ["</tbody>", "</table>"]
    if table.notes:
        items = "".join(f"<li>{_escape_html(note)}</li>" for note in table.notes)
        lines.append(f'<ul class="notes">{items}</ul>')
    return "\n".join(lines) + "\n"


RENDERERS: dict[str, Callable[[Table], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
    "html": to_html,
}


def _shown_rows(table: Table) -> list[list[Cell]]:
    return [[cell for column, cell in zip(table.columns, row, strict=True) if column.shown] for row in table.rows]


def _records(table: Table) -> list[dict[str, Any]]:
    return [
        {
            column.key: None if isinstance(cell.value, float) and not math.isfinite(cell.value) else cell.value
            for column, cell in zip(table.columns, row, strict=True)
            if column.exported
        }
        for row in table.rows
    ]


def _text_column(table: Table, index: int) -> list[str]:
    """Lines of a column: the heading, wrapped to the cells' width and as tall as the tallest, then the cells."""

    def wrapped(position: int) -> list[str]:
        title = table.columns[position].title
        longest = max(map(len, [*title.split(), *(row[position].text for row in table.rows)]), default=1)
        return textwrap.wrap(title, longest, break_on_hyphens=False)

    tallest = max(len(wrapped(position)) for position, column in enumerate(table.columns) if column.shown)
    heading = wrapped(index)
    # Where one cell is marked the others leave room for the mark, so that digits stay aligned.
    room = "  " if any(row[index].best for row in table.rows) else ""
    cells = [row[index].text + (" *" if row[index].best else room) for row in table.rows]
    return [""] * (tallest - len(heading)) + [line + room for line in heading] + cells


def _split_panels(table: Table, shown: Sequence[int]) -> list[list[int]]:
    """The shown columns panel by panel, each with the header columns in front."""
    headers = [index for index in shown if table.columns[index].header]
    panels: dict[str, list[int]] = {}
    for index in shown:
        if not table.columns[index].header:
            panels.setdefault(table.columns[index].panel, []).append(index)
    return [headers + members for members in panels.values()] or [headers]


def _panels(table: Table, shown: Sequence[int], widths: dict[int, int], width: int) -> list[list[int]]:
    """The columns of every block of the text table: as many panels side by side as fit, or parts of a panel."""

    def needed(indices: Sequence[int]) -> int:
        return sum(widths[index] for index in indices) + 2 * (len(indices) - 1)

    if needed(shown) <= width:
        return [list(shown)]
    headers = [index for index in shown if table.columns[index].header]
    blocks: list[list[int]] = []
    for panel in _split_panels(table, shown):
        members = panel[len(headers) :]
        if blocks and needed(blocks[-1] + members) <= width:
            blocks[-1] += members
            continue
        block = list(headers)
        for index in members:
            if len(block) > len(headers) and needed([*block, index]) > width:
                blocks.append(block)
                block = list(headers)
            block.append(index)
        blocks.append(block)
    return blocks


def _escape_markdown(text: str) -> str:
    # Underscores inside words are literal on GitHub, so names such as kernel_size stay readable in the source.
    return re.sub(r"([\\`*|]|<(?=[A-Za-z/!?])|(?<=\])\(|(?<!\w)_|_(?!\w))", r"\\\1", text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_"},
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{DAGGER}": r"\dag{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    MINUS: r"$-$",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    ABSENT: r"\textemdash{}",
}


def _escape_latex(text: str) -> str:
    # pdfLaTeX stops at letters outside Latin; two hyphens would become a dash, and flags are written with two.
    known = (_LATEX.get(character, character if character < "\u0180" else "?") for character in text)
    return "".join(known).replace("--", "-{}-")


def _escape_html(text: str) -> str:
    return html.escape(text)
