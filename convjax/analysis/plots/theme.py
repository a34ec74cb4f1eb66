"""How figures look, and how they are written: to a PNG or SVG file, or as SVG inside a page.

Figures use Matplotlib's objects only: no pyplot, no current figure. While a figure is drawn or written our settings
replace Matplotlib's, so that a user's matplotlibrc changes nothing; afterwards they are restored.

A figure's look is a `Theme`. `LIGHT` and `DARK` have their own background, so that a file is readable wherever it is
shown. `PAGE` stands for the colors of the page that `to_page_svg` puts the figure into, light or dark.

The series colors come from a search around Okabe and Ito's palette: under normal sight and simulated protanopia and
deuteranopia (Machado et al. 2009) any two are at least 28 apart in CIELAB, and each has at least 3 : 1 contrast with
the background (WCAG 2.2, 1.4.11). Where colors tell things apart, shapes or words do too.
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
    """Colors as `#rrggbb`.

    Attributes:
      paper: the background; ink: text and marks; muted: secondary text and axes; grid: grid lines and bands.
      good, bad: of arms shown to be better and worse.
      series: one per arm, as many as can be told apart.
    """

    paper: str
    ink: str
    muted: str
    grid: str
    good: str
    bad: str
    series: tuple[str, ...]

    def roles(self) -> dict[str, str]:
        """Color by name, as a page's style sheet calls it: `ink`, `series-1`, ..."""
        plain = {name: getattr(self, name) for name in ("paper", "ink", "muted", "grid", "good", "bad")}
        return plain | {f"series-{number}": color for number, color in enumerate(self.series, start=1)}


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
# Codes that occur in no palette: `to_page_svg` replaces them by the page's variables.
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


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Lets callers of `draw(..., theme: Theme)` name the theme, `theme="light"`, and draws with its settings.

    Raises:
      UserError: an unknown name.
    """

    @functools.wraps(draw)
    def wrapper(*arguments: Any, theme: str = "light", **more: Any) -> Figure:
        if theme not in THEMES:
            raise UserError(f"theme {theme!r} is not known; expected one of {', '.join(THEMES)}")
        with _settings(THEMES[theme]):
            return draw(*arguments, theme=THEMES[theme], **more)

    return wrapper


class ThemedFigure(Figure):
    """A figure that is also written with its theme's settings, some of which Matplotlib reads only then."""

    def __init__(self, width: float, height: float, theme: Theme):
        """An empty figure, in inches, that no global state refers to."""
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

    Its text stays text, in the page's font. The colors of `PAGE` become the page's variables `--paper`, `--ink`, ...
    (`Theme.roles`). It has an aspect ratio but no size: style sheets size it.

    Args:
      figure: a figure.
      name: letters, digits and hyphens, unique in the page: ids begin with it.
      title: what the figure is, a few words.
      description: what it shows, for readers who cannot see it.
    """
    svg = _rendered(figure, "svg", salt=name).decode()
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([0-9. ]+)"', svg)
    assert box is not None
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # A style sheet inside would apply to the whole page: what it says goes to the root.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = body.replace("stroke: #000000; stroke-opacity: 0", "stroke: none")
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    # Matplotlib numbers its groups anew in every figure; ids that nothing refers to would only collide in a page.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    # Matplotlib writes the machine's fallback fonts; the page has a font of its own.
    body = re.sub(r"(font: [^;\"]*?px) '[^;\"]*", r"\1 var(--font)", body)
    body = re.sub(r"\n\s*", "\n", body)
    # A hundredth of a point is finer than any screen; Matplotlib writes six digits. Text between tags stays.
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", tag[0]), body)
    for role, code in PAGE.roles().items():
        body = body.replace(code, f"var(--{role})")
    return (
        f'<svg viewBox="{box[1]}" role="img" stroke-linejoin="round" aria-labeledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-text">{html.escape(description)}</desc>{body.strip()}</svg>'
    )


def drawable(text: str) -> str:
    """`text` on one line, without the characters that the figures' font lacks."""
    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    flat = " ".join(text.split())
    return "".join(sign if ord(sign) in known else "\N{REPLACEMENT CHARACTER}" for sign in flat)


def _rendered(figure: Figure, kind: str, *, salt: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "svg":
        # With a fixed salt the same drawing has the same ids.
        with matplotlib.rc_context({"svg.hashsalt": salt}):
            figure.savefig(buffer, format=kind, metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(buffer, format=kind, dpi=_PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _settings(theme: Theme) -> Iterator[None]:
    # The caller chooses the back end; setting one would import it.
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
        # Labels hold what users type, where a dollar sign begins no formula.
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
