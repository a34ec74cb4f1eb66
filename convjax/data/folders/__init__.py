"""Data sets of image files: `folder:PATH` (`folder`) and cats and dogs from their archive (`cats_vs_dogs`).

Both list their images as `image_set.Item`s; `image_set.build` turns those into a data set, `images` decodes one of
them. Names load their modules when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
