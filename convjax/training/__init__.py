"""Training: a compiled epoch, the loop around it, evaluation, checkpoints.

Start with `steps` (pure functions over a `TrainState`), then `loop.fit`. Names load their modules when first used, so
importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
