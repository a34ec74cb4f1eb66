"""A table, and how it is written: text for a terminal, Markdown, LaTeX (booktabs), CSV, JSON, or an HTML fragment.

CSV and JSON hold a table's numbers in full precision. The other formats show its text: the same numbers rounded,
and combined as in `99.20 ± 0.14`.
"""

import html
import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich import box, console
from rich.table import Table as Grid
from tabulate import LATEX_ESCAPE_RULES, tabulate

from convjax.analysis.metrics import ABSENT, MINUS


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers for programs, text for readers, and notes to read with it.

    Attributes:
      caption: one line.
      numbers: the columns that CSV and JSON hold; of dtype object, with None where there is no value.
      panels: the text, as DataFrames of strings by name, with one row for each row of `numbers`. Their common index
        names the rows. Headings are unique. A table that is too wide is broken between panels.
      notes: sentences.
      left: headings of the columns that are aligned left, as the index is.
      best: row number and heading of the value that is marked as the best.
    """

    caption: str
    numbers: pd.DataFrame
    panels: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    best: tuple[int, str] | None = None

    @property
    def text(self) -> pd.DataFrame:
        """All panels side by side."""
        return pd.concat(self.panels.values(), axis=1)


def word_table(caption: str, rows: pd.DataFrame, headers: int = 1) -> Table:
    """A table of strings; its first `headers` columns name the rows."""
    text = rows.set_index(list(rows.columns[:headers]))
    return Table(caption, rows.astype(object), {"": text}, left=tuple(text.columns))


def to_text(table: Table, width: int = 110) -> str:
    """Aligned plain text; the best is marked `*`.

    A table wider than `width` characters is broken into blocks that repeat the names of the rows. Headings and notes
    are wrapped.
    """
    screen = console.Console(width=10_000, color_system=None, markup=False, emoji=False, highlight=False)

    def fits(text: pd.DataFrame) -> bool:
        return screen.measure(_grid(table, text)).maximum <= width

    parts = [
        part
        for panel in table.panels.values()
        for part in ([panel] if fits(panel) else [panel.iloc[:, [place]] for place in range(panel.shape[1])])
    ]
    blocks = [parts[0]]
    for part in parts[1:]:
        joined = pd.concat([blocks[-1], part], axis=1)
        blocks[-1:] = [joined] if fits(joined) else [blocks[-1], part]
    texts = [textwrap.fill(table.caption, width)] if table.caption else []
    for block in blocks:
        with screen.capture() as captured:
            screen.print(_grid(table, block))
        texts.append("\n".join(line.replace(_ROOM, "  ").rstrip() for line in captured.get().splitlines()))
    notes = [
        textwrap.fill(note, width, initial_indent="- ", subsequent_indent="  ", break_long_words=False)
        for note in table.notes
    ]
    return "\n\n".join([*texts, *(["\n".join(notes)] if notes else [])]) + "\n"


def to_markdown(table: Table) -> str:
    """A GitHub table with caption and notes; the best is bold."""
    text = _marked(table, table.text.reset_index().map(_escape_markdown), "**{}**")
    grid = tabulate(
        text.to_numpy().tolist(),
        [_escape_markdown(heading) for heading in text.columns],
        tablefmt="pipe",
        colalign=_alignments(table, text),
        disable_numparse=True,
    )
    # Without padding, a number that gets longer changes its own line only.
    heading, rule, *rows = re.sub("(?<= ) +", "", grid).splitlines()
    grid = "\n".join([heading, re.sub("-+", "--", rule), *rows])
    notes = "\n".join(f"- {_escape_markdown(note)}" for note in table.notes)
    return "\n\n".join(filter(None, [f"**{_escape_markdown(table.caption)}**", grid, notes])) + "\n"


def to_latex(table: Table) -> str:
    r"""A `table` environment for `\usepackage{booktabs}`; panels become tabulars below each other; the best is bold."""
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{table.caption.translate(_LATEX)}}}",
    ]
    for panel in table.panels.values():
        text = _marked(table, panel, f"{_BOLD}{{}}{_END}").reset_index()
        grid = tabulate(
            text.to_numpy().tolist(),
            list(text.columns),
            tablefmt="latex_booktabs",
            colalign=_alignments(table, text),
            disable_numparse=True,
        )
        lines += ["", r"\medskip", grid]
    if table.notes:
        notes = [rf"{note.translate(_LATEX)}.\par" for note in table.notes]
        lines += [r"\begin{flushleft}\footnotesize", *notes, r"\end{flushleft}"]
    lines.append(r"\end{table}")
    text = "\n".join(lines).translate(_LATEX_SIGNS)
    # Two hyphens would become a dash, and flags begin with two. pdfLaTeX stops at letters outside Latin.
    return re.sub("[^\n -\u017f]", "?", text.replace("--", "-{}-")) + "\n"


def to_csv(table: Table) -> str:
    """Comma-separated values with a header line; empty where there is no value. Caption and notes are left out."""
    rows = [
        {key: str(value).lower() if isinstance(value, bool) else value for key, value in record.items()}
        for record in _records(table)
    ]
    return pd.DataFrame(rows, columns=table.numbers.columns, dtype=object).to_csv(index=False, lineterminator="\n")


def to_json(table: Table) -> str:
    """`{"caption": ..., "rows": [{key: value}], "notes": [...]}`; null where there is no value."""
    content = {"caption": table.caption, "rows": _records(table), "notes": list(table.notes)}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_html(table: Table) -> str:
    """A `<table>` with caption and a list of notes, to be put into a page; the best is in `<strong>`."""
    headers = table.text.index.nlevels
    text = _marked(table, table.text.reset_index().map(html.escape), "<strong>{}</strong>")
    kinds = ["" if side == "left" else ' class="number"' for side in _alignments(table, text)]

    def row(cells: list[str], scopes: list[str]) -> str:
        tags = ["th" + f' scope="{scope}"' if scope else "td" for scope in scopes]
        parts = zip(tags, kinds, cells, strict=True)
        return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag[:2]}>' for tag, kind, cell in parts)}</tr>"

    scopes = ["row"] * headers + [""] * (text.shape[1] - headers)
    lines = [
        "<table>",
        f"<caption>{html.escape(table.caption)}</caption>",
        f"<thead>{row([html.escape(heading) for heading in text.columns], ['col'] * text.shape[1])}</thead>",
        "<tbody>",
        *(row(cells, scopes) for cells in text.to_numpy().tolist()),
        "</tbody>",
        "</table>",
    ]
    if table.notes:
        lines.append(f'<ul class="notes">{"".join(f"<li>{html.escape(note)}</li>" for note in table.notes)}</ul>')
    return "\n".join(lines) + "\n"


RENDERERS: dict[str, Callable[[Table], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
    "html": to_html,
}

_ROOM = "\ue000\ue000"
"""Stands for two spaces, which rich would strip."""

_BOLD, _END = "\x01", "\x02"
_LATEX = str.maketrans(LATEX_ESCAPE_RULES)
_LATEX_SIGNS = str.maketrans(
    {
        _BOLD: r"\textbf{",
        _END: "}",
        "|": r"\textbar{}",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        "\N{DAGGER}": r"\dag{}",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
        "\N{LEFT SINGLE QUOTATION MARK}": "`",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": "``",
        "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
        MINUS: "$-$",
        ABSENT: r"\textemdash{}",
    }
)


def _marked(table: Table, text: pd.DataFrame, best: str, other: str = "{}") -> pd.DataFrame:
    """The text with its best value written as in `best`, and the others of that column as in `other`."""
    if table.best is None or table.best[1] not in text:
        return text
    row, heading = table.best
    values = [(best if place == row else other).format(value) for place, value in enumerate(text[heading])]
    return text.assign(**{heading: values})


def _alignments(table: Table, text: pd.DataFrame) -> list[Literal["left", "right"]]:
    left = {*table.text.index.names, *table.left}
    return ["left" if heading in left else "right" for heading in text.columns]


def _records(table: Table) -> list[dict[str, Any]]:
    """The numbers row by row, with None for those that are not finite."""
    return [
        {
            str(key): None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        for record in table.numbers.to_dict("records")
    ]


def _grid(table: Table, text: pd.DataFrame) -> Grid:
    """Some of a table's text as rich draws it, with headings wrapped to the width of the values below them."""
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    plain = text.reset_index()
    # Where one value is marked the others leave room for the mark, so that digits stay aligned.
    marked = _marked(table, plain, "{} *", f"{{}}{_ROOM}")
    for heading, side in zip(plain.columns, _alignments(table, plain), strict=True):
        longest = max(map(len, [*heading.split(), *plain[heading]]))
        room = _ROOM if table.best and table.best[1] == heading else ""
        lines = textwrap.wrap(heading, longest, break_on_hyphens=False)
        grid.add_column("\n".join(line + room for line in lines), justify=side, no_wrap=True)
    for row in marked.to_numpy().tolist():
        grid.add_row(*row)
    return grid


def _escape_markdown(text: str) -> str:
    # Underscores inside words are literal on GitHub, so names such as kernel_size stay readable in the source.
    return re.sub(r"([\\`*|]|<(?=[A-Za-z/!?])|(?<=\])\(|(?<!\w)_|_(?!\w))", r"\\\1", text)
