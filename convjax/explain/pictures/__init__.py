"""Pictures of one run, and the page that shows them: what `experiments.visualize` writes.

`load_subject` reads a run, each function of `CHAPTERS` turns it into a chapter of pictures, `write_gallery` draws them.
A module here holds one chapter or two: first the drawings, then the function that chooses what to draw. Names load
their modules when first used, so importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
