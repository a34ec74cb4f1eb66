"""What a trained network sees: feature maps, filters, saliency and sliding windows, as numbers and as pictures.

Start with `activations`, the simplest of the four modules of numbers; `pictures` draws them all. Names load their
modules when first used, so importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
