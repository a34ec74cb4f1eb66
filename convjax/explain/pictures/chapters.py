"""The chapters of the page, by the names that `--what` takes."""

from collections.abc import Callable, Mapping

from convjax.explain.pictures import architecture, filters, maps, training, why, windows
from convjax.explain.pictures.gallery import Chapter
from convjax.explain.pictures.subject import Subject

CHAPTERS: Mapping[str, Callable[[Subject], Chapter]] = {
    "model": architecture.model,
    "convolution": windows.convolution,
    "feature_maps": maps.feature_maps,
    "filters": filters.filter_sheets,
    "why": why.why,
    "wrong": why.wrong,
    "inside": training.inside,
    "film": training.film,
}
"""Each function raises a one-line UserError where a run has nothing to show."""
