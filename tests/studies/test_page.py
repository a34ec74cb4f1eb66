"""The page of the claims, as Markdown and as HTML."""

import re

import pytest

from convjax.analysis.statistics import Interval
from convjax.studies.claim import Claim
from convjax.studies.figures import accuracy_figure
from convjax.studies.page import JudgedClaim, claims_html, claims_markdown
from convjax.studies.verdict import CONTRADICTED, NOT_SHOWN, SUPPORTED, Finding

INTERVAL = Interval(0.1, 0.2, "t")


def claim(name, *findings, reason=""):
    figure = accuracy_figure("seeds", "Every seed", {"a": {0: 0.9, 1: 0.91}, "b": {0: 0.8}})
    return JudgedClaim(
        Claim(
            name=name,
            title=f"Title of {name}",
            section="The convolution operation",
            quote="Dense layers learn <global> patterns.",
            studies={},
            judge=lambda: findings,
            figures=lambda: [figure],
            would_change="Other data.",
        ),
        f"python -m experiments.{name}",
        findings=findings,
        reason=reason,
        figures=(figure,) if findings else (),
        image_files={"seeds": f"claims/{name}-seeds.png"} if findings else {},
        facts=("mnist, 2 arms",),
    )


def finding(part, word, decides=True):
    return Finding(part, word, 0.15, INTERVAL, f"effect of {part}", decides)


CLAIMS = [
    claim("one", finding("it is so", SUPPORTED), finding("this too", CONTRADICTED, decides=False)),
    claim("two", finding("it is so", SUPPORTED), finding("it is not", CONTRADICTED), finding("perhaps", NOT_SHOWN)),
    claim("three", reason="2 of its runs are not done"),
]


def test_the_verdict_is_the_deciding_findings():
    one, two, three = CLAIMS
    assert (one.word, two.word, three.word) == (SUPPORTED, CONTRADICTED, "")
    assert one.verdict == "Supported: it is so (effect of it is so)."
    assert (one.others, one.beside) == ([], ["This too: contradicted (effect of this too)."])
    # The sentence is that of the part that the claim falls with; the others follow.
    assert two.verdict == "Contradicted: it is not (effect of it is not)."
    assert [text.split(":")[0] for text in two.others] == ["It is so", "Perhaps"]
    assert three.verdict == "Not judged: 2 of its runs are not done."


def test_markdown_has_all_of_every_claim():
    text = claims_markdown("The claims", "An introduction.", CLAIMS, "a machine", "python -m experiments.claims")
    assert text.startswith("# The claims\n\nAn introduction.\n")
    assert re.findall(r"^## (.+)$", text, re.M) == [*(one.claim.title for one in CLAIMS), "Reproduce"]
    assert "> Dense layers learn <global> patterns." in text
    assert text.count("](claims/") == 2
    assert "- ran: mnist, 2 arms" in text
    assert "| Title of three | not judged | 2 of its runs are not done |" in text
    assert "| Title of two | contradicted | effect of it is not |" in text
    assert "Made on a machine." in text


def test_html_escapes_and_draws_every_figure_with_ids_of_its_own():
    text = claims_html("The claims", "An introduction.", CLAIMS, "a machine", "python -m experiments.claims")
    assert "Dense layers learn &lt;global&gt; patterns." in text
    assert text.count("<svg") == 2
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "<script" not in text


@pytest.mark.parametrize("theme", ["light", "dark", "page"])
def test_a_figure_tells_its_means(theme):
    arms = {"a": {0: 0.9, 1: 0.91}, "b": {}}
    drawn = accuracy_figure("x", "Every seed", arms, reference=(0.99, "chapter"), predicted=("a",))
    assert drawn.draw(theme=theme)
    assert "a 90.50 %" in drawn.description
    assert "Dashed: chapter." in drawn.caption
