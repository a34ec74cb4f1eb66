"""Streaming: the same bits as with all images on the device, whatever the chunks, interruptions and seeds."""

import threading

import jax
import numpy as np
import pytest

from convjax.config import RunConfig
from convjax.data import Split
from convjax.training import evaluation, feed, loop
from convjax.training.checkpoint import state_digest
from convjax.training.evaluation import evaluate
from convjax.training.feed import Resident, Streamed, chunk_steps, must_stream, prefetched
from convjax.training.steps import Task, epoch_order, initial_state, make_keys
from tests.helpers.training import fit

CONFIG = RunConfig(
    dataset="mnist_5k", channels="3-4", dense_units="8", dropout="0.2", augment="shift=0.1", batch_size=32, epochs=2
)
DENSE = RunConfig(dataset="mnist_5k", model="dense", dense_units="8", batch_size=32, epochs=2, optimizer="sgd")
STEP_BYTES = 32 * 28 * 28


@pytest.fixture(scope="module")
def dataset():
    from convjax import data

    return data.load("mnist_5k", train_size=200, validation_size=100)  # 7 steps, the last of 8 images


@pytest.fixture(scope="module")
def resident(dataset):
    lines = []
    [state] = fit([CONFIG], dataset, on_epoch=lambda index, line, state: lines.append(line.train_loss))
    return state, lines


@pytest.mark.parametrize("steps", [2, 3])
def test_a_stream_gives_the_same_bits(steps, resident, dataset, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK_BYTES", steps * STEP_BYTES)
    assert chunk_steps(dataset.train, 32) == steps
    lines = []
    [state] = fit([CONFIG], dataset, streaming=True, on_epoch=lambda index, line, state: lines.append(line.train_loss))
    assert state_digest(state) == state_digest(resident[0])
    assert lines == resident[1]


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_an_interrupted_stream_goes_on_to_the_same_bits(before, after, resident, dataset, monkeypatch):
    """In the middle of an epoch and of a chunk, and from one way to the other."""
    monkeypatch.setattr(feed, "CHUNK_BYTES", 3 * STEP_BYTES)
    monkeypatch.setattr(loop, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(loop, "_FIRST_LOOK", 1)
    seen = []
    with pytest.raises(loop.Interrupted) as interrupted:
        fit([CONFIG], dataset, streaming=before, on_progress=seen.append, should_stop=lambda: len(seen) >= 9)
    [state] = interrupted.value.states
    assert int(state.step) == 9
    [finished] = fit([CONFIG], dataset, [state], streaming=after)
    assert state_digest(finished) == state_digest(resident[0])


def test_seeds_at_once_stream_each_its_own_order(dataset, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK_BYTES", 6 * STEP_BYTES)
    configs = [DENSE, DENSE.replace(seed=1)]
    assert chunk_steps(dataset.train, 32, replicas=2) == 3
    for one, other in zip(fit(configs, dataset, streaming=True), fit(configs, dataset), strict=True):
        assert state_digest(one) == state_digest(other)


def test_a_divergence_in_a_stream_is_described_alike(dataset, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK_BYTES", 2 * 2 * STEP_BYTES)
    configs = [DENSE, DENSE.replace(learning_rate=1e12)]
    found = []
    for streaming in (False, True):
        described = {}
        fit(configs, dataset, streaming=streaming, on_divergence=described.__setitem__)
        found.append({index: each.to_dict() for index, each in described.items()})
    assert list(found[0]) == [1]
    assert found[0] == found[1]


def test_feeds_hold_the_epochs_batches_in_order(dataset):
    order = np.asarray(epoch_order(make_keys(3).shuffle, 1, examples=200, batch_size=32))
    [whole] = Resident(dataset.train).epoch(order, 0)
    wanted = list(order[2:])
    for chunk in Streamed(dataset.train, 3).epoch(order, 2):
        rows = np.asarray(chunk.data.order)
        for index in range(chunk.stop - chunk.first):
            row, original = rows[index], wanted.pop(0)
            np.testing.assert_array_equal(row >= 0, original >= 0)
            mine, theirs = (np.where(r >= 0, r, -1 - r) for r in (row, original))
            np.testing.assert_array_equal(np.asarray(chunk.data.images)[mine], np.asarray(whole.data.images)[theirs])
            np.testing.assert_array_equal(np.asarray(chunk.data.labels)[mine], np.asarray(whole.data.labels)[theirs])
    assert not wanted


@pytest.mark.parametrize("count", [99, 250])
def test_evaluation_in_blocks_is_evaluation(count, dataset, monkeypatch):
    task = Task.of(DENSE, dataset.image_shape, 10, 200)
    params = initial_state(DENSE, task).params
    split = Split(dataset.test.images[:count], dataset.test.labels[:count])
    whole = evaluate(task, params, split)
    monkeypatch.setattr(evaluation, "CHUNK_BYTES", 100 * 28 * 28)
    blocks = evaluate(task, params, split)
    np.testing.assert_array_equal(whole.logits, blocks.logits)
    assert (whole.loss, whole.accuracy) == (blocks.loss, blocks.accuracy)


def test_streaming_is_chosen_by_size(dataset, monkeypatch):
    size = 200 * 28 * 28  # 0.15 MiB
    assert must_stream("yes", dataset.train)
    assert not must_stream("no", dataset.train, 1)
    assert not must_stream("auto", dataset.train)
    assert not must_stream("auto", dataset.train, 1)
    monkeypatch.setattr(feed, "device_memory", lambda: 2 * size)
    assert not must_stream("auto", dataset.train)
    monkeypatch.setattr(feed, "device_memory", lambda: 2 * size - 2)
    assert must_stream("auto", dataset.train)
    monkeypatch.setattr(feed, "CHUNK_BYTES", 1)
    assert chunk_steps(dataset.train, 32) == 2
    assert chunk_steps(dataset.train, 200) == 1
    big = Split(np.broadcast_to(np.uint8(0), (2000, 28, 28, 1)), np.zeros(2000, np.int32))
    assert must_stream("auto", big, 1)


def test_device_memory_is_that_of_an_accelerator_or_the_machine(monkeypatch):
    machine = feed.device_memory()
    assert 1 << 28 < machine < 1 << 50

    class Accelerator:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 12345}

    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator()])
    assert feed.device_memory() == 12345


def test_prefetching_is_one_ahead_and_hands_errors_on():
    made, two = [], threading.Event()

    def make(index):
        made.append(index)
        if index == 1:
            two.set()
        if index == 3:
            raise OSError("the disk is gone")
        return index

    coming = prefetched(make, 5)
    assert next(coming) == 0
    assert two.wait(10)
    assert made == [0, 1]  # made while 0 is in use, and no further
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)
    assert list(prefetched(make, 0)) == []
