"""Analysis: from a table of runs to statistics, tables, plots and the report of an experiment.

Everything starts from the DataFrame of `convjax.sweeps.read_runs`. `arms.group_runs` makes arms of it, and
`statistics` and `comparisons` say which arm is better; start with these. `tables` makes a `Table` of arms, which
`render` writes in any format, `plots` draws them, and `report.write_report` puts all of it on one page.

Names load their modules when first used, so importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
