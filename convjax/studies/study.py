"""The machinery of the ablation scripts: flags, grid, sweep, table and report of one question."""

import dataclasses
import functools
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from convjax.config import FIELD_NAMES, MODEL_FIELDS, RunConfig, fields_without_effect
from convjax.errors import UserError
from convjax.flags import QUICK, define_model_flags, define_run_flags, options_from_flags, run_program
from convjax.sweeps.grid import Arm, Grid, Match, make_grid, product

if TYPE_CHECKING:
    import pandas

    from convjax.sweeps.display import SweepDisplay
    from convjax.sweeps.measurements import Measurement
    from convjax.sweeps.runner import Sweep, SweepOptions


@dataclasses.dataclass(frozen=True)
class Study:
    """One question and the arms that answer it.

    Attributes:
      name: the experiment's, which names its folder in the store.
      question: what is asked, in a sentence.
      reading: how to read the answer: what the arms share, what they confound, what would change the answer.
      axes: fields and their values; the arms are all combinations. A flag of that name replaces an axis's values.
      arms: arms that are no such product, in place of `axes`.
      baseline: fields and values of the arm that the others are compared with; empty for the first.
      base: fields in which all arms differ from the chapter's run; flags replace them too.
      match: `params` or `flops`: what all arms are given as much of as the baseline has, unless --match says otherwise.
      seeds: how many, unless --seeds says otherwise.
      quick: fields, as flags would give them, that --quick sets besides its own.
      quick_arms: arms in place of `arms` under --quick, where those are too many or too large.
      measurements: what is measured on every trained network.
      details: text about the arms to print before they run.
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
    measurements: Sequence["Measurement"] = ()
    details: Callable[[Sequence[Arm]], str] | None = None


def run(study: Study) -> None:
    """The whole program of an ablation script."""
    define_flags(seeds=study.seeds, match=study.match)
    run_program(lambda argv: _main(study))


def define_flags(*, seeds: int, match: Match = "") -> None:
    """Defines the flags of a study: what its arms share, how they are run, and what to run of them."""
    define_model_flags(grid=True, skip=("seed",))
    define_run_flags()
    define_sweep_flags(seeds=seeds)
    flags.DEFINE_enum(
        "match",
        match,
        ["", "params", "flops"],
        "scale the channels (dense nets: the units) of every arm so that it has the baseline's parameters or FLOPs",
    )
    flags.DEFINE_bool("skip_invalid", False, "leave impossible arms out; the default is to stop")


def define_sweep_flags(*, seeds: int | None) -> None:
    """Defines the flags that say how runs are done; `seeds` None leaves their number to each study."""
    flags.DEFINE_integer("seeds", seeds, "seeds 0 to N-1 of every arm", 1)
    flags.DEFINE_integer("seed", 0, "the first seed", 0)
    flags.DEFINE_enum("executor", "local", ["local", "ray"], "where runs are done: here, or on a Ray cluster")
    flags.DEFINE_enum(
        "seed_mode",
        "auto",
        ["auto", "serial", "vmap", "processes"],
        "one run after another, all runs that one program fits at once, or worker processes; the numbers are the same",
    )
    flags.DEFINE_integer("lanes", 32, "runs that --seed_mode=vmap trains at once on each device", 1)
    flags.DEFINE_integer("jobs", 0, "worker processes of --seed_mode=processes; 0 for two", 0)
    flags.DEFINE_string("ray_address", "auto", "the Ray cluster")
    flags.DEFINE_float("ray_cpus", 1.0, "CPUs a run asks of the Ray cluster", 0.0)
    flags.DEFINE_float("ray_gpus", 0.0, "GPUs a run asks of the Ray cluster", 0.0)
    flags.DEFINE_bool("dry_run", False, "show the plan and stop")


def arms_from_flags(study: Study) -> tuple[RunConfig, list[dict[str, str]]]:
    """What all arms share, and the arms: the study's, as changed by the flags that the user gave.

    Raises:
      UserError: an impossible value, or a flag for a field that the study's arms set themselves.
    """
    quick = {**QUICK, **study.quick} if flags.FLAGS.quick else {}
    base: dict[str, str | int | float] = {**study.base, "seed": 0}
    axes = {name: list(values) for name, values in study.axes.items()}
    own_arms = (study.quick_arms if quick else ()) or study.arms
    set_by_arms = {name for arm in own_arms for name in arm}
    for name in FIELD_NAMES:
        if name == "seed":
            continue
        if name in flags.FLAGS and flags.FLAGS[name].present:
            given = str(flags.FLAGS[name].value)
            if name in set_by_arms:
                raise UserError(
                    f"--{name} is what the arms of this experiment set; use experiments.grid for other arms"
                )
        elif name in quick and name not in set_by_arms and (name not in axes or name in study.quick):
            given = str(quick[name])
        else:
            continue
        values = [value.strip() for value in given.split(",")]
        # In the arms, a value for every model outlasts the change of model that would bring in the model's own.
        of_every_model = name in MODEL_FIELDS and "model" in set_by_arms | axes.keys()
        if name in axes or len(values) > 1 or of_every_model:
            axes[name] = values
        else:
            base[name] = values[0]
    if "model" in set_by_arms | set(axes) and "dense_units" in base:
        # Each network has hidden units of its own, but for those that somebody asked for.
        axes["dense_units"] = [str(base.pop("dense_units"))]
    arms = [{**arm, **combination} for arm in (own_arms or [{}]) for combination in product(axes)]
    # A value for every model is none for a model that has no such thing.
    shared = axes.keys() & set(MODEL_FIELDS) if "model" in set_by_arms | axes.keys() else set()
    for arm in arms:
        for name in shared & set(fields_without_effect(arm["model"])) if "model" in arm else ():
            del arm[name]
    return RunConfig(**base), arms


def _baseline(study: Study, arms: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The baseline's fields: the study's where there is such an arm, else the first arm's."""
    wanted = {name: str(value) for name, value in study.baseline.items()}
    if wanted and any(all(arm.get(name, value) == value for name, value in wanted.items()) for arm in arms):
        return wanted
    return dict(arms[0])


