"""Do convolutions learn local patterns, and is it that or the shared weights that makes them better than dense layers?

python -m experiments.local_patterns
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

MARGIN = 0.005
NAMES = {"convnet": "convolutions", "local": "locally connected", "dense": "dense"}
PIXELS = {"grid": "the image as it is", "permuted": "pixels permuted"}

STUDY = Study(
    name="local_patterns",
    question="What do locality and shared weights each give, and what is left of them when pixels are permuted?",
    reading=(
        "The locally connected net has the convnet's windows and channels, but kernels of its own at every position: "
        "local patterns, nothing shared. The permutation is one for all images and runs: it keeps every grey level and "
        "takes away which pixels are neighbours. To a dense layer that is another order of its inputs and nothing else."
    ),
    axes={"model": tuple(NAMES), "pixels": tuple(PIXELS)},
    baseline={"model": "dense", "pixels": "grid"},
    base={"channels": "16-32-32", "train_size": 10_000, "epochs": 3},
    seeds=3,
    quick={"channels": "8-16-16", "train_size": 2000},
)

DENSE = Study(**{**vars(STUDY), "axes": {**STUDY.axes, "model": ("dense",)}, "seeds": 10})
"""That two accuracies are equal takes more seeds to show than that they differ, and these runs are short."""


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Locality helps where neighbours are neighbours, and not where they are not."""
    from convjax.studies.verdict import difference

    def values(model: str, pixels: str = "grid") -> dict[int, float]:
        return evidence.values(model=model, pixels=pixels)

    limit = f"{100 * MARGIN:g} points"
    return [
        difference(
            "the convnet is more accurate than the dense net", values("dense"), values("convnet"), claimed="higher"
        ),
        difference(
            "permuted pixels cost the convnet accuracy",
            values("convnet"),
            values("convnet", "permuted"),
            claimed="lower",
        ),
        difference(
            f"permuted pixels change the dense net's accuracy by less than {limit}",
            evidence.values(study="dense", pixels="grid"),
            evidence.values(study="dense", pixels="permuted"),
            claimed="equal",
            margin=MARGIN,
        ),
        difference(
            "local windows alone, with unshared weights, are more accurate than the dense net",
            values("dense"),
            values("local"),
            claimed="higher",
            decides=False,
        ),
        difference(
            "shared weights are more accurate than unshared ones",
            values("local"),
            values("convnet"),
            claimed="higher",
            decides=False,
        ),
        difference(
            "permuted pixels cost the locally connected net accuracy",
            values("local"),
            values("local", "permuted"),
            claimed="lower",
            decides=False,
        ),
        difference(
            "on permuted pixels the convnet is less accurate than the dense net",
            values("dense", "permuted"),
            values("convnet", "permuted"),
            claimed="lower",
            decides=False,
        ),
    ]


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed of every net on both kinds of images."""
    from convjax.studies.figures import accuracy_figure

    arms = {
        f"{name}, {words}": evidence.values(model=model, pixels=pixels)
        for pixels, words in PIXELS.items()
        for model, name in NAMES.items()
    }
    return [accuracy_figure("arms", "Test accuracy with and without neighbours", arms, theme=theme)]


CLAIM = Claim(
    name="local_patterns",
    title="Local against global patterns",
    section="The convolution operation",
    quote=("Dense layers learn global patterns in their input space, whereas convolution layers learn local patterns."),
    studies={"patterns": STUDY, "dense": DENSE},
    judge=judge,
    figures=figures,
    would_change=(
        "If the convnet stayed as good on permuted pixels, its advantage would not come from local patterns. Images "
        "whose neighbouring pixels have little to do with each other would give it none to begin with. The dense net's "
        "equality is a matter of theory, its first layer starts out the same in distribution whatever the order of the "
        "inputs: what is measured is that nothing else in the pipeline knows of the grid."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
