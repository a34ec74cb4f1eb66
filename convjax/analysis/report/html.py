"""A self-contained HTML page: its style sheet and the parts it is put together from. Everything is escaped here.

The page loads nothing: a content security policy in its head forbids what would. It follows the reader's choice of
light or dark, and nothing in it is wider than a phone but tables and charts, which scroll inside their own boxes.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from convjax.analysis.plots.theme import DARK, LIGHT, Theme
from convjax.analysis.render import Table, to_html

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root { color-scheme: light dark; --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  --shade: color-mix(in srgb, var(--muted) 40%%, transparent); %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%%; text-size-adjust: 100%%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 var(--font); overflow-wrap: anywhere; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 0.75rem 4rem; }
@media (min-width: 40rem) { main { padding: 2.5rem 2rem 5rem; } }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 0.5rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.75rem 0 0.75rem; padding-top: 0.75rem;
  border-top: 1px solid var(--grid); }
p, li { max-width: 46rem; }
p { margin: 0 0 0.75rem; }
ul { margin: 0 0 0.75rem; padding-left: 1.25rem; }
li { margin: 0.25rem 0; }
blockquote { margin: 0 0 1rem; padding: 0.25rem 0 0.25rem 1rem; border-left: 3px solid var(--grid); }
blockquote p { margin: 0; font-size: 1.1rem; }
blockquote footer { color: var(--muted); font-size: 0.875rem; }
.verdict { font-weight: 600; }
.verdict.supported { color: var(--good); }
.verdict.contradicted { color: var(--bad); }
.question { font-size: 1.2rem; line-height: 1.45; }
.facts, .notes, figcaption, caption { color: var(--muted); font-size: 0.875rem; }
.answer > p:first-of-type { font-size: 1.1rem; font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%%; margin: 0 0 0.75rem; background:
  linear-gradient(to left, var(--paper) 1.5rem, transparent) right / 3rem 100%% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 0.6rem 100%% no-repeat scroll; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--series-1); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.4rem 0.6rem; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
thead th { vertical-align: bottom; border-bottom: 1.5px solid var(--muted); }
th { font-weight: 600; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
.number { text-align: right; }
.wrap td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; max-width: 40rem; }
strong { font-weight: 700; }
.figures { columns: 27rem; column-gap: 2.5rem; }
figure { margin: 0 0 2.25rem; break-inside: avoid; }
figure .scroll { background: none; }
figure svg { display: block; width: 100%%; height: auto; overflow: visible; }
figcaption { margin-top: 0.5rem; max-width: 38rem; }
code { font-family: var(--mono); font-size: 0.92em; white-space: nowrap; }
pre code { font-size: 1em; white-space: pre; }
pre { margin: 0; padding: 0.75rem 1rem; background: color-mix(in srgb, var(--grid) 45%%, var(--paper));
  border-radius: 6px; font: 0.875rem/1.5 var(--mono); }
.code pre { width: max-content; min-width: 100%%; }
.command { margin: 0 0 0.75rem; }
.command code { white-space: pre-wrap; }
.command span { display: inline-block; max-width: 100%%; overflow-wrap: anywhere; }
details { margin: 0 0 0.75rem; }
summary { cursor: pointer; padding: 0.4rem 0; }
@media print { details:not([open]) { display: none; } }
"""


def page(title: str, sections: Iterable[str]) -> str:
    """The whole document; `sections` are HTML."""
    style = _STYLE % {"light": _variables(LIGHT), "dark": _variables(DARK)}
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
    """The first letter large."""
    return text[:1].upper() + text[1:]


def _words(text: str) -> str:
    """Escaped text; flags are code, which does not break inside them."""
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
    """A table that scrolls in its own box, which the keyboard reaches, and its notes; the caption names the box."""
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
    """Parts that are shown when asked for."""
    return f"<details>\n<summary>{html.escape(summary)}</summary>\n{''.join(parts)}\n</details>"


def figure_box(svg: str, caption: str, *, width: float, least: float) -> str:
    """A chart with its caption; between `least` and `width` pixels wide, scrolling where there is less room."""
    return (
        f'<figure><div class="scroll"><div style="min-width:{least:.0f}px;max-width:{width:.0f}px">{svg}</div></div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _variables(theme: Theme) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in theme.roles().items())