@dataclasses.dataclass(frozen=True)
class Layout:
    """A study as the flags would have it: its arms, its runs and how they are done."""

    study: Study
    grid: Grid
    sweep: "Sweep"
    how: "SweepOptions"
    baseline: Mapping[str, str]

    def show_plan(self) -> None:
        """Prints the question, the arms and what is left to do."""
        print(self.study.question)
        _print_arms(self.grid, self.study)
        _print_notes(self.sweep)
        print(_display(self.sweep, self.grid).plan(), flush=True)

    def missing(self) -> int:
        """How many runs are not done."""
        return sum(self.sweep.status(config)[0] in ("todo", "failed") for config in self.sweep.configs)

    def frame(self) -> "pandas.DataFrame":
        """Its runs, see `convjax.sweeps.frame.read_runs`; empty before anything has run."""
        from convjax.sweeps.frame import read_runs

        folder = Path(self.sweep.options.workdir) / self.study.name
        folder.mkdir(parents=True, exist_ok=True)
        frame = read_runs([folder])
        return frame[frame["digest"].isin({config.digest for config in self.sweep.configs})]

    def measured(self, *, only_kept: bool = False) -> dict[str, dict[str, Any]]:
        """What the study measures on each finished run, by the run's digest.

        What was not measured before is measured now, unless `only_kept`.
        """
        from convjax.sweeps.measurements import kept, measure

        found, wanted = {}, self.study.measurements
        for config in self.sweep.configs if wanted else ():
            run = self.sweep.run(config)
            if self.sweep.status(config)[0] == "done":
                found[config.digest] = kept(run, wanted) if only_kept else measure(run, wanted, self.sweep.options)
        return found


def lay_out(study: Study) -> Layout:
    """The study as the flags would have it. Nothing runs.

    Raises:
      UserError: impossible flags, or impossible arms without --skip_invalid.
    """
    from convjax import data
    from convjax.sweeps.runner import Sweep, SweepOptions

    values = flags.FLAGS
    base, arms = arms_from_flags(study)
    baseline = _baseline(study, arms)
    reference = next(arm for arm in arms if all(arm.get(name, value) == value for name, value in baseline.items()))
    match = values.match if "match" in values and values["match"].present else study.match
    image_info = functools.partial(data.image_info, data_dir=values.data_dir)
    grid = make_grid(base, arms, image_info, match=match, reference=reference)
    if grid.invalid:
        for arm in grid.invalid:
            print(f"impossible: {arm.label}: {arm.reason}", file=sys.stderr)
        if not ("skip_invalid" in values and values.skip_invalid):
            grid.require_valid()
    if not grid.arms:
        raise UserError("no arm is possible; see the reasons above")

    given = values["seeds"].present
    count = values.seeds if given else 2 if values.quick else study.seeds
    seeds = range(values.seed, values.seed + count)
    options = options_from_flags()
    sweep = Sweep(study.name, tuple(tuple(arm.runs(seeds)) for arm in grid.arms), options)
    how = SweepOptions(
        values.executor,
        values.seed_mode,
        values.jobs,
        values.lanes,
        values.ray_address,
        values.ray_cpus,
        values.ray_gpus,
    )
    return Layout(study, grid, sweep, how, baseline)


def _main(study: Study) -> int:
    layout = lay_out(study)
    if flags.FLAGS.dry_run:
        layout.show_plan()
        return 0
    failed = do(layout)
    if failed == len(layout.sweep.configs):
        print(f"every run failed ({layout.sweep.status(layout.sweep.configs[0])[1]})", file=sys.stderr)
        return 1
    write_answer(layout)
    layout.measured()
    return 1 if failed else 0


