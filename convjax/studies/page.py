"""The page of the claims as HTML and as Markdown: each is quoted, judged, drawn and explained. Pure."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from convjax.analysis.render import Table, to_markdown, word_table
from convjax.analysis.report.figures import chart_box
from convjax.analysis.report.html import bullets, capital, command_box, header, page, paragraphs, section, table_box
from convjax.studies.claim import Claim
from convjax.studies.verdict import Finding, overall

_BESIDE = "Beside the verdict:"
_OPEN, _CLOSE = "\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"


@dataclass(frozen=True)
class ClaimFigure:
    """A figure of a claim.

    Attributes:
      name: letters, digits and hyphens, unique in its claim.
      draw: draws it, `draw(theme=...)` with a theme's name.
      caption: what the reader must know to read it.
      description: what it shows, for readers who cannot see it.
    """

    name: str
    draw: Callable[..., Figure]
    caption: str
    description: str


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with everything that the page says about it.

    Attributes:
      claim: the claim.
      command: reproduces this.
      findings: its parts, judged; empty if it could not be judged, and then `reason` says why.
      figures: its figures.
      image_files: paths of the figures' files by figure name, as Markdown links to them.
      facts: what was run.
    """

    claim: Claim
    command: str
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    figures: tuple[ClaimFigure, ...] = ()
    image_files: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The verdict; empty if there is none."""
        return overall(self.findings) if self.findings else ""

    @property
    def leading(self) -> Finding | None:
        """The first deciding finding with the verdict's word."""
        return next((one for one in self.findings if one.decides and one.word == self.word), None)

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if self.leading is None:
            return f"Not judged: {self.reason}."
        return f"{self.word.capitalize()}: {self.leading.part} ({self.leading.evidence})."

    @property
    def others(self) -> list[str]:
        """The other deciding findings, as sentences."""
        return [one.sentence for one in self.findings if one.decides and one is not self.leading]

    @property
    def beside(self) -> list[str]:
        """The findings that do not decide, as sentences."""
        return [one.sentence for one in self.findings if not one.decides]


def claims_markdown(title: str, intro: str, claims: Sequence[JudgedClaim], machines: str, command: str) -> str:
    """The page for GitHub, with links to the figures' files."""
    parts = [f"# {title}", intro, to_markdown(_overview(claims)).strip()]
    for judged in claims:
        claim = judged.claim
        parts += [
            f"## {claim.title}",
            f"> {claim.quote}\n>\n> Chapter 5, {_OPEN}{claim.section}{_CLOSE}",
            f"**{judged.verdict}**",
            _listed(judged.others),
            *([_BESIDE, _listed(judged.beside)] if judged.beside else []),
        ]
        for figure in judged.figures:
            parts += [f"![{figure.description}]({judged.image_files[figure.name]})", f"*{figure.caption}*"]
        parts += [
            f"What would change it: {claim.would_change}",
            _listed(f"ran: {fact}" for fact in judged.facts),
            f"```bash\n{judged.command}\n```",
        ]
    parts += ["## Reproduce", f"```bash\n{command}\n```", f"Made on {machines}."]
    return "\n\n".join(filter(None, parts)) + "\n"


def claims_html(title: str, intro: str, claims: Sequence[JudgedClaim], machines: str, command: str) -> str:
    """The page as one self-contained file."""
    sections = [header(title, paragraphs(intro)), section("Verdicts", table_box(_overview(claims), wrap=True))]
    for judged in claims:
        claim = judged.claim
        quote = (
            f"<blockquote><p>{html.escape(claim.quote)}</p>"
            f"<footer>Chapter 5, {_OPEN}{html.escape(claim.section)}{_CLOSE}</footer></blockquote>"
        )
        sections.append(
            section(
                claim.title,
                quote,
                f'<p class="verdict {judged.word.replace(" ", "-")}">{html.escape(judged.verdict)}</p>',
                bullets(judged.others),
                *((paragraphs(_BESIDE), bullets(judged.beside)) if judged.beside else ()),
                "\n".join(_chart(claim.name, figure) for figure in judged.figures),
                paragraphs(f"What would change it: {claim.would_change}"),
                bullets([f"ran: {fact}" for fact in judged.facts], "notes"),
                command_box(judged.command),
            )
        )
    sections.append(section("Reproduce", command_box(command), paragraphs(f"Made on {machines}.", "facts")))
    return page(title, sections)


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _chart(claim: str, figure: ClaimFigure) -> str:
    name = f"{claim}-{figure.name}".replace("_", "-")
    title = capital(figure.name.replace("-", " "))
    return chart_box(figure.draw(theme="page"), name, title, figure.description, figure.caption)


def _overview(claims: Sequence[JudgedClaim]) -> Table:
    rows = [
        (one.claim.title, one.word or "not judged", one.leading.evidence if one.leading else one.reason)
        for one in claims
    ]
    return word_table("Verdicts", pd.DataFrame(rows, columns=["claim", "verdict", "effect"]))
