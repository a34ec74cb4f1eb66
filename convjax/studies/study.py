"""Study: one question, the arms that answer it, and the program that runs them and writes the answer.

Scripts in `experiments/` declare a `Study` and call `run`. The flags turn it into a `Layout`: arms (`sweeps.grid`),
runs (`sweeps.Sweep`) and how to do them. `do` does the runs that have no result yet; `answer.write_answer` reads the
store and writes the table and the report.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from convjax import data, studies, sweeps
from convjax.config import FIELD_NAMES, MODEL_FIELDS, RunConfig, fields_without_effect
from convjax.errors import UserError
from convjax.flags import (
    QUICK,
    define_flags_of,
    define_model_flags,
    define_run_flags,
    options_from_flags,
    run_program,
)
from convjax.sweeps.grid import Arm, Grid, Match, make_grid, product
from convjax.sweeps.options import SweepOptions

if TYPE_CHECKING:
    import pandas

    from convjax.sweeps import Cost, Measurement, Sweep, SweepDisplay


@dataclasses.dataclass(frozen=True)
class Study:
    """One question and the arms that answer it.

    Attributes:
      name: of the experiment, and of its folder in the store.
      question: in one sentence.
      reading: how to read the answer: what the arms share, what they confound, what would change the answer.
      axes: fields and their values; the arms are all combinations. A flag of that name replaces an axis's values.
      arms: arms that are not a product, in place of `axes`.
      baseline: fields and values of the arm that the others are compared with; the first by default.
      base: fields in which all arms differ from the chapter's run; flags replace them too.
      match: `params` or `flops`: scales all arms to the baseline's parameters or FLOPs; --match replaces it.
      seeds: how many; --seeds replaces it.
      quick: fields, in the notation of flags, that --quick sets besides its own.
      quick_arms: arms in place of `arms` under --quick, where those are too many or too large.
      measurements: what is measured on every trained network.
      details: text about the arms that is printed before they run.
    """

    name: str
    question: str
    reading: str
    axes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    arms: Sequence[Mapping[str, str]] = ()
    baseline: Mapping[str, str] = dataclasses.field(default_factory=dict)
    base: Mapping[str, str | int | float] = dataclasses.field(default_factory=dict)
    match: Match = ""
    seeds: int = 5
    quick: Mapping[str, str | int | float] = dataclasses.field(default_factory=dict)
    quick_arms: Sequence[Mapping[str, str]] = ()
    measurements: Sequence[Measurement] = ()
    details: Callable[[Sequence[Arm]], str] | None = None


def run(study: Study) -> None:
    """The whole program of an ablation script."""
    define_flags(seeds=study.seeds, match=study.match)
    run_program(lambda argv: _main(study))


def _main(study: Study) -> int:
    layout = lay_out(study)
    if flags.FLAGS.dry_run:
        layout.show_plan()
        return 0
    failed = do(layout)
    if failed == len(layout.sweep.configs):
        print(f"every run failed ({layout.sweep.status(layout.sweep.configs[0])[1]})", file=sys.stderr)
        return 1
    studies.write_answer(layout)
    layout.measured()
    return 1 if failed else 0


def define_flags(*, seeds: int, match: Match = "") -> None:
    """Defines the flags of a study: what its arms share, how they are run, and which runs."""
    define_model_flags(grid=True, skip=("seed",))
    define_run_flags()
    define_sweep_flags(seeds=seeds)
    flags.DEFINE_enum(
        "match",
        match,
        ["", "params", "flops"],
        "scale the channels (dense nets: the units) of every arm so that it has the baseline's parameters or FLOPs",
    )
    flags.DEFINE_bool("skip_invalid", False, "leave impossible arms out; by default they are an error")


def define_sweep_flags(*, seeds: int | None) -> None:
    """Defines the flags of `SweepOptions` and of the seeds; `seeds` None leaves their number to each study."""
    define_flags_of(SweepOptions)
    flags.DEFINE_alias("lanes", "replicas")  # its name in 0.1.0
    flags.DEFINE_integer("seeds", seeds, "seeds 0 to N-1 of every arm", 1)
    flags.DEFINE_integer("seed", 0, "the first seed", 0)
    flags.DEFINE_bool("dry_run", False, "show the plan and stop")


def arms_from_flags(study: Study) -> tuple[RunConfig, list[dict[str, str]]]:
    """What all arms share, and the arms: the study's, changed by the flags that the user gave.

    Raises:
      UserError: an impossible value, or a flag for a field that the study's arms set themselves.
    """
    own_arms = (study.quick_arms if flags.FLAGS.quick else ()) or study.arms
    set_by_arms = {name for arm in own_arms for name in arm}
    given = _given_values(study, set_by_arms)
    base: dict[str, str | int | float] = {**study.base, "seed": 0}
    axes = {name: list(values) for name, values in study.axes.items()}
    models_vary = "model" in set_by_arms | axes.keys() or len(given.get("model", ())) > 1
    for name, values in given.items():
        # As an axis, a value given for all models survives the change of model, which resets the model's own fields.
        if name in axes or len(values) > 1 or (models_vary and name in MODEL_FIELDS):
            axes[name] = values
        else:
            base[name] = values[0]
    if models_vary and "dense_units" in base:
        # Each model has hidden units of its own, unless the study asks for these.
        axes["dense_units"] = [str(base.pop("dense_units"))]
    arms = [{**arm, **combination} for arm in (own_arms or [{}]) for combination in product(axes)]
    if models_vary:
        # A value given for all models is dropped where a model has no such field.
        for arm in arms:
            for name in axes.keys() & set(MODEL_FIELDS) & set(fields_without_effect(arm["model"])):
                del arm[name]
    return RunConfig.from_dict(base), arms


def _given_values(study: Study, set_by_arms: set[str]) -> dict[str, list[str]]:
    """The values of the fields that the user's flags give, or --quick; a comma separates several."""
    quick = {**QUICK, **study.quick} if flags.FLAGS.quick else {}
    given: dict[str, str] = {}
    for name in FIELD_NAMES:
        if name != "seed" and name in flags.FLAGS and flags.FLAGS[name].present:
            if name in set_by_arms:
                raise UserError(
                    f"--{name} is what the arms of this experiment set; use experiments.grid for other arms"
                )
            given[name] = str(flags.FLAGS[name].value)
        elif name in quick and name not in set_by_arms and (name not in study.axes or name in study.quick):
            given[name] = str(quick[name])
    return {name: [value.strip() for value in text.split(",")] for name, text in given.items()}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A study as the flags describe it: its arms, its runs, how they are done, and the baseline's fields."""

    study: Study
    grid: Grid
    sweep: Sweep
    how: SweepOptions
    baseline: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where the runs and the answer are."""
        return Path(self.sweep.options.workdir) / self.study.name

    @functools.cached_property
    def details(self) -> str:
        """The study's text about its arms."""
        return "" if self.study.details is None else self.study.details(self.grid.arms)

    def show_plan(self) -> SweepDisplay:
        """Prints the question, the arms and what is left to do; returns the display that printed it."""
        print(self.study.question)
        arms = self.grid.arms
        width = max(len(arm.label) for arm in arms)
        for arm in arms:
            field = "channels" if arm.config.layer_channels else "dense_units"
            size = "" if field in dict(arm.overrides) else f"  {field} {getattr(arm.config, field)}"
            print(f"  {arm.label:<{width}}  {arm.parameters:>11,} parameters  {arm.flops:>13,} FLOPs{size}")
        for text in (self.details, *sweeps.data_notes(self.sweep)):
            if text:
                print(text)
        display = self._display()
        print(display.plan(), flush=True)
        return display

    def _display(self) -> SweepDisplay:
        labels: dict[RunConfig, str] = {}
        costs: dict[RunConfig, Cost] = {}
        for arm, configs in zip(self.grid.arms, self.sweep.arms, strict=True):
            dataset = sweeps.whole_dataset_of(arm.config, self.sweep.options.data_dir)
            for config in configs:
                labels[config] = f"{arm.label} seed {config.seed}"
                costs[config] = sweeps.Cost.of(config, arm.flops, len(dataset.train.labels))
        return sweeps.SweepDisplay(self.sweep, labels, costs, progress=flags.FLAGS.progress)

    def missing(self) -> int:
        """How many runs are not done."""
        return sum(self.sweep.status(config)[0] in ("todo", "failed") for config in self.sweep.configs)

    def frame(self) -> pandas.DataFrame:
        """Its runs, one per row, see `sweeps.read_runs`; empty before anything has run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        frame = sweeps.read_runs([self.folder])
        return frame[frame["digest"].isin({config.digest for config in self.sweep.configs})]

    def measured(self, *, only_kept: bool = False) -> dict[str, dict[str, Any]]:
        """What the study measures on each finished run, by the run's digest.

        Missing measurements are made now, unless `only_kept`.
        """
        found: dict[str, dict[str, Any]] = {}
        wanted = self.study.measurements
        for config in self.sweep.configs if wanted else ():
            run = self.sweep.run(config)
            if self.sweep.status(config)[0] == "done":
                kept = sweeps.kept(run, wanted) if only_kept else sweeps.measure(run, wanted, self.sweep.options)
                found[config.digest] = kept
        return found


def lay_out(study: Study) -> Layout:
    """The study as the flags describe it. Nothing runs.

    Raises:
      UserError: impossible flags, or impossible arms without --skip_invalid.
    """
    values = flags.FLAGS
    base, arms = arms_from_flags(study)
    grid = make_grid(
        base,
        arms,
        functools.partial(data.image_info, data_dir=values.data_dir),
        match=values.match if "match" in values and values["match"].present else study.match,
        baseline={name: str(value) for name, value in study.baseline.items()},
    )
    for arm in grid.invalid:
        print(f"impossible: {arm.label}: {arm.reason}", file=sys.stderr)
    if not ("skip_invalid" in values and values.skip_invalid):
        grid.require_valid()
    if not grid.arms:
        raise UserError("no arm is possible; see the reasons above")
    count = values.seeds if values["seeds"].present else 2 if values.quick else study.seeds
    seeds = range(values.seed, values.seed + count)
    runs = tuple(tuple(arm.runs(seeds)) for arm in grid.arms)
    sweep = sweeps.Sweep(study.name, runs, options_from_flags())
    return Layout(study, grid, sweep, options_from_flags(SweepOptions), grid.baseline)


def do(layout: Layout) -> int:
    """Does the runs that have no result yet, shows their progress, and returns how many runs failed."""
    sweep = layout.sweep
    display = layout.show_plan()
    try:
        sweeps.run_sweep(sweep, layout.how, display)
    finally:
        display.close()
    failed = sum(sweep.status(config)[0] == "failed" for config in sweep.configs)
    if failed:
        print(f"{failed} of {len(sweep.configs)} runs failed; the same command tries them again", file=sys.stderr)
    return failed