def do(layout: Layout) -> int:
    """Runs what is not done, showing how it goes, and returns how many runs failed."""
    from convjax.sweeps.runner import run_sweep

    sweep, grid = layout.sweep, layout.grid
    print(layout.study.question)
    _print_arms(grid, layout.study)
    _print_notes(sweep)
    display = _display(sweep, grid)
    try:
        print(display.plan(), flush=True)
        run_sweep(sweep, layout.how, display)
    finally:
        display.close()
    failed = sum(sweep.status(config)[0] == "failed" for config in sweep.configs)
    if failed:
        print(f"{failed} of {len(sweep.configs)} runs failed; the same command tries them again", file=sys.stderr)
    return failed


def _print_arms(grid: Grid, study: Study) -> None:
    width = max(len(arm.label) for arm in grid.arms)
    for arm in grid.arms:
        field = "channels" if arm.config.layer_channels else "dense_units"
        size = "" if field in dict(arm.overrides) else f"  {field} {getattr(arm.config, field)}"
        print(f"  {arm.label:<{width}}  {arm.parameters:>11,} parameters  {arm.flops:>13,} FLOPs{size}")
    if study.details is not None:
        print(study.details(grid.arms))


def _print_notes(sweep: "Sweep") -> None:
    from convjax.sweeps.runner import data_notes

    for line in data_notes(sweep):
        print(line)


def _display(sweep: "Sweep", grid: Grid) -> "SweepDisplay":
    from convjax.sweeps.display import Cost, SweepDisplay
    from convjax.sweeps.run import load_dataset

    labels, costs = {}, {}
    for arm, configs in zip(grid.arms, sweep.arms, strict=True):
        dataset = load_dataset(arm.config.dataset, sweep.options.data_dir, 0, 0, **arm.config.data_settings)
        examples = len(dataset.train.labels)
        for config in configs:
            labels[config] = f"{arm.label} seed {config.seed}"
            costs[config] = Cost.of(config, arm.flops, examples)
    return SweepDisplay(sweep, labels, costs, progress=flags.FLAGS.progress)


def write_answer(layout: Layout, *, suffix: str = "", show: bool = True) -> None:
    """Writes table.md and report.html beside the runs (with `suffix` before the dot), and prints the table."""
    from convjax.analysis.render import to_markdown, to_text
    from convjax.analysis.report.report import write_report
    from convjax.analysis.tables import accuracy_table
    from convjax.files import write_text_atomic

    study, sweep, grid, baseline = layout.study, layout.sweep, layout.grid, layout.baseline
    folder = Path(sweep.options.workdir) / study.name
    frame = layout.frame()
    by = list(dict.fromkeys(name for arm in grid.arms for name, _ in arm.overrides))
    # Asked for as an axis, data sets are listed side by side; arms are compared within each.
    several_datasets = "dataset" in by
    table = accuracy_table(frame, by, baseline=baseline, allow_mixed_data=several_datasets)
    if show:
        print(to_text(table, width=_terminal_width()))
    command = shlex.join(["python", "-m", f"experiments.{study.name}", *sys.argv[1:]])
    details = "" if study.details is None else study.details(grid.arms)
    page = [
        f"# {study.name.replace('_', ' ').capitalize()}",
        study.question,
        f"```bash\n{command}\n```",
        to_markdown(table).strip(),
        f"How to read it: {study.reading}",
        f"```\n{details}\n```" if details else "",
        f"Made on {machines(frame)}.",
    ]
    table_path, report = folder / f"table{suffix}.md", folder / f"report{suffix}.html"
    write_text_atomic(table_path, "\n\n".join(filter(None, page)) + "\n")
    write_report(
        report,
        frame,
        title=study.name.replace("_", " "),
        question=study.question,
        reading=study.reading,
        commands=[command],
        by=by,
        baseline=baseline,
        details=details,
        allow_mixed_data=several_datasets,
    )
    if show:
        print(f"table: {table_path}\nreport: {report}")


def machines(frame: "pandas.DataFrame") -> str:
    """The machines, versions and revisions that the runs name."""
    from convjax.sweeps.store import Run

    made = set()
    for path in frame["path"]:
        config = Run(Path(path)).config() or {}
        if "versions" in config:
            processor = config.get("processor", "CPU") if config["backend"] == "cpu" else ", ".join(config["devices"])
            versions, revision = config["versions"], config["git_revision"] or "unknown"
            revision = revision[:12] + "+" * revision.endswith("+")
            made.add(
                f"{config['backend']} ({processor}, {config['cpus']} CPUs), Python {versions['python']}, JAX "
                f"{versions['jax']}, revision {revision}"
            )
    return "; ".join(sorted(made)) or "an unknown machine"


def _terminal_width() -> int:
    try:
        return max(80, os.get_terminal_size().columns)
    except OSError:
        return 160
