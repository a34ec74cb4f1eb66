"""A selection of an array's rows that leaves them where they are, in a memory-mapped file mostly."""

from typing import Any

import numpy as np


class Rows:
    """Reads like `array[positions]` without copying it: what is asked for is read when it is asked for."""

    def __init__(self, array: np.ndarray, positions: np.ndarray):
        self._array, self._positions = array, positions

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (len(self._positions), *self._array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """As an array's."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """As an array's."""
        return self._array.ndim

    @property
    def nbytes(self) -> int:
        """As an array's."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, *rest = index if isinstance(index, tuple) else (index,)
        chosen = self._array[self._positions[rows]]
        return chosen[(slice(None), *rest)] if rest else chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[self._positions], dtype)
