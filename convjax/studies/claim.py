"""Claims of the chapter, tested: studies are run, their trained networks measured, and a verdict drawn from numbers."""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from convjax.errors import UserError
from convjax.flags import define_run_flags, run_program
from convjax.studies.study import Layout, Study, define_flags, define_sweep_flags, do, lay_out, machines, write_answer

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure, JudgedClaim
    from convjax.studies.verdict import Finding

TITLE = "The chapter's claims, measured"
_INTRO = (
    "What the chapter says, each sentence with an experiment that could have shown it false, and a verdict that the "
    "numbers choose: supported where the whole 95 % interval of every deciding effect lies on the claimed side, "
    "contradicted where one lies wholly on the other, else not shown. Effects are means over seeds, paired by seed "
    "where two networks are compared."
)
_QUICK_INTRO = (
    "This is a smoke run (--quick): few seeds, small data, hardly any training. Its verdicts show that the machinery "
    "works and nothing else."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the chapter and what tests it.

    Attributes:
      name: its script's, `experiments/NAME.py`, and its folder's in the store.
      title: a few words.
      section: heading of the chapter under which the sentence stands.
      quote: the sentence.
      studies: what is run, by names of the claim's own; none where arithmetic settles it. Their arms are so chosen that
        the claim could fail.
      judge: from what was measured to findings. Pure.
      figures: draws what was measured, in a theme of `convjax.analysis.plots.theme`. Pure.
      would_change: a paragraph on what would change the verdict.
    """

    name: str
    title: str
    section: str
    quote: str
    studies: Mapping[str, Study]
    judge: Callable[["Evidence"], Sequence["Finding"]]
    figures: Callable[["Evidence", str], Sequence["ClaimFigure"]]
    would_change: str


def run(claim: Claim) -> None:
    """The whole program of a claim's script."""
    studies = list(claim.studies.values())
    if studies:
        define_flags(seeds=studies[0].seeds)
    else:
        define_run_flags()
    run_program(lambda argv: _main_of_one(claim))


def run_all(claims: Sequence[Claim]) -> None:
    """The whole program of `experiments.claims`."""
    names = ", ".join(claim.name for claim in claims)
    define_run_flags()
    define_sweep_flags(seeds=None)
    flags.DEFINE_list("only", [], f"the claims to test, joined by commas; all by default: {names}")
    flags.DEFINE_bool(
        "report_only", False, "run nothing: write the page from the runs that there are, be they all or not"
    )
    flags.DEFINE_string("output", "", "folder for claims.html, claims.md and figures; WORKDIR/claims by default")
    run_program(lambda argv: _main_of_all(claims))


def _main_of_one(claim: Claim) -> int:
    layouts = _lay_out(claim)
    if layouts and flags.FLAGS.dry_run:
        for layout in layouts.values():
            layout.show_plan()
        return 0
    judged, failed = _judge(claim, layouts, folder=Path(flags.FLAGS.workdir) / claim.name, images="")
    _print(judged)
    _write_pages(Path(flags.FLAGS.workdir) / claim.name, "claim", claim.title, [judged], layouts.values())
    return 1 if failed or not judged.findings else 0


def _main_of_all(claims: Sequence[Claim]) -> int:
    values = flags.FLAGS
    known = {claim.name: claim for claim in claims}
    for name in values.only:
        if name not in known:
            raise UserError(f"--only={name}: no such claim; expected some of {', '.join(known)}")
    chosen = [claim for claim in claims if not values.only or claim.name in values.only]
    layouts = {claim.name: _lay_out(claim) for claim in chosen}
    everything = [layout for of_claim in layouts.values() for layout in of_claim.values()]
    if values.dry_run:
        for layout in everything:
            layout.show_plan()
        return 0
    folder = Path(values.output or Path(values.workdir) / "claims")
    done: dict[str, JudgedClaim] = {}
    failures = 0
    for claim in chosen:
        print(f"\n== {claim.title} ({claim.name})\n", flush=True)
        done[claim.name], failed = _judge(claim, layouts[claim.name], folder=folder, images="claims/")
        failures += failed
        _print(done[claim.name])
        # After each claim, so that a long run's page can be read before its end.
        shown = [done.get(other.name) or _unjudged(other, "its runs are not done yet") for other in chosen]
        _write_pages(folder, "claims", TITLE, shown, everything)
    print("\n" + "\n".join(f"{judged.word or 'not judged':<14}{judged.title}" for judged in done.values()))
    print(f"page: {folder / 'claims.html'}")
    missing = [judged for judged in done.values() if not judged.findings]
    return 1 if failures or (missing and not values.report_only) else 0


def _lay_out(claim: Claim) -> dict[str, Layout]:
    return {name: lay_out(study) for name, study in claim.studies.items()}


def _judge(claim: Claim, layouts: Mapping[str, Layout], *, folder: Path, images: str) -> tuple["JudgedClaim", int]:
    """Runs what is not done, measures, judges and draws; also how many runs failed."""
    from convjax.analysis.plots.theme import save
    from convjax.studies.evidence import Evidence, StudyRuns
    from convjax.studies.verdict import NOT_SHOWN, overall

    report_only = "report_only" in flags.FLAGS and flags.FLAGS.report_only
    failed = 0
    runs = {}
    for position, (name, layout) in enumerate(layouts.items()):
        if report_only:
            if not position and layout.missing() == len(layout.sweep.configs):
                return _unjudged(claim, f"none of its {layout.missing()} runs is done"), 0
        else:
            failed += do(layout)
        suffix = f"-{name}" if position else ""
        frame = layout.frame()
        if not report_only:
            try:
                write_answer(layout, suffix=suffix, show=False)
            except UserError as error:  # no run of some arm was done: the claim is judged without its table
                print(f"{claim.name}: no table: {error}", file=sys.stderr)
        runs[name] = StudyRuns(
            layout.grid.arms, frame, layout.measured(only_kept=report_only), len(layout.sweep.configs)
        )
    evidence = Evidence(runs)
    try:
        findings = tuple(claim.judge(evidence))
        drawn = {theme: tuple(claim.figures(evidence, theme)) for theme in ("light", "page")}
    except UserError as error:
        return _unjudged(claim, str(error)), failed
    if overall(findings) == NOT_SHOWN and evidence.unfinished():
        # That nothing is shown would be said of runs that are not there.
        return _unjudged(claim, f"some arms have no run yet ({'; '.join(evidence.facts())})"), failed
    files = {}
    for figure in drawn["light"]:
        files[figure.name] = f"{images}{claim.name}-{figure.name}.png"
        save(figure.figure, folder / files[figure.name])
    judged = dataclasses.replace(
        _unjudged(claim, ""),
        findings=findings,
        page_figures=drawn["page"],
        image_files=files,
        facts=tuple(evidence.facts()) if layouts else (),
    )
    return judged, failed


def _unjudged(claim: Claim, reason: str) -> "JudgedClaim":
    from convjax.studies.page import JudgedClaim

    quick = " --quick" if flags.FLAGS.quick else ""
    return JudgedClaim(
        name=claim.name,
        title=claim.title,
        section=claim.section,
        quote=claim.quote,
        would_change=claim.would_change,
        findings=(),
        reason=reason,
        page_figures=(),
        image_files={},
        facts=(),
        command=f"python -m experiments.{claim.name}{quick}",
    )


def _write_pages(
    folder: Path, name: str, title: str, judged: Sequence["JudgedClaim"], layouts: Sequence[Layout]
) -> None:
    import pandas

    from convjax.files import write_text_atomic
    from convjax.studies.page import claims_html, claims_markdown

    frames = [layout.frame() for layout in layouts]
    made_on = machines(pandas.concat(frames, ignore_index=True)) if frames else "this machine"
    program = Path(sys.argv[0]).stem
    command = shlex.join(["python", "-m", f"experiments.{program}", *_told_flags()])
    intro = f"{_QUICK_INTRO}\n\n{_INTRO}" if flags.FLAGS.quick else _INTRO
    for write, suffix in ((claims_html, "html"), (claims_markdown, "md")):
        write_text_atomic(folder / f"{name}.{suffix}", write(title, intro, judged, made_on, command))


def _told_flags() -> list[str]:
    """The flags that were typed, without the folders of the user's own."""
    private = ("data_dir", "workdir", "output", "report_only")
    return [word for word in sys.argv[1:] if not word.lstrip("-").startswith(private)]


def _print(judged: "JudgedClaim") -> None:
    print(judged.verdict)
    for sentence in (*judged.others, *judged.beside):
        print(f"- {sentence}")
