"""One run, from a RunConfig to a finished run directory. Here the side effects of training meet."""

import dataclasses
import functools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from convjax import data
from convjax.config import FOLDER, RunConfig
from convjax.errors import UserError
from convjax.files import disk_errors
from convjax.nn.geometry import total_flops, total_parameters
from convjax.sweeps.lock import Lock
from convjax.sweeps.store import Run

if TYPE_CHECKING:
    from convjax.training.divergence import Divergence
    from convjax.training.loop import EpochMetrics, Evaluation, Progress
    from convjax.training.steps import Task, TrainState


_GRACE_SECONDS = 4.0
_SAVE_SECONDS = 2.0
"""Epochs that are over sooner are not kept each: on a few dozen images a checkpoint would take longer than they do."""
_INTERRUPTED = 130
"""Exit code, as that of `convjax.flags`."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run, as against what: nothing here changes a run's numbers.

    Attributes:
      data_dir: see `convjax.data.load`.
      workdir: the store.
      resume: go on from a checkpoint; else what is there is set aside and the run starts anew.
      tensorboard: also write event files.
      keep_checkpoints: how many of the newest; 0 for all.
      checkpoint_minutes: also keep one within an epoch when the last is older than this; 0 for never.
      debug_nans: a loss that is not finite is an error, which names the operation that it came from.
      diagnostics: also measure the layers after each epoch, see `convjax.training.diagnostics`.
      devices: see `convjax.training.devices.choose`.
      processes: that train this run together, see `convjax.training.devices.join`.
      streaming, memory_limit: whether training images are streamed, see `convjax.training.feed.must_stream`.
    """

    data_dir: str = ""
    workdir: str = "runs"
    resume: bool = True
    tensorboard: bool = False
    keep_checkpoints: int = 2
    checkpoint_minutes: float = 10
    debug_nans: bool = False
    diagnostics: bool = True
    streaming: str = "auto"
    memory_limit: int = 0
    devices: str = "auto"
    processes: int = 1


class Reporter(Protocol):
    """What a run tells while it goes."""

    def message(self, text: str) -> None:
        """A line for the user."""

    def progress(self, progress: "Progress") -> None:
        """Some steps were done."""

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """An epoch is over."""


class Silent:
    """A Reporter that tells nothing."""

    def message(self, text: str) -> None:
        """See Reporter."""

    def progress(self, progress: "Progress") -> None:
        """See Reporter."""

    def epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """See Reporter."""


@functools.lru_cache(maxsize=2)
def load_dataset(name: str, data_dir: str, train_size: int, validation_size: int, **settings: Any) -> data.Dataset:
    """`convjax.data.load`, once for all runs of a process; `settings` are `RunConfig.data_settings`."""
    return data.load(name, data_dir, train_size=train_size, validation_size=validation_size, **settings)


def dataset_of(config: RunConfig, data_dir: str) -> data.Dataset:
    """The data of a run."""
    sizes = config.train_size, config.validation_size
    return load_dataset(config.dataset, data_dir, *sizes, **config.data_settings)


def require_same_data(run: Run, config: RunConfig, options: Options) -> None:
    """Refuses to take for a run's result, or to go on with, what was computed on other content of its folder.

    A configuration names a folder of images, and what is in the folder may change.

    Raises:
      UserError: naming the run.
    """
    if not (config.dataset.startswith(FOLDER) and options.resume):
        return
    try:
        written = run.config()
        begun = run.result() is not None or (run.path / "checkpoints").exists()
    except UserError:  # damaged, and set aside as soon as the run is locked
        return
    if not begun or written is None:
        return
    then, now = written.get("data", {}).get("fingerprint"), dataset_of(config, options.data_dir).fingerprint
    if then != now:
        raise UserError(
            f"{config.dataset} has changed since {run.path} was run on it (fingerprint {then} then, {now} now); "
            "--noresume runs it again and sets the old result aside"
        )


