"""A selection of an array's rows that does not copy them; the array is usually a memory-mapped file."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np


class Rows:
    """Reads like `array[positions]`, but gets each row from the array when it is asked for."""

    def __init__(self, array: np.ndarray | Self, positions: np.ndarray):
        self._array, self._positions = array, positions
        self.shape: tuple[Any, ...] = (len(positions), *array.shape[1:])
        self.dtype, self.ndim = array.dtype, array.ndim
        self.nbytes = int(np.prod(self.shape)) * array.dtype.itemsize

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, *rest = index if isinstance(index, tuple) else (index,)
        chosen = self._array[self._positions[rows]]
        return chosen[(slice(None), *rest)] if rest else chosen

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[self._positions], dtype)
