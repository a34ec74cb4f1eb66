"""TensorFlow Datasets without TensorFlow: any TFDS name, and the prepared copies of our own data sets.

Start with `names.prepare`. All code that imports TFDS is here; since names load their modules when first used, only
the first preparation of a data set pays for that import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
