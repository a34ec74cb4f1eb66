"""One run, from a RunConfig to a finished run directory: training, with files, locks, signals and the terminal.

`sweeps.attempts` and `experiments.train` call `execute` with configurations; `training.loop.fit` trains them; the
numbers go into a `store.Run`, from which `sweeps.frame` makes the rows of a table. Several configurations that differ
only in seed and learning rate train together, as replicas.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from convjax import data, training
from convjax.config import FOLDER, RunConfig
from convjax.errors import UserError
from convjax.files import disk_errors
from convjax.sweeps.interrupts import stop_requests
from convjax.sweeps.lock import Lock
from convjax.sweeps.options import Options
from convjax.sweeps.recorder import Interval, Recorder
from convjax.sweeps.store import Run
from convjax.training.hooks import EpochMetrics, Hooks, Interrupted, Progress

if TYPE_CHECKING:
    from convjax.training import TrainState
    from convjax.training.diagnostics import LayerNumbers
    from convjax.training.divergence import Divergence


class Reporter:
    """Told what a run does while it trains; by default says nothing."""

    def message(self, text: str) -> None:
        """A line for the user."""

    def progress(self, progress: Progress) -> None:
        """Some steps were done."""

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """An epoch is over."""


@functools.lru_cache(maxsize=2)
def load_dataset(name: str, data_dir: str, train_size: int, validation_size: int, **settings: Any) -> data.Dataset:
    """`convjax.data.load`, once for all runs of a process; `settings` are `RunConfig.data_settings`."""
    return data.load(name, data_dir, train_size=train_size, validation_size=validation_size, **settings)


def dataset_of(config: RunConfig, data_dir: str) -> data.Dataset:
    """The data of a run."""
    sizes = config.train_size, config.validation_size
    return load_dataset(config.dataset, data_dir, *sizes, **config.data_settings)


def whole_dataset_of(config: RunConfig, data_dir: str) -> data.Dataset:
    """The data of a run before a part is held out or left out, for what depends on the data set alone."""
    return load_dataset(config.dataset, data_dir, 0, 0, **config.data_settings)


def require_same_data(run: Run, config: RunConfig, options: Options) -> None:
    """Refuses results and checkpoints that were computed on other content of a folder of images.

    A configuration names the folder; its content may change.

    Raises:
      UserError: naming the run.
    """
    if not (config.dataset.startswith(FOLDER) and options.resume):
        return
    try:
        written = run.config()
        begun = run.result() is not None or (run.path / "checkpoints").exists()
    except UserError:  # damaged: set aside as soon as the run is locked
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
    """Refuses early stopping without validation images; called before any run starts.

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
    """Trains `configs` that are not done, or resumes them, and returns their results (each a result.json).

    Several configurations are trained together; they may differ in seed and learning rate. SIGINT and SIGTERM save a
    checkpoint and raise KeyboardInterrupt.

    Args:
      configs: the runs.
      experiment: that they belong to.
      options: how to run them.
      reporter: told what happens.
      locks: of the runs, where the caller holds them already.

    Raises:
      UserError: the configuration is impossible for the data.
      UnavailableError: no source can provide the data.
      Locked: another process works on one of the runs.
      DiskError: the store cannot be written to.
    """
    runs = [Run.of(options.workdir, experiment, config) for config in configs]
    with ExitStack() as stack:
        stack.enter_context(disk_errors(options.workdir))
        for run, config in zip(runs, configs, strict=True):
            require_same_data(run, config, options)
        # Finished runs are read without a lock: their store may be read-only.
        if not options.resume or not all(run.is_done() for run in runs):
            held = list(locks) or [stack.enter_context(run.lock()) for run in runs]
            for run in runs:
                if not options.resume:
                    run.reset()
                elif (aside := run.mend()) is not None:
                    reporter.message(f"{run.path} was damaged: what cannot be used is in {aside.name}")
            todo = [index for index, run in enumerate(runs) if run.result() is None]
            if todo:
                session = _Session(configs[todo[0]], options, reporter, held)
                session.train([runs[index] for index in todo], [configs[index] for index in todo])
        results = [run.result() for run in runs]
    assert all(result is not None for result in results)
    return results  # type: ignore[return-value]


