"""Every claim of the chapter, tested: one page with a verdict, a figure and a command for each.

python -m experiments.claims
"""

from convjax.claims import run_all
from experiments import chapter_result, equivariance, local_patterns, position, translation

# In the order of the chapter, which is the order of the page.
CLAIMS = (
    chapter_result.CLAIM,
    local_patterns.CLAIM,
    translation.CLAIM,
    equivariance.CLAIM,
    position.CLAIM,
)  # fmt: skip

if __name__ == "__main__":
    run_all(CLAIMS)