def require_validation(config: RunConfig, options: Options) -> None:
    """Refuses early stopping where there is nothing to tell when to stop; to be asked before any run starts.

    Raises:
      UserError: early stopping without validation images.
    """
    if config.early_stopping and dataset_of(config, options.data_dir).validation is None:
        raise UserError(
            f"--early_stopping={config.early_stopping} watches the loss on validation images, and there are none; "
            "hold some of the training images out, such as --validation_size=1000"
        )


def execute(
    configs: Sequence[RunConfig], experiment: str, options: Options, reporter: Reporter, *, locks: Sequence[Lock] = ()
) -> list[dict[str, Any]]:
    """Runs each of `configs` to its end, or goes on with it, and returns the results (each a result.json).

    Several configurations are trained at once; they may differ in what `convjax.sweeps.grid.program_of` leaves out. A
    run that is done is not run again. SIGINT and SIGTERM save a checkpoint and raise KeyboardInterrupt.

    Args:
      locks: of the runs, where the caller has them already.

    Raises:
      UserError: the configuration is impossible for the data.
      UnavailableError: the data cannot be had.
      Locked: another process works on one of the runs.
      DiskError: the store cannot be written to.
    """
    if options.processes > 1:
        from convjax.training import devices as parallel

        return parallel.together(lambda: _execute(configs, experiment, options, reporter, locks, parallel.share))
    return _execute(configs, experiment, options, reporter, locks, lambda make: make())


def _execute(
    configs: Sequence[RunConfig],
    experiment: str,
    options: Options,
    reporter: Reporter,
    locks: Sequence[Lock],
    share: Callable[[Callable[[], Any]], Any],
) -> list[dict[str, Any]]:
    """See `execute`. `share` is how all processes come to know what the first finds in the store."""
    runs = [Run.of(options.workdir, experiment, config) for config in configs]
    held = list(locks)
    with ExitStack() as stack:

        def lock() -> list[int]:
            """Which runs are to be trained; they are then ours."""
            for run, config in zip(runs, configs, strict=True):
                require_same_data(run, config, options)
            # A run that is done is read without a lock: its store may be read-only.
            if options.resume and all(run.is_done() for run in runs):
                return []
            held.extend(() if locks else [stack.enter_context(run.lock()) for run in runs])
            for run in runs:
                if not options.resume:
                    run.reset()
                elif (aside := run.mend()) is not None:
                    reporter.message(f"{run.path} was damaged: what cannot be used is in {aside.name}")
            return [index for index, run in enumerate(runs) if run.result() is None]

        stack.enter_context(disk_errors(options.workdir))
        todo = share(lock)
        if todo and _leads(options):
            _train([runs[index] for index in todo], [configs[index] for index in todo], options, reporter, held)
        elif todo:
            _follow([configs[index] for index in todo], options)
        results = share(lambda: [run.result() for run in runs])
    assert all(result is not None for result in results)
    return results


def _leads(options: Options) -> bool:
    """Whether this process is the only one, or the first of several."""
    if options.processes == 1:
        return True
    from convjax.training import devices as parallel

    return parallel.leads()


def _datasets(configs: Sequence[RunConfig], options: Options) -> list[data.Dataset]:
    """The data of each run; one object for those that have the same."""
    loaded = {config.train_size: config for config in configs}
    cut = {size: dataset_of(config, options.data_dir) for size, config in loaded.items()}
    return [cut[config.train_size] for config in configs]


def _tasks(configs: Sequence[RunConfig], datasets: Sequence[data.Dataset]) -> list["Task"]:
    from convjax.training.steps import Task

    return [
        Task.of(config, dataset.image_shape, dataset.num_classes, len(dataset.train.labels))
        for config, dataset in zip(configs, datasets, strict=True)
    ]


