"""Every claim of the chapter, tested: one page with a verdict, a figure and a command for each.

python -m experiments.claims
"""

from convjax.studies.claim import run_all
from experiments import (
    border_effects,
    chapter_result,
    equivariance,
    hierarchy,
    local_patterns,
    max_or_average,
    no_pooling,
    output_sizes,
    position,
    sample_efficiency,
    strides_or_pooling,
    translation,
    typical_windows,
)

# In the order of the chapter, which is the order of the page.
CLAIMS = (
    chapter_result.CLAIM,
    local_patterns.CLAIM,
    translation.CLAIM,
    equivariance.CLAIM,
    position.CLAIM,
    sample_efficiency.CLAIM,
    hierarchy.CLAIM,
    typical_windows.CLAIM,
    output_sizes.CLAIM,
    border_effects.CLAIM,
    strides_or_pooling.CLAIM,
    no_pooling.CLAIM,
    max_or_average.CLAIM,
)  # fmt: skip

if __name__ == "__main__":
    run_all(CLAIMS)
