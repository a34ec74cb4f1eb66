"""Subsets are fixed, stratified, nested and disjoint; a golden hash pins the order itself."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.data.splits import split_train, stratified_order
from convjax.errors import UserError

label_lists = st.lists(st.integers(0, 7), min_size=1, max_size=300)
uneven = st.lists(st.integers(1, 120), min_size=1, max_size=6).map(
    lambda sizes: np.repeat(np.arange(len(sizes)), sizes)
)
any_labels = st.one_of(label_lists.map(np.array), uneven)


def distance_from_proportion(labels: np.ndarray, order: np.ndarray) -> float:
    """The largest |count - proportional count| of any class in any prefix, by counting."""
    classes, totals = np.unique(labels, return_counts=True)
    counts = np.cumsum(labels[order][:, None] == classes, axis=0)
    proportional = np.arange(1, len(labels) + 1)[:, None] * totals / len(labels)
    return float(np.abs(counts - proportional).max())


@given(any_labels)
def test_every_prefix_has_each_class_in_proportion(labels):
    order = stratified_order(labels)
    assert sorted(order) == list(range(len(labels)))
    assert distance_from_proportion(labels, order) < 1


def test_proportion_at_mnist_size():
    labels = np.random.default_rng(0).choice(10, 60_000, p=np.arange(1, 11) / 55)
    assert distance_from_proportion(labels, stratified_order(labels)) < 1


@given(any_labels, st.data())
def test_subsets_nest_and_the_validation_slice_stays(labels, data):
    count = len(labels)
    held_out = data.draw(st.integers(0, count - 1))
    small = data.draw(st.integers(1, count - held_out))
    large = data.draw(st.integers(small, count - held_out))
    small_train, validation = split_train(labels, small, held_out)
    large_train, same_validation = split_train(labels, large, held_out)
    rest, validation_of_all = split_train(labels, 0, held_out)

    assert len(small_train) == small
    assert len(validation) == held_out
    assert small_train.tolist() == large_train[:small].tolist()
    assert validation.tolist() == same_validation.tolist() == validation_of_all.tolist()
    assert not set(large_train) & set(validation)
    assert sorted([*rest, *validation]) == list(range(count))
    assert small_train.tolist() == split_train(labels, small, 0)[0].tolist()


@given(any_labels, st.data())
def test_the_validation_slice_is_stratified(labels, data):
    held_out = data.draw(st.integers(1, len(labels) - 1)) if len(labels) > 1 else 0
    _, validation = split_train(labels, 0, held_out)
    classes, totals = np.unique(labels, return_counts=True)
    for label, total in zip(classes, totals, strict=True):
        assert abs(np.sum(labels[validation] == label) - held_out * total / len(labels)) < 1


def test_all_of_train_is_in_its_own_order():
    train, validation = split_train(np.array([1, 0, 1, 0]))
    assert train.tolist() == [0, 1, 2, 3]
    assert validation.size == 0


def test_examples_within_a_class_are_shuffled():
    order = stratified_order(np.zeros(1000, int))
    steps = np.diff(order)
    assert (steps > 0).mean() == pytest.approx(0.5, abs=0.06)


def test_the_order_never_changes():
    order = stratified_order(np.arange(1000) * 7919 % 10)
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    assert digest == "89caffe21d89ce4e4d0dab7afaf19ca69bb0f3d605c78e2b5822fbc25c15e3b9", (
        "The stratified order changed: every reported --train_size and --validation_size result is void. Change this "
        "hash only together with a note in the changelog; if no code changed, NumPy's Philox stream did."
    )


@pytest.mark.parametrize(
    ("train_size", "validation_size", "message"),
    [
        (11, 0, "--train_size=11 .*10 training"),
        (-1, 0, "--train_size=-1"),
        (0, 11, "--validation_size=11 "),
        (0, -3, "--validation_size=-3"),
        (6, 5, "need 11 examples, the training set has 10"),
        (0, 10, "leaves nothing to train on"),
    ],
)
def test_impossible_sizes_are_refused(train_size, validation_size, message):
    with pytest.raises(UserError, match=message):
        split_train(np.arange(10) % 2, train_size, validation_size)


def test_no_labels():
    assert stratified_order(np.zeros(0, int)).size == 0
