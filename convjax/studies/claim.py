"""Claims of the chapter, tested: their studies are run, the trained networks measured, and a verdict computed."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from convjax import analysis, studies
from convjax.errors import UserError
from convjax.files import write_text_atomic
from convjax.flags import define_run_flags, run_program
from convjax.studies.study import Layout, Study, define_flags, define_sweep_flags, do, lay_out

if TYPE_CHECKING:
    from convjax.studies.page import ClaimFigure, JudgedClaim
    from convjax.studies.verdict import Finding

TITLE = "The chapter's claims, measured"
_INTRO = (
    "Each claim of the chapter stands here with an experiment that could have contradicted it and a verdict computed "
    "by a fixed rule: supported if the whole 95 % interval of every deciding effect lies on the claimed side, "
    "contradicted if one lies wholly on the other side, else not shown. Effects are means over seeds, paired by seed "
    "if they compare two networks."
)
_QUICK_INTRO = (
    "This is a smoke run (--quick) with few seeds, little data and almost no training. It shows that the program "
    "works; its verdicts mean nothing."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the chapter and what tests it.

    Attributes:
      name: of its script, `experiments/NAME.py`, and of its folder in the store.
      title: a few words.
      section: heading of the chapter's section that holds the sentence.
      quote: the sentence.
      studies: what is run, by name; none if arithmetic settles the claim. Their arms allow the claim to fail.
      judge: from the runs of each study, passed by the study's name, to findings. Pure.
      figures: from the same to figures. Pure.
      would_change: a paragraph on what would change the verdict.
    """

    name: str
    title: str
    section: str
    quote: str
    studies: Mapping[str, Study]
    judge: Callable[..., Sequence[Finding]]
    figures: Callable[..., Sequence[ClaimFigure]]
    would_change: str


def run(claim: Claim) -> None:
    """The whole program of a claim's script."""
    if claim.studies:
        define_flags(seeds=next(iter(claim.studies.values())).seeds)
    else:
        define_run_flags()
    run_program(lambda argv: _main([claim], Path(flags.FLAGS.workdir) / claim.name / "claim", claim.title))


def run_all(claims: Sequence[Claim]) -> None:
    """The whole program of `experiments.claims`."""
    names = ", ".join(claim.name for claim in claims)
    define_run_flags()
    define_sweep_flags(seeds=None)
    flags.DEFINE_list("only", [], f"test only these claims, separated by commas; all by default: {names}")
    flags.DEFINE_bool("report_only", False, "run nothing: write the page from the runs that exist, complete or not")
    flags.DEFINE_string("output", "", "folder for claims.html, claims.md and figures; WORKDIR/claims by default")
    run_program(lambda argv: _main_of_all(claims))


def _main_of_all(claims: Sequence[Claim]) -> int:
    only, folder = flags.FLAGS.only, Path(flags.FLAGS.output or Path(flags.FLAGS.workdir) / "claims")
    known = [claim.name for claim in claims]
    for name in only:
        if name not in known:
            raise UserError(f"--only={name}: no such claim; expected some of {', '.join(known)}")
    chosen = [claim for claim in claims if not only or claim.name in only]
    return _main(chosen, folder / "claims", TITLE, images="claims/")


def _main(claims: Sequence[Claim], page: Path, title: str, images: str = "") -> int:
    layouts = {claim.name: {name: lay_out(study) for name, study in claim.studies.items()} for claim in claims}
    everything = [layout for of_claim in layouts.values() for layout in of_claim.values()]
    if "dry_run" in flags.FLAGS and flags.FLAGS.dry_run:
        for layout in everything:
            layout.show_plan()
        return 0
    judged = {claim.name: _judged(claim, reason="its runs are not done yet") for claim in claims}
    failures = 0
    for claim in claims:
        print(f"\n== {claim.title} ({claim.name})\n", flush=True)
        one, failed = _judge(claim, layouts[claim.name], folder=page.parent, images=images)
        judged[claim.name], failures = one, failures + failed
        print("\n- ".join([one.verdict, *one.others, *one.beside]))
        # The page is written after each claim, so that it can be read before a long run ends.
        _write_pages(page, title, list(judged.values()), everything)
    print("\n" + "\n".join(f"{one.word or 'not judged':<14}{one.claim.title}" for one in judged.values()))
    print(f"page: {page}.html")
    complete = all(one.findings for one in judged.values())
    return 1 if failures or not (complete or _report_only()) else 0


