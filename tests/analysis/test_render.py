# ruff: noqa: RUF001 - tables are written with the minus sign
import csv
import dataclasses
import html.parser
import io
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from convjax.analysis.render import (
    RENDERERS,
    Table,
    to_csv,
    to_html,
    to_json,
    to_latex,
    to_markdown,
    to_text,
    word_table,
)
from convjax.analysis.tables import accuracy_table

GOLDEN = Path(__file__).parent / "rendered"
NASTY = r"50% of $a_b$ & #1 {x} ~y ^2 \foo <b>|`c`*d* --flag [t](u) — −1 ± † … 日"


@pytest.fixture
def small():
    """A row marked best, a column for readers only, two for programs only, values that are missing."""
    names = pd.Index(["3", "5-3-3", "7"], name="arm")
    return Table(
        caption="A caption",
        numbers=pd.DataFrame(
            {
                "arm": ["3", "5-3-3", "7"],
                "mean": [0.098, 0.1 + 0.2, math.nan],
                "n": [5, 12, None],
                "shown_best": [False, True, False],
                "verdict": ["worse", "no difference shown", 'a, "b"'],
            },
            dtype=object,
        ),
        panels={
            "result": pd.DataFrame(
                {"mean (%)": ["9.80 ± 0.10", "99.20 ± 0.10", "—"], "number of seeds": ["5", "12", "—"]}, index=names
            ),
            "difference": pd.DataFrame({"verdict": ["worse", "no difference shown", 'a, "b"']}, index=names),
        },
        notes=("first note", "second note"),
        left=("verdict",),
        best=(1, "mean (%)"),
    )


@pytest.fixture
def nasty():
    table = word_table(NASTY, pd.DataFrame({"a": [NASTY], NASTY: [NASTY]}))
    return dataclasses.replace(table, notes=(NASTY,))


@pytest.mark.parametrize(("name", "suffix"), [("text", "txt"), ("markdown", "md"), ("latex", "tex"), ("html", "html")])
def test_golden(runs, name, suffix):
    # By hand. kernel_size=5 minus 3: differences 0.0020, 0.0024, 0.0019, mean 0.0021, squared deviations
    # (1 + 9 + 4)e-8, sd sqrt(7e-8) = 0.00026458, d_z 7.937, t = 7.937 * sqrt(3) = 13.748. With 2 degrees of freedom
    # p = 1 - t / sqrt(2 + t^2) = 0.00525, twice that after Holm; t(0.975, 2) = 4.302653 gives +-0.000657.
    # kernel_size=1 minus 3: -0.0005, +0.0005, +0.0001, mean 0.000033, sd 0.000503, d_z 0.066, p 0.919.
    # 5 minus 1: 0.0025, 0.0019, 0.0018: p 0.011, so 5 is better than both and marked.
    frame = runs(
        [
            ({"kernel_size": "3"}, [0.9910, 0.9920, 0.9930]),
            ({"kernel_size": "5"}, [0.9930, 0.9944, 0.9949]),
            ({"kernel_size": "1"}, [0.9905, 0.9925, 0.9931]),
        ]
    )
    rendered = RENDERERS[name](accuracy_table(frame, baseline={"kernel_size": "3"}))
    golden = (GOLDEN / f"accuracy.{suffix}").read_text(encoding="utf-8")
    assert rendered == golden, f"if the new {name} is what it should be, replace {GOLDEN.name}/accuracy.{suffix}"


class TestText:
    def test_columns_are_aligned_and_the_mark_moves_no_digit(self, small):
        assert to_text(small).splitlines() == [
            "A caption",
            "",
            "                       number",
            "                           of",
            "arm        mean (%)     seeds  verdict",
            "──────────────────────────────────────────────────",
            "3       9.80 ± 0.10         5  worse",
            "5-3-3  99.20 ± 0.10 *      12  no difference shown",
            '7                 —         —  a, "b"',
            "",
            "- first note",
            "- second note",
        ]

    def test_what_is_too_wide_is_broken_between_panels(self, small):
        blocks = to_text(small, 40).split("\n\n")
        assert [block.splitlines()[-1] for block in blocks[1:3]] == ["7                 —         —", '7      a, "b"']

    @pytest.mark.parametrize("width", [20, 30, 40, 60, 110])
    def test_no_column_is_lost_and_no_line_is_too_wide(self, small, width):
        text = to_text(small, width)
        for cell in ("9.80 ± 0.10", "99.20 ± 0.10 *", "12", "no difference shown"):
            assert text.count(cell) == 1
        # The widest column beside the header column needs 26.
        assert max(map(len, text.splitlines())) <= max(width, 26)


