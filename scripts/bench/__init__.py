"""The parts of scripts/bench.py.

Start with `chapter`, the chapter's run beside its peers. `workers` starts a process for each contender and asks it for
work; `serve` is what runs in that process. The contenders are in `ours`, `peers` and `convolutions`. Only `ours` knows
how this library trains. Modules load when first used, so `scripts/bench.py --help` is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
