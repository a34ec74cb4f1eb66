"""Which training examples a run uses: the front of one fixed stratified order; its back is the validation set.

The order depends only on the labels, never on a run's seed: runs with different seeds, on any machine, leave out the
same examples. Subsets are prefixes of the order, so a larger subset contains every smaller one.
"""

import heapq

import numpy as np

from convjax.errors import UserError

# Changing this changes every subset and validation set that anybody has reported.
_KEY = 51


def stratified_order(labels: np.ndarray) -> np.ndarray:
    """A permutation whose every prefix (and so every suffix) has each class in proportion.

    A class with n_c of the n examples has N n_c / n of the first N places, to within less than one. This is the
    proportionate-fair schedule of Baruah, Cohen, Plaxton and Varvel (1996) on one processor: the j-th example of a
    class gets a place in [floor(j n / n_c), ceil((j + 1) n / n_c)), and earliest deadline first always succeeds.
    Within a class the examples follow a fixed permutation.

    Args:
      labels: integers [n].

    Returns:
      Positions in `labels`, int64 [n].
    """
    labels = np.asarray(labels)
    count = len(labels)
    if count == 0:
        return np.zeros(0, np.int64)
    # random_raw rather than Generator.permutation: NumPy promises never to change its stream (NEP 19).
    shuffled = np.argsort(np.random.Philox(key=_KEY).random_raw(count), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.unique(labels, return_counts=True)[1]

    index = np.concatenate([np.arange(size) for size in sizes])
    size = np.repeat(sizes, sizes)
    jobs = np.stack([index * count // size, -(-(index + 1) * count // size), np.repeat(np.arange(len(sizes)), sizes)])
    released = jobs[:, np.argsort(jobs[0], kind="stable")].T.tolist()

    classes, waiting, next_job = np.empty(count, np.int64), [], 0
    for place in range(count):
        while next_job < count and released[next_job][0] <= place:
            _, deadline, label = released[next_job]
            heapq.heappush(waiting, (deadline, label))
            next_job += 1
        classes[place] = heapq.heappop(waiting)[1]

    order = np.empty(count, np.int64)
    order[np.argsort(classes, kind="stable")] = by_class
    return order


def split_train(labels: np.ndarray, train_size: int = 0, validation_size: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the examples to train on and of those to validate on.

    The validation set is the back of `stratified_order` for any `train_size`, a training subset its front for any
    `validation_size`; they never overlap.

    Args:
      labels: of all training examples, integers [n].
      train_size: how many to train on; 0 for all that are not held out, in their original order.
      validation_size: how many to hold out; 0 for none.

    Returns:
      Two int64 arrays, [train examples] and [validation_size].

    Raises:
      UserError: a size is negative, or exceeds the number of examples.
    """
    count = len(labels)
    for flag, size in (("train_size", train_size), ("validation_size", validation_size)):
        if not 0 <= size <= count:
            raise UserError(f"--{flag}={size:,} is impossible: it must be from 0 to the {count:,} training examples")
    if train_size + validation_size > count:
        raise UserError(
            f"--train_size={train_size:,} and --validation_size={validation_size:,} need "
            f"{train_size + validation_size:,} examples, the training set has {count:,}: make one of them smaller"
        )
    if validation_size == count:
        raise UserError(f"--validation_size={validation_size:,} leaves nothing to train on: make it smaller")
    if train_size == 0 and validation_size == 0:
        return np.arange(count), np.zeros(0, np.int64)
    order = stratified_order(labels)
    train = order[:train_size] if train_size else np.sort(order[: count - validation_size])
    return train, order[count - validation_size :]
