"""Sweeps: a grid of arms, their runs, and the store that keeps them.

Start with `grid` (which arms), `run` (one run, from its configuration to a finished directory) and `runner` (all runs
of a sweep). `store` is the directory of one run. Names load their modules when first
used, so importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
