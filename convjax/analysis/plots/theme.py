"""How figures look, and how they leave: as a PNG or SVG file, or as SVG to be put into a page.

Matplotlib is used through its objects only: no pyplot, no current figure. Its settings are replaced by our own while
a figure is made or written, so that a user's matplotlibrc changes nothing, and put back afterwards.

A figure's look is a `Theme`. `LIGHT` and `DARK` have a background of their own, so that a file can be read wherever
it is shown. `PAGE` stands for the colours of the page that `to_page_svg` puts the figure into: it follows the page
from light to dark.

The series colours were searched for with anchors in Okabe and Ito's palette: under normal sight and simulated
protanopia and deuteranopia (Machado et al. 2009) any two are at least 28 apart in CIELAB, and each has at least
3 : 1 contrast with the background (WCAG 2.2, 1.4.11). Where colours tell things apart, shapes or words do too.
"""

import functools
import html
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from convjax.errors import UserError
from convjax.files import write_bytes_atomic

FONT_SIZE = 9.5
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_FONT = "DejaVu Sans"
_PNG_DPI = 160


@dataclass(frozen=True)
class Theme:
    """Colours as `#rrggbb`.

    Attributes:
      paper: the background; ink: text and marks; muted: second-rate text and axes; grid: grid lines and bands.
      good, bad: of arms shown to be better and worse.
      series: of as many arms as can be told apart by colour.
    """

    paper: str
    ink: str
    muted: str
    grid: str
    good: str
    bad: str
    series: tuple[str, ...]

    def roles(self) -> dict[str, str]:
        """Colour by name, as a page's style sheet calls it: `ink`, `series-1`, ..."""
        plain = {name: getattr(self, name) for name in ("paper", "ink", "muted", "grid", "good", "bad")}
        return plain | {f"series-{number}": colour for number, colour in enumerate(self.series, start=1)}


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1e24",
    muted="#5c6370",
    grid="#dfe2e8",
    good="#00706a",
    bad="#c23b00",
    series=("#0064e6", "#ef6c00", "#005b28", "#732362", "#3694d4", "#968f8f", "#200384", "#141414"),
)
DARK = Theme(
    paper="#16181d",
    ink="#e9ebef",
    muted="#a2a9b5",
    grid="#383d47",
    good="#3fd0c0",
    bad="#ff8a4c",
    series=("#3ccdfa", "#d4502a", "#3df09a", "#c8507f", "#0e78c6", "#f2e63c", "#7a52ff", "#ffffff"),
)
# Codes that occur in no palette: `to_page_svg` puts the page's variables in their place.
PAGE = Theme(
    paper="#01fe00",
    ink="#01fe01",
    muted="#01fe02",
    grid="#01fe03",
    good="#01fe04",
    bad="#01fe05",
    series=tuple(f"#01fe{number:02x}" for number in range(16, 24)),
)
THEMES = {"light": LIGHT, "dark": DARK, "page": PAGE}


def theme_named(name: str) -> Theme:
    """The theme of a name in `THEMES`.

    Raises:
      UserError: an unknown name.
    """
    if name not in THEMES:
        raise UserError(f"theme {name!r} is not known; expected one of {', '.join(THEMES)}")
    return THEMES[name]


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs `draw(..., theme: Theme)` under the theme's settings; callers name the theme: `theme="light"`."""

    @functools.wraps(draw)
    def wrapper(*arguments: Any, theme: str = "light", **more: Any) -> Figure:
        colours = theme_named(theme)
        with _settings(colours):
            return draw(*arguments, theme=colours, **more)

    return wrapper


class ThemedFigure(Figure):
    """A figure that is also written under its theme's settings: Matplotlib reads some of them only then."""

    def __init__(self, width: float, height: float, theme: Theme):
        """An empty figure, in inches, that belongs to nothing but its caller."""
        super().__init__(figsize=(width, height), layout="constrained")
        self.theme = theme
        FigureCanvasAgg(self)

    def savefig(self, *arguments: Any, **more: Any) -> None:
        """See Figure."""
        with _settings(self.theme):
            super().savefig(*arguments, **more)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure as PNG or SVG, by the path's ending, whole or not at all; same figure, same bytes.

    Raises:
      UserError: another ending.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UserError(f"{path}: a figure is written as .png or .svg")
    write_bytes_atomic(path, _rendered(figure, kind, salt=path.stem))
    return path


def to_page_svg(figure: Figure, name: str, *, title: str, description: str) -> str:
    """The figure as an `<svg>` element for an HTML page.

    Its text stays text, in the page's font. Its colours, where the figure was made with `PAGE`, are the page's
    variables `--paper`, `--ink`, ... (`Theme.roles`). It has no size of its own but a shape: style sheets size it.

    Args:
      figure: a figure.
      name: letters, digits and hyphens, unique in the page: ids begin with it.
      title: what the figure is, a few words.
      description: what one sees in it, for those who do not.
    """
    svg = _rendered(figure, "svg", salt=name).decode()
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([0-9. ]+)"', svg)
    assert box is not None
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # A style sheet inside would be the whole page's: what it says goes to the root.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = body.replace("stroke: #000000; stroke-opacity: 0", "stroke: none")
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    # Matplotlib numbers its groups in every figure anew; ids that nothing refers to would only collide in a page.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    # The string of fallback fonts that Matplotlib writes is the machine's; the page has a font.
    body = re.sub(r"(font: [^;\"]*?px) '[^;\"]*", r"\1 var(--font)", body)
    body = re.sub(r"\n\s*", "\n", body)
    # A hundredth of a point is finer than any screen; Matplotlib writes six digits. Text between tags stays.
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", tag[0]), body)
    for role, code in PAGE.roles().items():
        body = body.replace(code, f"var(--{role})")
    return (
        f'<svg viewBox="{box[1]}" role="img" stroke-linejoin="round" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-text">{html.escape(description)}</desc>{body.strip()}</svg>'
    )


def drawable(text: str) -> str:
    """`text` on one line, with signs that the figures' font lacks replaced."""
    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    flat = " ".join(text.split())
    return "".join(sign if ord(sign) in known else "\N{REPLACEMENT CHARACTER}" for sign in flat)


def _rendered(figure: Figure, kind: str, *, salt: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "svg":
        # The salt makes ids a function of the drawing.
        with matplotlib.rc_context({"svg.hashsalt": salt}):
            figure.savefig(buffer, format=kind, metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(buffer, format=kind, dpi=_PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _settings(theme: Theme) -> Iterator[None]:
    # Choosing a back end is the caller's business, and setting one would import it.
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    del defaults["svg.hashsalt"]
    own = {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.muted,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": theme.ink,
        "axes.labelsize": FONT_SIZE,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": FONT_SIZE,
        "axes.unicode_minus": True,
        "figure.facecolor": "none" if theme is PAGE else theme.paper,
        "figure.titlesize": FONT_SIZE + 1.5,
        "figure.titleweight": "bold",
        "font.family": _FONT,
        "font.size": FONT_SIZE,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.facecolor": "none",
        "legend.fontsize": FONT_SIZE - 0.5,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "savefig.facecolor": "auto",
        "svg.fonttype": "none",
        # Labels hold what users type: a dollar sign in one begins no formula.
        "text.parse_math": False,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "xtick.labelsize": FONT_SIZE - 0.5,
        "ytick.color": theme.muted,
        "ytick.labelcolor": theme.ink,
        "ytick.labelsize": FONT_SIZE - 0.5,
    }
    with matplotlib.rc_context({**defaults, **own}):
        yield
