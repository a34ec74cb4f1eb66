"""Can a convnet tell where a pattern is? The same patch near two corners: a task of position and nothing else.

python -m experiments.position

Expect (8 epochs, 3 seeds): averaged convnets guess (50 %) if the patch is 7 pixels from the border and are always right
(100 %) if it is in the corner; the flattened convnet and the dense net are always right.
"""

from __future__ import annotations

from convjax import studies
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

MARGIN, KNOWS = 0.05, 0.9
IMAGES = 1000
PLACES = {"corners/0": "in the corner", "corners/7": "7 pixels away"}
NETS = {
    "valid, averaged": {"model": "convnet", "padding": "valid", "head": "gap"},
    "same, averaged": {"model": "convnet", "padding": "same", "head": "gap"},
    "same, flattened": {"model": "convnet", "padding": "same", "head": "flatten"},
    "dense": {"model": "dense"},
}
_SHARED = {"dense_units": "16", "pool": "none", "channels": "8-8-8"}

STUDY = Study(
    name="position",
    question="Which nets can tell whether a patch is at the upper left or at the lower right?",
    reading=(
        "Every patch of noise is shown at both places, so only the place distinguishes the classes, and chance is "
        "50 %. Three 3x3 convolutions without pooling see 7 pixels: if the patch is 7 pixels away from the border, no "
        "window sees both the patch and the border. With a global average a net knows what it found, not where."
    ),
    arms=tuple(
        {"dataset": place, **net, **(_SHARED if net["model"] == "convnet" else {"dense_units": "16"})}
        for place in PLACES
        for net in NETS.values()
    ),
    baseline={"dataset": "corners/0", **NETS["valid, averaged"]},
    base={"epochs": 8},
    seeds=3,
)


def judge(corners: studies.StudyRuns) -> list[studies.Finding]:
    """Averaged convolutions cannot tell away from the borders, and by the claim not at the borders either."""
    corner, away = ({net: corners.values(dataset=place, **fields) for net, fields in NETS.items()} for place in PLACES)

    def blind(part: str, values: dict[int, float]) -> studies.Finding:
        return studies.rate(part, values, IMAGES, studies.within(MARGIN, of=0.5))

    def knows(part: str, values: dict[int, float]) -> studies.Finding:
        return studies.rate(part, values, IMAGES, studies.above(KNOWS), decides=False)

    return [
        blind("away from the borders a convnet without padding cannot tell where a patch is", away["valid, averaged"]),
        blind("away from the borders a padded convnet cannot tell either", away["same, averaged"]),
        blind("in the corner a padded convnet cannot tell", corner["same, averaged"]),
        blind("in the corner a convnet without padding cannot tell", corner["valid, averaged"]),
        knows("with Flatten instead of averaging the net can tell, away from the borders", away["same, flattened"]),
        knows("the dense net can tell, away from the borders", away["dense"]),
    ]


def figures(corners: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """Every seed of every net at both places."""
    arms = {
        f"{name}, {words}": corners.values(dataset=place, **net)
        for place, words in PLACES.items()
        for name, net in NETS.items()
    }
    title = "Telling the upper left from the lower right"
    return [studies.accuracy_figure("nets", title, arms, reference=(0.5, "chance"))]


CLAIM = Claim(
    name="position",
    title="A convolution does not know where it is",
    section="The convolution operation",
    quote="(does not depend on whether it was in the lower right-corner or at a different place)",
    studies={"corners": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "Padding that does not mark the border (circular) or more background around the patch hides the position. "
        "Pooling, deeper stacks and larger windows carry it further inwards, up to half of their receptive field "
        "(Kayhan and van Gemert 2020). On black images zero padding is hardest to see: its zeros equal the "
        "background, until biases lift the background."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
