"""Plots: figures of arms (accuracy, learning curves, cost), of one run, and of the windows of a net's layers.

`theme` says how they look and writes them to files or into pages; start there, then read `accuracy`. Names load their
modules when first used, so importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
