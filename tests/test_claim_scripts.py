"""The scripts of the claims as a user starts them."""

import importlib
import re

import pytest
from test_experiments import run

CLAIMS = {
    "chapter_result": ["--quick", "--train_size=200", "--channels=4-6-6"],
    "local_patterns": ["--quick", "--train_size=200", "--channels=4-6-6"],
    "translation": ["--quick", "--train_size=200", "--channels=4-6-6"],
    "equivariance": ["--quick", "--train_size=200", "--channels=2-3-3"],
    "position": ["--quick", "--train_size=200"],
}


def test_all_claims_are_tested_here():
    assert [claim.name for claim in importlib.import_module("experiments.claims").CLAIMS] == list(CLAIMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_ends_with_a_verdict_and_a_page(name, tmp_path):
    done = run(name, tmp_path, *CLAIMS[name])
    claim = importlib.import_module(f"experiments.{name}").CLAIM
    verdict = re.search(
        r"^(Supported|Not shown|Contradicted)\. .*: (supported|not shown|contradicted) \(", done.stdout, re.M
    )
    assert verdict, done.stdout[-2000:]
    folder = tmp_path / name
    markdown, page = ((folder / f"claim.{suffix}").read_text() for suffix in ("md", "html"))
    assert claim.quote in markdown
    assert claim.section in markdown
    assert f"**{verdict[1]}." in markdown
    assert "smoke run" in markdown
    assert f"python -m experiments.{name}" in markdown
    images = re.findall(r"\]\((\S+\.png)\)", markdown)
    assert images
    for image in images:
        assert (folder / image).read_bytes().startswith(b"\x89PNG")
    assert page.count("<svg") == len(images)
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", page)
    # A second time nothing is left to do, and the page is the same.
    again = run(name, tmp_path, *CLAIMS[name])
    assert " 0 done" not in again.stdout
    assert (folder / "claim.md").read_text() == markdown