def _follow(configs: Sequence[RunConfig], options: Options) -> None:
    """The part of a process that is not the first in what `_train` does there: it computes and touches no store."""
    from convjax.training import backend, loop
    from convjax.training import devices as parallel
    from convjax.training.feed import must_stream

    backend.enable_compilation_cache()
    backend.require_precision(configs[0].precision)
    datasets = _datasets(configs, options)
    parallel.require_same_data(datasets[0].fingerprint)
    tasks = _tasks(configs, datasets)
    devices = parallel.choose(options.devices, runs=len(configs))
    streaming = parallel.share(lambda: must_stream(options.streaming, datasets[0].train, options.memory_limit))
    states = parallel.share_arrays([loop.initial_state(*pair) for pair in zip(configs, tasks, strict=True)])
    with _stop_requests() as should_stop:
        try:
            states = loop.fit(configs, datasets, states, devices=devices, streaming=streaming, should_stop=should_stop)
        except loop.Interrupted:
            raise KeyboardInterrupt from None
    for task, state, dataset in zip(tasks, states, datasets, strict=True):
        loop.evaluate(task, state.result_params, dataset.test, devices=devices)


def _train(
    runs: Sequence[Run],
    configs: Sequence[RunConfig],
    options: Options,
    reporter: Reporter,
    locks: Sequence[Lock],
) -> None:
    """Trains unfinished runs, vectorised where there are several, and writes their results."""
    import jax

    from convjax.training import backend, loop
    from convjax.training import devices as parallel
    from convjax.training.checkpoint import Checkpoints
    from convjax.training.diagnostics import layer_diagnostics
    from convjax.training.divergence import Divergence, first_nonfinite
    from convjax.training.feed import must_stream
    from convjax.training.steps import steps_per_epoch

    def hold() -> None:
        """Before a write: the runs must still be ours."""
        for lock in locks:
            lock.require()

    started = time.perf_counter()
    backend.enable_compilation_cache()
    backend.require_precision(configs[0].precision)
    clock = loop.Clock()
    common = configs[0]
    datasets = _datasets(configs, options)
    for note in datasets[0].details.get("notes", ()):
        reporter.message(f"{common.dataset}: {note}")
    require_validation(common, options)
    clock.data = time.perf_counter() - started
    tasks = _tasks(configs, datasets)
    task = tasks[0]
    steps = [steps_per_epoch(len(dataset.train.labels), common.batch_size) for dataset in datasets]
    devices = parallel.choose(options.devices, runs=len(configs))
    # The first process decides for all.
    share, share_arrays = (lambda make: make()), (lambda arrays: arrays)
    if options.processes > 1:
        share, share_arrays = parallel.share, parallel.share_arrays
        parallel.require_same_data(datasets[0].fingerprint)
    streaming = share(lambda: must_stream(options.streaming, datasets[0].train, options.memory_limit))
    environment = {"streaming": streaming, **backend.environment(), **devices.describe()}
    hold()
    for run, config, dataset in zip(runs, configs, datasets, strict=True):
        run.start(config, {"data": describe(dataset), **environment})

    with ExitStack() as stack:
        should_stop = stack.enter_context(_stop_requests())
        checkpoints = [Checkpoints(run.path, keep=options.keep_checkpoints or None) for run in runs]
        for each in checkpoints:
            stack.callback(each.close)
        like = jax.eval_shape(lambda: loop.initial_state(common, task))
        states = [
            each.restore(like, refuse=_without_metrics(run, count))
            for each, run, count in zip(checkpoints, runs, steps, strict=True)
        ]
        states = [
            loop.initial_state(config, task) if state is None else state
            for state, config in zip(states, configs, strict=True)
        ]
        states = share_arrays(states)
        resumed = [int(state.step) for state in states]
        for run, step in zip(runs, resumed, strict=True):
            run.keep_metrics(step)
        writers = [
            stack.enter_context(_event_writer(run, options, step)) for run, step in zip(runs, resumed, strict=True)
        ]
        earlier = [sum(line["seconds"] for line in run.metrics()) for run in runs]
        divergences: dict[int, Divergence] = {}
        pause = _Interval(60 * options.checkpoint_minutes)
        saves = [_Interval(_SAVE_SECONDS) for _ in runs]

        for step in sorted(set(resumed) - {0}):
            reporter.message(f"resuming at step {step:,}")

        def on_epoch(index: int, metrics: loop.EpochMetrics, state: Any) -> None:
            line = {name: value for name, value in dataclasses.asdict(metrics).items() if _is_known(value)}
            if options.diagnostics:
                train = datasets[index].train
                line |= clock.timed(
                    "eval",
                    functools.partial(layer_diagnostics, state.params, train.images, train.labels, task=task),
                )
            hold()
            runs[index].add_metrics(line)
            if saves[index].is_over() or not options.keep_checkpoints:
                checkpoints[index].save(state)
                saves[index].restart()
                pause.restart()
            writers[index](line)
            reporter.epoch(metrics, common.epochs)

        def on_pause(index: int, state: Any) -> None:
            hold()
            checkpoints[index].save(state)
            pause.restart()

        def on_divergence(index: int, divergence: Divergence) -> None:
            divergences[index] = divergence
            if options.debug_nans:
                raise FloatingPointError(f"{divergence}: {first_nonfinite(divergence, task=tasks[index])}")

        def keep(states: Sequence[Any]) -> None:
            hold()
            for index, state in enumerate(states):
                if index not in divergences:
                    checkpoints[index].save(state)

        try:
            states = loop.fit(
                configs,
                datasets,
                states,
                devices=devices,
                streaming=streaming,
                clock=clock,
                on_progress=reporter.progress,
                on_epoch=on_epoch,
                on_pause=on_pause,
                on_divergence=on_divergence,
                should_pause=pause.is_over,
                should_stop=should_stop,
            )
        except loop.Interrupted as interrupted:
            keep(interrupted.states)
            raise KeyboardInterrupt from None
        keep(states)
        if common.early_stopping:
            for config, state, dataset in zip(configs, states, datasets, strict=True):
                reporter.message(_best_line(config, state, len(dataset.train.labels)))

        evaluations = [
            loop.evaluate(task, state.result_params, dataset.test, devices=devices, clock=clock)
            for state, dataset in zip(states, datasets, strict=True)
        ]
        total = time.perf_counter() - started
        hold()
        for index, (run, state, evaluation) in enumerate(zip(runs, states, evaluations, strict=True)):
            dataset = datasets[index]
            spent = {part: seconds / len(runs) for part, seconds in dataclasses.asdict(clock).items()}
            # The epochs before a resumption count, as if nothing had happened.
            spent["train"] += earlier[index]
            spent["total"] = total / len(runs) + earlier[index]
            result = {
                **_outcome(run, state, evaluation, divergences.get(index), dataset),
                "parameters": total_parameters(task.layers),
                "flops": total_flops(task.layers),
                "resumed_at_step": resumed[index],
                "seconds": {part: round(seconds, 3) for part, seconds in spent.items()},
            }
            run.finish(result, evaluation.predictions, dataset.test.labels)


