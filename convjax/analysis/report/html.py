"""A self-contained HTML page and its parts. Everything is escaped here.

The page loads nothing: a content security policy in its head forbids it. It follows the reader's choice of light or
dark. Only tables and charts may be wider than a phone; they scroll inside their own boxes.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import resources

from convjax.analysis.plots.theme import DARK, LIGHT, Theme
from convjax.analysis.render import Table, to_html

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, sections: Iterable[str]) -> str:
    """The whole document; `sections` are HTML."""
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}"
    own = resources.files("convjax.analysis.report").joinpath("page.css").read_text(encoding="utf-8")
    style = f"\n:root {{ {_variables(LIGHT)} }}\n{dark}\n{own}"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def header(title: str, *parts: str) -> str:
    """The top of the page."""
    body = "\n".join(part for part in parts if part)
    return f"<header>\n<h1>{html.escape(title)}</h1>\n{body}\n</header>"


def section(heading: str, *parts: str, kind: str = "") -> str:
    """A section of HTML parts under a heading; empty parts are left out."""
    attribute = f' class="{kind}"' if kind else ""
    body = "\n".join(part for part in parts if part)
    return f"<section{attribute}>\n<h2>{html.escape(heading)}</h2>\n{body}\n</section>"


def capital(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def _words(text: str) -> str:
    """Escaped text; flags are set as code, so that no line breaks inside them."""
    return re.sub(r"(?<!\S)--[a-z_]+(?:=[^\s,;.]+)?", r"<code>\g<0></code>", html.escape(text))


def paragraphs(text: str, kind: str = "") -> str:
    """Text whose paragraphs are separated by empty lines."""
    attribute = f' class="{kind}"' if kind else ""
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n".join(f"<p{attribute}>{_words(part)}</p>" for part in parts if part)


def bullets(items: Sequence[str], kind: str = "") -> str:
    """A list."""
    attribute = f' class="{kind}"' if kind else ""
    rows = "".join(f"<li>{_words(item)}</li>" for item in items)
    return f"<ul{attribute}>{rows}</ul>" if items else ""


def table_box(table: Table, *, wrap: bool = False) -> str:
    """A table in a box that scrolls and that the keyboard reaches, and its notes; the caption names the box."""
    # In a scrolling box a caption would be as wide as the table.
    inner = to_html(replace(table, caption="", notes=())).replace("<caption></caption>\n", "", 1)
    kind = "scroll wrap" if wrap else "scroll"
    label = html.escape(table.caption)
    return (
        f'<div class="{kind}" role="region" aria-label="{label}" tabindex="0">\n{inner}</div>\n'
        f"{bullets(table.notes, 'notes')}"
    )


def code_box(text: str, label: str) -> str:
    """Text in a fixed-width font, in lines as they are."""
    return (
        f'<div class="scroll code" role="region" aria-label="{html.escape(label)}" tabindex="0">'
        f"<pre><code>{html.escape(text)}</code></pre></div>"
    )


def command_box(command: str) -> str:
    """A command line, wrapped between words where it is longer than the page is wide."""
    words = " ".join(f"<span>{html.escape(word)}</span>" for word in command.split(" "))
    return f'<pre class="command"><code>{words}</code></pre>'


def folded(summary: str, *parts: str) -> str:
    """Parts that the reader can unfold."""
    return f"<details>\n<summary>{html.escape(summary)}</summary>\n{''.join(parts)}\n</details>"


def figure_box(svg: str, caption: str, *, width: float, least: float) -> str:
    """A chart with its caption, between `least` and `width` pixels wide; it scrolls where there is less room."""
    return (
        f'<figure><div class="scroll"><div style="min-width:{least:.0f}px;max-width:{width:.0f}px">{svg}</div></div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _variables(theme: Theme) -> str:
    return " ".join(f"--{name}: {color};" for name, color in theme.roles().items())
