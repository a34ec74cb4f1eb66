"""The gallery: pictures as PNG and SVG files, animations as GIF files, and one self-contained page with all of them."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from convjax.analysis.plots.theme import save, to_page_svg
from convjax.analysis.report.html import bullets, figure_box, header, page, paragraphs, section
from convjax.explain.pictures.animation import Animation, last_frame, to_gif
from convjax.explain.pictures.parts import WIDTH
from convjax.files import write_bytes_atomic, write_text_atomic

PAGE = "visualize.html"
_PIXELS_PER_INCH = 96
_LEAST = 560


@dataclass(frozen=True)
class Picture:
    """A still picture.

    Attributes:
      name: of its files, without the ending: letters, digits, `_` and `-`.
      description: what it shows, for readers who cannot see it.
      caption: the text below it.
      draw: makes the titled figure: `draw(theme="light")`.
    """

    name: str
    description: str
    caption: str
    draw: Callable[..., Figure]


@dataclass(frozen=True)
class Chapter:
    """A section of the page: heading, introduction and pictures."""

    heading: str
    text: str
    pictures: Sequence[Picture | Animation]


def write_gallery(
    out: Path,
    title: str,
    facts: str,
    chapters: Sequence[Chapter],
    left_out: Sequence[str] = (),
    wrote: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Draws every picture, writes the files and the page, and returns the page's path.

    Args:
      out: the folder; every file in it is written atomically.
      title: of the page.
      facts: a line about the run.
      chapters: what to draw.
      left_out: a line for each chapter that is missing, with the reason.
      wrote: called with the path of each file.
    """
    sections = [header(title, paragraphs(facts, "facts"), bullets(left_out, "notes"))]
    for chapter in chapters:
        boxes = []
        for picture in chapter.pictures:
            made, inner = _animation(out, picture) if isinstance(picture, Animation) else _still(out, picture)
            boxes.append(figure_box(inner, picture.caption, width=WIDTH * _PIXELS_PER_INCH, least=_LEAST))
            for path in made:
                wrote(path)
        sections.append(section(chapter.heading, paragraphs(chapter.text), *boxes))
    path = out / PAGE
    write_text_atomic(path, page(title, sections))
    wrote(path)
    return path


def _still(out: Path, picture: Picture) -> tuple[list[Path], str]:
    figure = picture.draw(theme="light")
    paths = [save(figure, out / f"{picture.name}.{ending}") for ending in ("png", "svg")]
    title = " ".join(figure.get_suptitle().split())
    name = picture.name.replace("_", "-")
    return paths, to_page_svg(picture.draw(theme="page"), name, title=title, description=picture.description)


def _animation(out: Path, animation: Animation) -> tuple[list[Path], str]:
    light, dark = to_gif(animation, "light"), to_gif(animation, "dark")
    path = out / f"{animation.name}.gif"
    write_bytes_atomic(path, light)
    # Readers who ask their browser for reduced motion get the last frame.
    sources = "".join(
        f'<source media="{media}" srcset="{_data(content, kind)}">'
        for media, content, kind in (
            ("(prefers-reduced-motion: reduce) and (prefers-color-scheme: dark)", last_frame(dark), "png"),
            ("(prefers-reduced-motion: reduce)", last_frame(light), "png"),
            ("(prefers-color-scheme: dark)", dark, "gif"),
        )
    )
    return [path], (
        f'<picture>{sources}<img src="{_data(light, "gif")}" alt="{html.escape(animation.description)}" '
        'style="display:block;width:100%;height:auto"></picture>'
    )


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
