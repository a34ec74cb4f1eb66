"""Data sets as whole uint8 arrays: `data.load(name)` finds, verifies, prepares and caches any of them.

Start with `loading`. `idx` holds MNIST and its kin, `folders` folders of images, `tfds` every other name that TFDS
knows. Scaling, shuffling and `augment` belong to the run. Names load their modules when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