def _without_metrics(run: Run, steps: int) -> Callable[[int], str]:
    """Says why not to go on from a checkpoint whose epochs are not all in metrics.jsonl (which was damaged)."""
    ends = {line["step"] for line in run.metrics()}

    def refuse(step: int) -> str:
        lost = sum(end not in ends for end in range(steps, step + 1, steps))
        return f"metrics.jsonl lacks {lost} of its epochs" if lost else ""

    return refuse


def describe(dataset: data.Dataset) -> dict[str, Any]:
    """What config.json says of the data."""
    return {
        "fingerprint": dataset.fingerprint,
        "image_shape": list(dataset.image_shape),
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "train_examples": len(dataset.train.labels),
        "validation_examples": 0 if dataset.validation is None else len(dataset.validation.labels),
        "test_examples": len(dataset.test.labels),
        **dataset.details,
    }


def _outcome(
    run: Run,
    state: "TrainState",
    evaluation: "Evaluation",
    divergence: "Divergence | None",
    dataset: data.Dataset,
) -> dict[str, Any]:
    """The numbers of result.json: they depend on the configuration alone."""
    status, reason, details = "done", "", {}
    if divergence is not None:
        status, reason = "diverged", f"{divergence}; try a smaller --learning_rate"
        details = {"divergence": divergence.to_dict()}
    elif not math.isfinite(evaluation.loss):
        status = "diverged"
        reason = f"the test loss was {evaluation.loss} after step {int(state.step):,}; try a smaller --learning_rate"
    last = run.last_metrics() or {}
    # With early stopping the numbers are those of the epoch whose weights were taken.
    best = None if state.best is None else int(state.best.step)
    taken = next((line for line in run.metrics() if line["step"] == best), {}) if best else last
    labels, predictions = dataset.test.labels, evaluation.predictions
    return {
        "status": status,
        "reason": reason,
        **details,
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss if math.isfinite(evaluation.loss) else None,
        **(
            {}
            if evaluation.auc is None
            else {"test_auc": evaluation.auc, "validation_auc": taken.get("validation_auc")}
        ),
        **{
            name: taken.get(name) for name in ("train_accuracy", "train_loss", "validation_accuracy", "validation_loss")
        },
        "per_class_accuracy": {
            name: float((predictions[labels == index] == index).mean()) if (labels == index).any() else None
            for index, name in enumerate(dataset.class_names)
        },
        "epochs": last.get("epoch", 0),
        **({} if best is None else {"best_epoch": taken.get("epoch")}),
        "steps": int(state.step),
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "test_examples": len(labels),
    }


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


