"""The claims' scripts as a user starts them."""

import importlib
import re

import pytest

from tests.test_experiments import run

CLAIMS = {
    "chapter_result": ["--quick", "--train_size=200", "--channels=4-6-6"],
    "local_patterns": ["--quick", "--train_size=200", "--channels=4-6-6"],
    "translation": ["--quick", "--train_size=200", "--channels=4-6-6"],
    "equivariance": ["--quick", "--train_size=200", "--channels=2-3-3"],
    "position": ["--quick", "--train_size=200"],
    "sample_efficiency": ["--quick", "--channels=2-3-3", "--seeds=1"],
    "hierarchy": ["--quick", "--train_size=200"],
    "typical_windows": ["--quick", "--train_size=200", "--channels=2-3-3"],
    "output_sizes": ["--quick"],
    "border_effects": ["--quick", "--train_size=200", "--channels=2-3-3"],
    "strides_or_pooling": ["--quick", "--train_size=200", "--channels=2-3-3"],
    "no_pooling": ["--quick", "--train_size=200", "--channels=2-3-3"],
    "max_or_average": ["--quick", "--train_size=200", "--channels=2-3-3"],
}


@pytest.mark.slow
def test_all_claims_on_one_page(tmp_path):
    """The page shows every claim; the second time nothing runs again."""
    flags = ["--quick", "--seeds=1", f"--output={tmp_path / 'page'}"]
    done = run("claims", tmp_path, *flags, timeout=900)
    text = (tmp_path / "page" / "claims.md").read_text()
    modules = importlib.import_module("experiments.claims").CLAIMS
    for claim in modules:
        assert claim.quote in text
        assert re.search(rf"^(supported|not shown|contradicted) +{re.escape(claim.title)}$", done.stdout, re.M)
    for image in re.findall(r"\]\((\S+\.png)\)", text):
        assert (tmp_path / "page" / image).exists()
    again = run("claims", tmp_path, *flags, "--report_only", timeout=300)
    assert "runs (" not in again.stdout
    assert (tmp_path / "page" / "claims.md").read_text() == text


def test_claims_are_chosen_by_name(tmp_path):
    wrong = run("claims", tmp_path, "--only=translation,kernels", code=2)
    assert wrong.stderr.startswith("claims: --only=kernels: no such claim; expected some of chapter_result, ")
    # Nothing has run yet: the page says so, and reporting does not fail.
    done = run("claims", tmp_path, "--quick", "--only=translation", "--report_only")
    assert "not judged" in done.stdout
    text = (tmp_path / "claims" / "claims.md").read_text()
    assert "none of its 6 runs is done" in text
    assert "chapter_result" not in text


def test_all_claims_are_tested_here():
    assert [claim.name for claim in importlib.import_module("experiments.claims").CLAIMS] == list(CLAIMS)


# Only one runs at every test: each compiles several networks, which is slow.
@pytest.mark.parametrize(
    "name", [name if name == "translation" else pytest.param(name, marks=pytest.mark.slow) for name in CLAIMS]
)
def test_a_claim_ends_with_a_verdict_and_a_page(name, tmp_path):
    done = run(name, tmp_path, *CLAIMS[name])
    claim = importlib.import_module(f"experiments.{name}").CLAIM
    verdict = re.search(r"^(Supported|Not shown|Contradicted): .*\)\.$", done.stdout, re.M)
    assert verdict, done.stdout[-2000:]
    folder = tmp_path / name
    markdown, page = ((folder / f"claim.{suffix}").read_text() for suffix in ("md", "html"))
    assert claim.quote in markdown
    assert claim.section in markdown
    assert f"**{verdict[0]}**" in markdown
    assert "smoke run" in markdown
    assert f"python -m experiments.{name}" in markdown
    images = re.findall(r"\]\((\S+\.png)\)", markdown)
    assert images
    for image in images:
        assert (folder / image).read_bytes().startswith(b"\x89PNG")
    assert page.count("<svg") == len(images)
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", page)
    # The second time nothing is left to do, and the page is the same.
    again = run(name, tmp_path, *CLAIMS[name])
    assert " 0 done" not in again.stdout
    assert (folder / "claim.md").read_text() == markdown
