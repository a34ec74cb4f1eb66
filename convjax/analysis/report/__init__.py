"""The page of an experiment: `report.write_report` puts it together from the parts in `html`.

`answer` says in sentences what the statistics allow, `figures` draws, `origin` tells where the results come from.
Names load their modules when first used, so importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
