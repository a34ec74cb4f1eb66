"""What checks annotations in tests: jaxtyping's import hook (see conftest.py) hands it every function and dataclass."""

from collections.abc import Callable
from typing import Any

import beartype

_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # an int is also a float


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations checked at every call."""
    # JAX also builds its pytrees of things that are not arrays, such as shapes.
    is_pytree = function.__module__ == "convjax.training.steps" and function.__name__ == "__init__"
    return function if is_pytree else _check(function)
