"""Output sizes and padding by XLA, to check the closed forms of `convjax.nn.geometry` against."""

import functools

import jax
import numpy as np
from jax import lax

from convjax.nn.geometry import Axis


def xla_disagreements(count: int) -> list[tuple[int, int, int, str]]:
    """Those of `count` random windows along one axis for which XLA has another size or padding; none is expected.

    Returns `[(size, window, stride, padding), ...]`.
    """
    generator = np.random.default_rng(0)
    found = []
    for size, window, stride in np.transpose([generator.integers(1, top, count) for top in (64, 12, 6)]).tolist():
        for padding in ("valid", "same"):
            axis, image = Axis(size, window, stride, padding), jax.ShapeDtypeStruct((size,), np.float32)
            slide = functools.partial(
                lax.reduce_window, init_value=0.0, computation=lax.add, window_dimensions=(window,),
                window_strides=(stride,), padding=padding.upper(),
            )  # fmt: skip
            pads = lax.padtype_to_pads((size,), (window,), (stride,), padding.upper())
            if jax.eval_shape(slide, image).shape != (axis.count,) or tuple(pads[0]) != axis.pads:
                found.append((size, window, stride, padding))
    return found
