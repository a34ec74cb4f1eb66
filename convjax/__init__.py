"""convjax: the claims of a well-known convnet chapter as runnable, measured experiments in JAX.

The packages, from the bottom up: `data` and `nn`, `training`, `sweeps`, `analysis`, `explain` and `studies`. Scripts in
`experiments/` ask one question each. Start reading there, with `experiments/kernel_size.py`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["analysis", "convert", "data", "explain", "nn", "studies", "sweeps", "training"]
)