class TestMarkdown:
    def test_small(self, small):
        assert to_markdown(small).splitlines() == [
            "**A caption**",
            "",
            "| arm | mean (%) | number of seeds | verdict |",
            "|:--|--:|--:|:--|",
            "| 3 | 9.80 ± 0.10 | 5 | worse |",
            "| 5-3-3 | **99.20 ± 0.10** | 12 | no difference shown |",
            '| 7 | — | — | a, "b" |',
            "",
            "- first note",
            "- second note",
        ]

    def test_special_characters(self, nasty):
        row = to_markdown(nasty).splitlines()[4]
        cell = r"50% of $a_b$ & #1 {x} ~y ^2 \\foo \<b>\|\`c\`\*d\* --flag [t]\(u) — −1 ± † … 日"
        assert row == f"| {cell} | {cell} |"


class TestLatex:
    def test_small(self, small):
        lines = to_latex(small).splitlines()
        cells = [[cell.strip() for cell in line.removesuffix(r"\\").split("&")] for line in lines]
        assert ["5-3-3", r"\textbf{99.20 $\pm$ 0.10}", "12"] in cells
        assert ["5-3-3", "no difference shown"] in cells
        assert lines.count(r"\toprule") == lines.count(r"\bottomrule") == 2

    def test_special_characters(self, nasty):
        row = " ".join(to_latex(nasty).splitlines()[10].split())
        cell = (
            r"50\% of \$a\_b\$ \& \#1 \{x\} \textasciitilde{}y \^{}2 \textbackslash{}foo "
            r"\ensuremath{<}b\ensuremath{>}\textbar{}`c`*d* -{}-flag [t](u) \textemdash{} $-$1 $\pm$ \dag{} \ldots{} ?"
        )
        assert row == rf"{cell} & {cell} \\"

    @pytest.mark.parametrize("fixture", ["small", "nasty"])
    def test_braces_and_environments_close(self, fixture, request):
        text = to_latex(request.getfixturevalue(fixture)).replace(r"\{", "").replace(r"\}", "")
        depth = 0
        for character in text:
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert depth >= 0
        assert depth == 0
        for environment in ("table", "tabular", "flushleft"):
            assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") > 0


class TestPrograms:
    def test_csv_is_exact(self, small):
        assert to_csv(small) == (
            "arm,mean,n,shown_best,verdict\n"
            "3,0.098,5,false,worse\n"
            "5-3-3,0.30000000000000004,12,true,no difference shown\n"
            '7,,,false,"a, ""b"""\n'
        )

    def test_json_is_exact(self, small):
        assert json.loads(to_json(small)) == {
            "caption": "A caption",
            "rows": [
                {"arm": "3", "mean": 0.098, "n": 5, "shown_best": False, "verdict": "worse"},
                {
                    "arm": "5-3-3",
                    "mean": 0.30000000000000004,
                    "n": 12,
                    "shown_best": True,
                    "verdict": "no difference shown",
                },
                {"arm": "7", "mean": None, "n": None, "shown_best": False, "verdict": 'a, "b"'},
            ],
            "notes": ["first note", "second note"],
        }

    def test_special_characters_survive(self, nasty):
        assert list(csv.reader(io.StringIO(to_csv(nasty)))) == [["a", NASTY], [NASTY, NASTY]]
        assert json.loads(to_json(nasty))["rows"] == [{"a": NASTY, NASTY: NASTY}]

    def test_csv_and_json_say_the_same_of_real_runs(self, runs):
        frame = runs([({"kernel_size": "3"}, [0.991, 0.992, 0.993]), ({"kernel_size": "5"}, [0.994])])
        table = accuracy_table(frame, baseline={"kernel_size": "3"})
        from_csv = list(csv.DictReader(io.StringIO(to_csv(table))))
        for ours, theirs in zip(from_csv, json.loads(to_json(table))["rows"], strict=True):
            assert ours == {
                key: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
                for key, value in theirs.items()
            }
        assert float(from_csv[0]["mean"]) == pytest.approx(0.992)
        assert (from_csv[1]["n"], from_csv[1]["sd"], from_csv[1]["verdict"]) == ("1", "", "one seed: no interval")


class TestHtml:
    def read(self, fragment):
        class Reader(html.parser.HTMLParser):
            def __init__(self):
                super().__init__()
                self.open, self.seen, self.text = [], [], ""

            def handle_starttag(self, tag, attributes):
                self.open.append(tag)
                self.seen.append((tag, dict(attributes)))

            def handle_endtag(self, tag):
                assert self.open.pop() == tag

            def handle_data(self, data):
                self.text += data

        reader = Reader()
        reader.feed(fragment)
        reader.close()
        assert not reader.open
        return reader

    def test_is_well_formed_with_headers_for_rows_and_columns(self, small):
        reader = self.read(to_html(small))
        scopes = [attributes["scope"] for tag, attributes in reader.seen if tag == "th"]
        assert scopes == ["col"] * 4 + ["row"] * 3
        tags = [tag for tag, _ in reader.seen]
        assert (tags.count("caption"), tags.count("strong"), tags.count("li"), tags.count("td")) == (1, 1, 2, 9)

    def test_special_characters(self, nasty):
        reader = self.read(to_html(nasty))
        assert reader.text.count(NASTY) == 5
        assert "b" not in [tag for tag, _ in reader.seen]