class _Interval:
    """Says when so many seconds are over; 0 for never."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._since = time.monotonic()

    def is_over(self) -> bool:
        return 0 < self._seconds <= time.monotonic() - self._since


def _best_line(config: RunConfig, state: "TrainState", examples: int) -> str:
    """What early stopping did: `seed 0 stopped after epoch 7; weights of epoch 4 (validation loss 0.1234)`."""
    from convjax.training.steps import steps_per_epoch

    steps = steps_per_epoch(examples, config.batch_size)
    assert state.best is not None
    return (
        f"seed {config.seed} stopped after epoch {int(state.step) // steps}; weights of epoch "
        f"{int(state.best.step) // steps} (validation loss {float(state.best.loss):.4f})"
    )


def result_line(config: RunConfig, result: dict[str, Any]) -> str:
    """The last line of a run, `test accuracy: 99.17%  test loss: ...`."""
    loss = "nan" if result["test_loss"] is None else f"{result['test_loss']:.4f}"
    count = result["epochs"] if config.early_stopping else config.epochs
    epochs = f"{count} epoch{'' if count == 1 else 's'}"
    auc = f"test AUC: {result['test_auc']:.4f}  " if "test_auc" in result else ""
    return (
        f"test accuracy: {result['test_accuracy']:.2%}  test loss: {loss}  {auc}"
        f"({config.dataset}, seed {config.seed}, {epochs}, {result['parameters']:,} parameters, "
        f"{result['seconds']['total']:.1f} s)"
    )


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question to ask between steps; a second SIGINT stops at once.

    Whoever sends SIGTERM sends SIGKILL soon after. Where nobody asks within `_GRACE_SECONDS` (a long compilation, a
    step of minutes) the process leaves, and the newest checkpoint on disk is the one to go on from.
    """
    requested = threading.Event()
    leave = threading.Timer(_GRACE_SECONDS, os._exit, [_INTERRUPTED])
    leave.daemon = True
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def request(number: int, frame: object) -> None:
        if requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and not leave.is_alive():
            leave.start()
        requested.set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        leave.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _event_writer(run: Run, options: Options, resumed_at: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes a line of metrics as TensorBoard events, or does nothing."""
    if not options.tensorboard:
        yield lambda line: None
        return
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX; install it with: pip install 'convjax[tensorboard]'"
        ) from None
    # Events after the step that a resumed run starts from are taken back, as in metrics.jsonl.
    writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=resumed_at + 1 if resumed_at else None)

    def write(line: dict[str, Any]) -> None:
        for name, value in line.items():
            if isinstance(value, dict):
                for layer, number in value.items():
                    if number is not None:
                        writer.add_scalar(f"{name}/{layer}", number, line["step"])
            elif name not in ("epoch", "step"):
                part, _, quantity = name.partition("_")
                tag = f"{quantity}/{part}" if part in ("train", "validation") else name
                writer.add_scalar(tag, value, line["step"])
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
