"""A gallery: pictures as PNG and SVG files, animations as GIF, and all of them on one self-contained page."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from convjax.analysis.plots.theme import save, to_page_svg
from convjax.analysis.report.html import bullets, figure_box, header, page, paragraphs, section
from convjax.explain.pictures.animation import Animation, last_frame, to_gif
from convjax.files import write_bytes_atomic, write_text_atomic

PAGE = "visualize.html"
_PIXELS_AN_INCH = 96
_LEAST = 560


@dataclass(frozen=True)
class Picture:
    """A picture that stands still.

    Attributes:
      name: of its files, without an ending: letters, digits, `_` and `-`.
      title: what it is, a few words.
      description: what one sees, for those who do not.
      caption: below it.
      draw: the figure in a theme.
    """

    name: str
    title: str
    description: str
    caption: str
    draw: Callable[[str], Figure]


@dataclass(frozen=True)
class Chapter:
    """Pictures under one heading of the page, with what is to be known of them."""

    heading: str
    text: str
    pictures: Sequence[Picture | Animation]


def write_gallery(
    out: Path,
    title: str,
    facts: str,
    chapters: Sequence[Chapter],
    left_out: Sequence[str],
    wrote: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Writes every picture and the page into `out`; each file whole or not at all.

    Args:
      out: the folder.
      title: of the page.
      facts: about the run.
      chapters: the pictures.
      left_out: what could not be drawn, and why.
      wrote: told of each file.

    Returns the page.
    """
    sections = [header(title, paragraphs(facts, "facts"), bullets(left_out, "notes"))]
    for chapter in chapters:
        boxes = []
        for picture in chapter.pictures:
            made, box = _animation(out, picture) if isinstance(picture, Animation) else _still(out, picture)
            boxes.append(box)
            for path in made:
                wrote(path)
        sections.append(section(chapter.heading, paragraphs(chapter.text), *boxes))
    path = out / PAGE
    write_text_atomic(path, page(title, sections))
    wrote(path)
    return path


def _still(out: Path, picture: Picture) -> tuple[list[Path], str]:
    figure = picture.draw("light")
    paths = [save(figure, out / f"{picture.name}.{ending}") for ending in ("png", "svg")]
    svg = to_page_svg(
        picture.draw("page"), picture.name.replace("_", "-"), title=picture.title, description=picture.description
    )
    width = figure.get_figwidth() * _PIXELS_AN_INCH
    return paths, figure_box(svg, picture.caption, width=width, least=_LEAST)


def _animation(out: Path, animation: Animation) -> tuple[list[Path], str]:
    light, dark = to_gif(animation, "light"), to_gif(animation, "dark")
    path = out / f"{animation.name}.gif"
    write_bytes_atomic(path, light)
    # Who wants less motion sees the last frame.
    sources = "".join(
        f'<source media="{media}" srcset="{_data(content, kind)}">'
        for media, content, kind in (
            ("(prefers-reduced-motion: reduce) and (prefers-color-scheme: dark)", last_frame(dark), "png"),
            ("(prefers-reduced-motion: reduce)", last_frame(light), "png"),
            ("(prefers-color-scheme: dark)", dark, "gif"),
        )
    )
    picture = (
        f'<picture>{sources}<img src="{_data(light, "gif")}" alt="{html.escape(animation.description)}" '
        'style="display:block;width:100%;height:auto"></picture>'
    )
    return [path], figure_box(picture, animation.caption, width=9 * _PIXELS_AN_INCH, least=_LEAST)


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
