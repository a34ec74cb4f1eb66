"""What is measured of predictions beside their accuracy. NumPy only."""

import numpy as np
from jaxtyping import Bool, Float


def roc_auc(scores: Float[np.ndarray, " examples"], positive: Bool[np.ndarray, " examples"]) -> float | None:
    """Area under the ROC curve: the chance that a positive example scores higher than a negative one.

    Mann and Whitney's U over the number of pairs, from ranks; a tie counts half (Hanley & McNeil, 1982). None where a
    score is NaN or one of the two kinds is missing.
    """
    positives = int(np.sum(positive))
    negatives = len(positive) - positives
    if not positives or not negatives or np.isnan(scores).any():
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = ((last - counts + 1 + last) / 2)[place]
    return float((np.sum(ranks[positive]) - positives * (positives + 1) / 2) / (positives * negatives))
