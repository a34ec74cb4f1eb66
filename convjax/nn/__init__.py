"""Networks: their geometry (no JAX), their layers as Flax Linen modules, and the convolution that a CPU runs fast.

Start with `geometry.plan`, which turns a RunConfig into layers with shapes; `layers` says what each computes; `models`
chains them. `layerwise` runs a network one layer at a time. `fast/` holds how a CPU computes convolutions quickly; a
reader may skip it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
