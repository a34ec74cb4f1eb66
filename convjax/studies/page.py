"""The page of the claims: each quoted, judged, drawn, and told how it was tested. As HTML and as Markdown. Pure."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from convjax.analysis.render import Table, to_markdown, word_table
from convjax.analysis.report.figures import chart_box
from convjax.analysis.report.html import bullets, capital, command_box, header, page, paragraphs, section, table_box
from convjax.studies.verdict import Finding, overall

_BESIDE = "Beside the verdict:"


@dataclass(frozen=True)
class ClaimFigure:
    """A figure of a claim.

    Attributes:
      name: letters, digits and hyphens, unique in its claim.
      figure: made with the theme that was asked for.
      caption: what the reader must know to read it.
      description: what one sees in it, for those who do not.
    """

    name: str
    figure: Figure
    caption: str
    description: str


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with all that is told of it.

    Attributes:
      name: of its script; title, section, quote, would_change: see `convjax.studies.claim.Claim`.
      findings: its parts, judged; empty where it could not be judged, and `reason` says why.
      page_figures, image_files: its figures, for the page (theme `page`), and the files of the same figures by
        their names, as paths to write into Markdown.
      facts: what was run.
      command: that does it again.
    """

    name: str
    title: str
    section: str
    quote: str
    would_change: str
    findings: tuple[Finding, ...]
    reason: str
    page_figures: tuple[ClaimFigure, ...]
    image_files: Mapping[str, str]
    facts: tuple[str, ...]
    command: str

    @property
    def word(self) -> str:
        """The verdict; empty where there is none."""
        return overall(self.findings) if self.findings else ""

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if not self.findings:
            return f"Not judged: {self.reason}."
        deciding = [finding for finding in self.findings if finding.decides]
        told = [finding for finding in deciding if finding.word == self.word] or deciding
        return f"{self.word.capitalize()}: {told[0].part} ({told[0].evidence})."

    @property
    def others(self) -> list[str]:
        """The other findings that decide, as sentences."""
        told = self.verdict
        deciding = [finding for finding in self.findings if finding.decides]
        return [one.sentence for one in deciding if not told.endswith(f": {one.part} ({one.evidence}).")]

    @property
    def beside(self) -> list[str]:
        """The findings that do not decide, as sentences."""
        return [finding.sentence for finding in self.findings if not finding.decides]


def claims_markdown(title: str, intro: str, claims: Sequence[JudgedClaim], machines: str, command: str) -> str:
    """The page for GitHub. Figures are linked, see `JudgedClaim.image_files`."""
    parts = [f"# {title}", intro, to_markdown(_overview(claims, linked=True)).strip()]
    for claim in claims:
        parts += [
            f"## {claim.title}",
            f"> {claim.quote}\n>\n> Chapter 5, \N{LEFT DOUBLE QUOTATION MARK}{claim.section}",
        ]
        parts[-1] += "\N{RIGHT DOUBLE QUOTATION MARK}"
        parts.append(f"**{claim.verdict}**")
        for heading, sentences in (("", claim.others), (f"{_BESIDE}\n\n", claim.beside)):
            if sentences:
                parts.append(heading + "\n".join(f"- {sentence}" for sentence in sentences))
        for drawn in claim.page_figures:
            parts += [f"![{drawn.description}]({claim.image_files[drawn.name]})", f"*{drawn.caption}*"]
        parts.append(f"What would change it: {claim.would_change}")
        if claim.facts:
            parts.append("\n".join(f"- ran: {fact}" for fact in claim.facts))
        parts.append(f"```bash\n{claim.command}\n```")
    parts += ["## Do it again", f"```bash\n{command}\n```", f"Made on {machines}."]
    return "\n\n".join(parts) + "\n"


def claims_html(title: str, intro: str, claims: Sequence[JudgedClaim], machines: str, command: str) -> str:
    """One self-contained page."""
    sections = [
        header(title, paragraphs(intro)),
        section("Verdicts", table_box(_overview(claims, linked=False), wrap=True)),
    ]
    for claim in claims:
        quote = (
            f"<blockquote><p>{html.escape(claim.quote)}</p>"
            f"<footer>Chapter 5, \N{LEFT DOUBLE QUOTATION MARK}{html.escape(claim.section)}"
            "\N{RIGHT DOUBLE QUOTATION MARK}</footer></blockquote>"
        )
        charts = "\n".join(_box(claim.name, drawn) for drawn in claim.page_figures)
        sections.append(
            section(
                claim.title,
                quote,
                f'<p class="verdict {claim.word.replace(" ", "-")}">{html.escape(claim.verdict)}</p>',
                bullets(claim.others),
                *((paragraphs(_BESIDE), bullets(claim.beside)) if claim.beside else ()),
                charts,
                paragraphs(f"What would change it: {claim.would_change}"),
                bullets([f"ran: {fact}" for fact in claim.facts], "notes"),
                command_box(claim.command),
            )
        )
    sections.append(section("Do it again", command_box(command), paragraphs(f"Made on {machines}.", "facts")))
    return page(title, sections)


def _box(claim: str, drawn: ClaimFigure) -> str:
    name = f"{claim}-{drawn.name}".replace("_", "-")
    title = capital(drawn.name.replace("-", " "))
    return chart_box(drawn.figure, name, title, drawn.description, drawn.caption)


def _overview(claims: Sequence[JudgedClaim], *, linked: bool) -> Table:
    rows = []
    for claim in claims:
        deciding = [finding for finding in claim.findings if finding.decides]
        told = [finding for finding in deciding if finding.word == claim.word]
        evidence = told[0].evidence if told else claim.reason
        rows.append((claim.title, claim.word or "not judged", evidence))
    return word_table("Verdicts", pd.DataFrame(rows, columns=["claim", "verdict", "effect"]))
