"""Studies and claims: what the scripts in `experiments/` are made of.

A `Study` is a question and the arms that answer it; `study.run` is the whole program of its script. A `Claim` is a
sentence of the chapter with the studies that test it. Its `judge` turns their `StudyRuns` into findings (`difference`,
`estimate`, `rate`, `prediction`, `exact`), its `figures` draw them (`accuracy_figure` and the others), and `page` shows
all of it. `measures` holds what is measured on trained networks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