def _report_only() -> bool:
    return "report_only" in flags.FLAGS and flags.FLAGS.report_only


def _judge(claim: Claim, layouts: Mapping[str, Layout], *, folder: Path, images: str) -> tuple[JudgedClaim, int]:
    """Does the missing runs, measures, judges and draws; also returns how many runs failed.

    Figures are saved in `folder`, in the subfolder `images` if it is not empty.
    """
    first = next(iter(layouts.values()), None)
    if _report_only() and first is not None and first.missing() == len(first.sweep.configs):
        return _judged(claim, reason=f"none of its {first.missing()} runs is done"), 0
    failed = 0 if _report_only() else _do_missing(claim, layouts)
    runs = {}
    for name, layout in layouts.items():
        measured = layout.measured(only_kept=_report_only())
        runs[name] = studies.StudyRuns(layout.grid.arms, layout.frame(), measured, len(layout.sweep.configs))
    facts = tuple(studies.evidence.facts(runs))
    try:
        findings, figures = tuple(claim.judge(**runs)), tuple(claim.figures(**runs))
    except UserError as error:
        return _judged(claim, reason=str(error)), failed
    unfinished = any(one.unfinished() for one in runs.values())
    if unfinished and studies.verdict.overall(findings) == studies.verdict.NOT_SHOWN:
        # "Not shown" would be a statement about runs that do not exist.
        return _judged(claim, reason=f"some arms have no run yet ({'; '.join(facts)})"), failed
    files = {figure.name: f"{images}{claim.name}-{figure.name}.png" for figure in figures}
    for figure in figures:
        analysis.plots.theme.save(figure.draw(theme="light"), folder / files[figure.name])
    return _judged(claim, findings=findings, figures=figures, image_files=files, facts=facts), failed


def _do_missing(claim: Claim, layouts: Mapping[str, Layout]) -> int:
    """Does the missing runs and writes the studies' tables; returns how many runs failed."""
    failed = 0
    for position, (name, layout) in enumerate(layouts.items()):
        failed += do(layout)
        try:
            studies.write_answer(layout, suffix=f"-{name}" if position else "", show=False)
        except UserError as error:  # some arm has no finished run: the claim is judged without its table
            print(f"{claim.name}: no table: {error}", file=sys.stderr)
    return failed


def _judged(claim: Claim, **told: Any) -> JudgedClaim:
    quick = " --quick" if flags.FLAGS.quick else ""
    return studies.JudgedClaim(claim, f"python -m experiments.{claim.name}{quick}", **told)


def _write_pages(path: Path, title: str, judged: Sequence[JudgedClaim], layouts: Iterable[Layout]) -> None:
    frames = [layout.frame() for layout in layouts]
    made_on = studies.machines(studies.evidence.together(frames)) if frames else "this machine"
    command = shlex.join(["python", "-m", f"experiments.{Path(sys.argv[0]).stem}", *_public_flags()])
    intro = f"{_QUICK_INTRO}\n\n{_INTRO}" if flags.FLAGS.quick else _INTRO
    for write, suffix in ((studies.page.claims_html, ".html"), (studies.page.claims_markdown, ".md")):
        write_text_atomic(path.with_suffix(suffix), write(title, intro, judged, made_on, command))


def _public_flags() -> list[str]:
    """The flags on the command line, without the user's own folders."""
    private = ("data_dir", "workdir", "output", "report_only")
    return [word for word in sys.argv[1:] if not word.lstrip("-").startswith(private)]
