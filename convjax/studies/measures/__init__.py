"""Measurements on trained networks: shifted images, receptive fields, linear probes, training accuracy.

`windows` compares our output sizes with XLA's."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