class _Session:
    """What runs that differ only in seed and learning rate share while they train: data, task, devices, locks."""

    def __init__(self, config: RunConfig, options: Options, reporter: Reporter, locks: Sequence[Lock]):
        self.config, self.options, self.reporter, self._locks = config, options, reporter, locks
        started = time.perf_counter()
        training.backend.enable_compilation_cache()
        training.backend.require_precision(config.precision)
        self.dataset = dataset_of(config, options.data_dir)
        for note in self.dataset.details.get("notes", ()):
            reporter.message(f"{config.dataset}: {note}")
        require_validation(config, options)
        examples, train = len(self.dataset.train.labels), self.dataset.train
        self.task = training.Task.of(config, self.dataset.image_shape, self.dataset.num_classes, examples)
        self.streaming = training.feed.must_stream(options.streaming, train, options.memory_limit)
        self.clock = training.Clock(data=time.perf_counter() - started)

    def require_locks(self) -> None:
        """Checks before a write that no other process has taken a run over."""
        for lock in self._locks:
            lock.require()

    def train(self, runs: Sequence[Run], configs: Sequence[RunConfig]) -> None:
        """Trains the runs, together where they resume from the same step, and writes their results."""
        self.require_locks()
        devices = training.devices.choose(self.options.devices, runs=len(runs))
        details = {
            "data": data_record(self.dataset),
            "streaming": self.streaming,
            **training.backend.environment(),
            "devices_used": devices.count,
        }
        with stop_requests() as should_stop, ExitStack() as stack:
            groups: dict[int, list[tuple[Recorder, TrainState]]] = {}
            for run, config in zip(runs, configs, strict=True):
                run.start(config, details)
                recorder = Recorder(
                    run,
                    config,
                    self.task,
                    keep=self.options.keep_checkpoints or None,
                    tensorboard=self.options.tensorboard,
                )
                stack.enter_context(closing(recorder))
                state = recorder.restore(training.steps.state_shape(self.task))
                if state is None:
                    state = training.initial_state(config, self.task)
                else:
                    self.reporter.message(f"resuming at step {int(state.step):,}")
                groups.setdefault(recorder.resumed_at, []).append((recorder, state))
            for _, group in sorted(groups.items()):
                recorders, states = zip(*group, strict=True)
                self._train_together(recorders, states, should_stop)

    def _train_together(
        self, recorders: Sequence[Recorder], states: Sequence[TrainState], should_stop: Callable[[], bool]
    ) -> None:
        """Trains replicas that start from the same step, evaluates them and writes their results."""
        started, task, count = time.perf_counter() - self.clock.data, self.task, len(recorders)
        devices = training.devices.choose(self.options.devices, runs=count)
        replicas = count if count > 1 else 0
        chunk = 0
        if self.streaming:
            chunk = training.feed.chunk_steps(self.dataset.train, self.config.batch_size, replicas)
        program = self.clock.timed(
            "compile", training.Program.compile, task, replicas=replicas, chunk_steps=chunk, devices=devices
        )
        hooks = _Recording(self, recorders, should_stop)
        try:
            seeds = [recorder.config.seed for recorder in recorders]
            states = training.fit(program, states, seeds, self.dataset, hooks, self.clock)
        except Interrupted as interrupted:
            hooks.save(interrupted.states)
            raise KeyboardInterrupt from None
        hooks.save(states)
        evaluations = [
            self.clock.timed("eval", training.evaluate, task, state.result_params, self.dataset.test, devices=devices)
            for state in states
        ]
        spent = {**dataclasses.asdict(self.clock), "total": time.perf_counter() - started}
        self.require_locks()
        for recorder, state, evaluation in zip(recorders, states, evaluations, strict=True):
            if self.config.early_stopping:
                self.reporter.message(recorder.best_line(state))
            seconds = {part: value / count for part, value in spent.items()}
            recorder.finish(state, evaluation, self.dataset, seconds)
        self.clock = training.Clock()  # the next group's


class _Recording(Hooks):
    """Hooks that record each replica in its run's folder, and keep checkpoints."""

    def __init__(self, session: _Session, recorders: Sequence[Recorder], should_stop: Callable[[], bool]):
        self._session, self._recorders, self._should_stop = session, recorders, should_stop
        self._pause = Interval(60 * session.options.checkpoint_minutes)

    def on_progress(self, progress: Progress) -> None:
        self._session.reporter.progress(progress)

    def on_epoch(self, index: int, metrics: EpochMetrics, state: TrainState) -> None:
        session, recorder = self._session, self._recorders[index]
        diagnostics: dict[str, LayerNumbers] = {}
        if session.options.diagnostics:
            train = session.dataset.train
            diagnostics = session.clock.timed(
                "eval", training.layer_diagnostics, state.weights, train.images, train.labels, task=session.task
            )
        session.require_locks()
        recorder.epoch(metrics, diagnostics)
        if recorder.checkpoint_is_due():
            recorder.save(state)
            self._pause.restart()
        session.reporter.epoch(metrics, session.config.epochs)

    def on_pause(self, index: int, state: TrainState) -> None:
        self._session.require_locks()
        self._recorders[index].save(state)
        self._pause.restart()

    def on_divergence(self, index: int, divergence: Divergence) -> None:
        self._recorders[index].divergence = divergence
        if self._session.options.debug_nans:
            cause = training.first_nonfinite(divergence, task=self._session.task)
            raise FloatingPointError(f"{divergence}: {cause}")

    def should_pause(self) -> bool:
        return self._pause.is_over()

    def should_stop(self) -> bool:
        return self._should_stop()

    def save(self, states: Sequence[TrainState]) -> None:
        """Keeps a checkpoint of each replica."""
        self._session.require_locks()
        for recorder, state in zip(self._recorders, states, strict=True):
            recorder.save(state)


def data_record(dataset: data.Dataset) -> dict[str, Any]:
    """The data as config.json describes it."""
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
