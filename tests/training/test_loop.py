"""fit, checkpoints and resumption: bit for bit, however a run is interrupted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.sweeps.store import Run
from convjax.training import checkpoint, loop
from convjax.training.checkpoint import Checkpoints, state_digest
from convjax.training.evaluation import evaluate
from convjax.training.steps import initial_state
from tests.helpers.training import fit, task_of

CONFIG = RunConfig(dataset="mnist_5k", train_size=200, channels="4-6", dense_units="8", epochs=3, dropout="0.2")


@pytest.fixture(scope="module")
def dataset():
    from convjax import data

    return data.load("mnist_5k", train_size=200, validation_size=100)


@pytest.fixture(scope="module")
def undisturbed(dataset):
    metrics = []
    [state] = fit([CONFIG], dataset, on_epoch=lambda index, line, state: metrics.append(line))
    return state, metrics


def without_time(metrics):
    return [(line.epoch, line.step, line.train_loss, line.train_accuracy, line.validation_loss) for line in metrics]


def test_fit_learns_and_reports_each_epoch(undisturbed, dataset):
    state, metrics = undisturbed
    assert [line.epoch for line in metrics] == [1, 2, 3]
    assert [line.step for line in metrics] == [4, 8, 12]
    assert metrics[-1].train_loss < metrics[0].train_loss
    assert metrics[0].validation_accuracy is not None
    assert int(state.step) == 12
    assert float(state.sums.examples) == 0


def test_a_seed_gives_the_same_bits_again(undisturbed, dataset):
    [again] = fit([CONFIG], dataset)
    assert state_digest(again) == state_digest(undisturbed[0])
    [other] = fit([CONFIG.replace(seed=1)], dataset)
    assert state_digest(other) != state_digest(undisturbed[0])


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(stop_after, undisturbed, dataset, tmp_path, monkeypatch):
    """Stopped after any progress, in the middle of an epoch too, saved by Orbax, restored and finished."""
    monkeypatch.setattr(loop, "_LOOK_SECONDS", 0)  # one step a progress after the first
    monkeypatch.setattr(loop, "_FIRST_LOOK", 1)
    progress, metrics = [], []

    def on_epoch(index, line, state):
        metrics.append(line)

    with pytest.raises(loop.Interrupted) as interrupted:
        fit(
            [CONFIG],
            dataset,
            on_progress=progress.append,
            on_epoch=on_epoch,
            should_stop=lambda: len(progress) >= stop_after,
        )
    [state] = interrupted.value.states
    assert int(state.step) == stop_after
    saved = Checkpoints(tmp_path)
    saved.save(state)
    saved.close()
    restored = Checkpoints(tmp_path).restore(state)
    [finished] = fit([CONFIG], dataset, [restored], on_epoch=on_epoch)
    assert state_digest(finished) == state_digest(undisturbed[0])
    assert without_time(metrics) == without_time(undisturbed[1])


def test_the_hot_loop_moves_nothing_between_host_and_device_unasked(dataset, monkeypatch):
    train, guarded = loop._Group._train, []

    def train_guarded(group, *arguments):
        with jax.transfer_guard("disallow"):
            guarded.append(train(group, *arguments))
            with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
                jax.jit(jnp.negative)(np.zeros(3))
        return guarded[-1]

    monkeypatch.setattr(loop._Group, "_train", train_guarded)
    fit([CONFIG.replace(epochs=1)], dataset)
    assert guarded


def test_replicas_are_the_serial_runs(dataset):
    configs = [CONFIG.replace(seed=seed, learning_rate=rate) for seed, rate in ((0, 1e-3), (1, 1e-3), (2, 3e-3))]
    together = fit(configs, dataset)
    for config, state in zip(configs, together, strict=True):
        [alone] = fit([config], dataset)
        for one, other in zip(jax.tree.leaves(alone.params), jax.tree.leaves(state.params), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_replicas_must_start_from_the_same_step(undisturbed, dataset):
    paused = undisturbed[0].replace(step=jnp.int32(4))
    with pytest.raises(ValueError, match=r"the same step, not from \[0, 4\]"):
        fit([CONFIG, CONFIG], dataset, [paused, initial_state(CONFIG, task_of(CONFIG, dataset))])


def test_one_diverging_seed_does_not_stop_the_others(dataset):
    configs = [CONFIG, CONFIG.replace(learning_rate=1e30, seed=1)]
    good, bad = fit(configs, dataset)
    assert not loop.diverged(good)
    assert loop.diverged(bad)
    assert int(good.step) == 12
    assert int(bad.step) < 12


PATIENT = CONFIG.replace(epochs=12, learning_rate=1e-2, dropout="0", validation_size=100, early_stopping=12)
IMPATIENT = PATIENT.replace(early_stopping=2)


@pytest.fixture(scope="module")
def stopped(dataset):
    """A run of 4 steps an epoch that gets worse now and then, stopped early."""
    [state] = fit([IMPATIENT], dataset)
    return state


def test_early_stopping_takes_the_weights_of_the_lowest_validation_loss(stopped, undisturbed, dataset):
    losses, weights = [], []

    def on_epoch(index, line, state):
        losses.append(line.validation_loss)
        weights.append(state_digest(state.params))

    fit([PATIENT], dataset, on_epoch=on_epoch)
    stop = next(n for n in range(2, 12) if min(losses[: n - 1]) <= min(losses[n - 1 : n + 1]))
    best = int(np.argmin(losses[: stop + 1]))
    assert 0 < best < stop < 11, "the run must improve and then not for this test to say something"
    assert int(stopped.step) == 4 * (stop + 1)
    assert int(stopped.best.step) == 4 * (best + 1)
    assert float(stopped.best.loss) == np.float32(losses[best])
    assert state_digest(stopped.result_params) == weights[best]
    assert state_digest(stopped.params) == weights[stop]
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, undisturbed[0].result_params, undisturbed[0].params))


@pytest.mark.parametrize("stop_after", [1, 16, 19, 23])
def test_early_stopping_decides_alike_after_a_resumption(stop_after, stopped, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(loop, "_FIRST_LOOK", 1)
    progress = []
    assert stop_after < int(stopped.step)
    with pytest.raises(loop.Interrupted) as interrupted:
        fit([IMPATIENT], dataset, on_progress=progress.append, should_stop=lambda: len(progress) >= stop_after)
    [state] = interrupted.value.states
    saved = Checkpoints(tmp_path)
    saved.save(state)
    saved.close()
    restored = Checkpoints(tmp_path).restore(state)
    [finished] = fit([IMPATIENT], dataset, [restored])
    assert state_digest(finished) == state_digest(stopped)
    # One that has stopped is not trained further.
    assert fit([IMPATIENT], dataset, [finished])[0] is finished


def test_replicas_stop_each_at_its_own_epoch(stopped, dataset):
    configs = [IMPATIENT.replace(seed=seed) for seed in range(3)]
    epochs = [0] * 3

    def on_epoch(index, line, state):
        epochs[index] = line.epoch

    together = fit(configs, dataset, on_epoch=on_epoch)
    alone = [stopped, *(fit([config], dataset)[0] for config in configs[1:])]
    assert len({int(state.step) for state in alone}) > 1, "the seeds must differ for this test to say something"
    for index, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert (int(one.step), int(one.best.step)) == (int(other.step), int(other.best.step))
        assert epochs[index] == int(one.step) // 4
        for a, b in zip(jax.tree.leaves(one.result_params), jax.tree.leaves(other.result_params), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_evaluate_is_the_mean_over_every_image(undisturbed, dataset):
    evaluation = evaluate(task_of(CONFIG, dataset), undisturbed[0].params, dataset.test)
    assert evaluation.logits.shape == (1000, 10)
    right = sum(int(np.argmax(row)) == label for row, label in zip(evaluation.logits, dataset.test.labels, strict=True))
    assert evaluation.accuracy == right / 1000
    exponentials = np.exp(evaluation.logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    expected = -np.log(probabilities[np.arange(1000), dataset.test.labels]).mean()
    assert evaluation.loss == pytest.approx(expected, rel=1e-9)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "removed":
        path.unlink()
    else:
        for index in range(len(content) // 2, min(len(content), len(content) // 2 + 64)):
            content[index] ^= 0xFF
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "removed"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(how, tmp_path, undisturbed):
    state = undisturbed[0]
    older = state.replace(step=state.step - 1)
    saved = Checkpoints(tmp_path)
    saved.save(older)
    saved.save(state)
    saved.close()
    files = [path for path in (tmp_path / "checkpoints" / "12" / "state").rglob("*") if path.is_file()]
    for path in files:
        damage(path, how)
    again = Checkpoints(tmp_path)
    restored = again.restore(state)
    assert restored is not None
    assert int(restored.step) == 11
    assert state_digest(restored) == state_digest(older)
    # It is set aside, not deleted, and a sound one takes its place.
    assert (tmp_path / "damaged-checkpoint-12").is_dir()
    again.save(state)
    assert state_digest(Checkpoints(tmp_path).restore(state)) == state_digest(state)


def test_only_the_newest_checkpoints_are_kept(tmp_path, undisturbed):
    saved = Checkpoints(tmp_path, keep=2)
    for step in range(4):
        saved.save(undisturbed[0].replace(step=jnp.int32(step)))
    assert saved.steps() == [2, 3]


def test_any_kept_checkpoint_can_be_loaded(tmp_path, undisturbed, dataset):
    run = Run(tmp_path)
    run.start(CONFIG, {"data": {"image_shape": [28, 28, 1], "num_classes": 10, "train_examples": 200}})
    saved = Checkpoints(tmp_path, keep=None)
    older = undisturbed[0].replace(step=jnp.int32(4), params=jax.tree.map(lambda x: x * 2, undisturbed[0].params))
    for state in (older, undisturbed[0]):
        saved.save(state)
    saved.close()
    assert checkpoint.kept_steps(tmp_path) == [4, 12]
    for step, state in ((None, undisturbed[0]), (12, undisturbed[0]), (4, older)):
        config, _, params = checkpoint.load_params(tmp_path, step)
        assert config == CONFIG
        assert state_digest(params) == state_digest(state.params)
    with pytest.raises(UserError, match="no checkpoint of step 5; kept are: 4, 12"):
        checkpoint.load_params(tmp_path, 5)


def test_load_params_refuses_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        checkpoint.load_params(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not a run folder"):
        checkpoint.load_params(tmp_path)
