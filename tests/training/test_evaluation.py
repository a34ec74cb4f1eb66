"""The area under the ROC curve, against SciPy and by counting pairs."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from convjax.training.evaluation import roc_auc

# Few values, so that there are ties within and between the classes.
few = st.lists(st.integers(-3, 3).map(lambda value: value / 2), min_size=1, max_size=15)
many = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=15)


@given(st.one_of(st.tuples(few, few), st.tuples(many, many)), st.randoms())
def test_the_area_is_mann_and_whitneys_u_over_the_pairs(groups, random):
    negatives, positives = groups
    examples = [(score, False) for score in negatives] + [(score, True) for score in positives]
    random.shuffle(examples)
    scores, positive = (np.array(column) for column in zip(*examples, strict=True))
    area = roc_auc(scores, positive)
    pairs = len(negatives) * len(positives)
    u = scipy.stats.mannwhitneyu(positives, negatives, method="asymptotic").statistic
    assert area == pytest.approx(u / pairs, abs=1e-12)
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert area == pytest.approx(wins / pairs, abs=1e-12)
    # The other class's area is what is left.
    assert roc_auc(-scores, positive) == pytest.approx(1 - area, abs=1e-12)


def test_no_area_without_both_classes_or_with_scores_that_are_no_numbers():
    assert roc_auc(np.array([1.0, 2.0]), np.array([True, True])) is None
    assert roc_auc(np.array([1.0, np.nan]), np.array([True, False])) is None
    assert roc_auc(np.array([1.0, np.inf]), np.array([False, True])) == 1.0
