"""MNIST and its kin: data sets published as IDX files.

`catalog` describes them, `sources` finds their files, `reading` verifies and reads a file, and `pipeline.prepare`,
the place to start, puts these together. Names load their modules when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
