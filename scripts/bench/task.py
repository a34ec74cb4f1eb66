"""What every contender trains: the sizes of the chapter's network, and the images."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from convjax.data import Dataset

CHANNELS, UNITS, CLASSES = (32, 64, 64), 64, 10


class Data:
    """Training and test images `[n, 28, 28, 1]` uint8, labels int32, the batch size and the seed."""

    def __init__(self, path: str, batch_size: int, seed: int = 0):
        with np.load(path, allow_pickle=False) as file:
            self.images, self.labels = file["train_images"], file["train_labels"]
            self.test_images, self.test_labels = file["test_images"], file["test_labels"]
        self.batch_size, self.seed = batch_size, seed

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Indices of an epoch's batches, shuffled; the last batch is short."""
        order = rng.permutation(len(self.labels))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


def save(dataset: "Dataset", folder: str) -> Path:
    """Writes a data set as `Data` reads it."""
    path = Path(folder) / "data.npz"
    np.savez(
        path,
        train_images=dataset.train.images,
        train_labels=dataset.train.labels,
        test_images=dataset.test.images,
        test_labels=dataset.test.labels,
    )
    return path
