"""Can a convnet tell where a pattern is? The same patch near two corners: a task of position and nothing else.

python -m experiments.position
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

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
        "Every patch of noise is shown at both places, so that nothing but the place tells the classes apart, and "
        "chance is 50 %. Three 3x3 convolutions without pooling see 7 pixels: 7 pixels away from the border no window "
        "that sees the patch sees the border as well. With a global average a net knows what it found, not where."
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


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Away from the borders averaged convolutions cannot tell; at the borders neither should they."""
    from convjax.studies.verdict import rate

    def values(place: str, net: str) -> dict[int, float]:
        return evidence.values(dataset=place, **NETS[net])

    def blind(part: str, place: str, net: str, decides: bool = True) -> "Finding":
        return rate(part, values(place, net), IMAGES, claimed="equal", than=0.5, margin=MARGIN, decides=decides)

    def knows(part: str, place: str, net: str) -> "Finding":
        return rate(part, values(place, net), IMAGES, claimed="higher", than=KNOWS, decides=False)

    corner, away = PLACES
    return [
        blind(
            "away from the borders a convnet with valid windows cannot tell where a patch is", away, "valid, averaged"
        ),
        blind("away from the borders nor can one with padding", away, "same, averaged"),
        blind("in the corner a convnet with padding cannot tell", corner, "same, averaged"),
        blind("in the corner a convnet with valid windows cannot tell", corner, "valid, averaged"),
        knows(
            "what averaging takes away a flattened map has: that net can tell, away from the borders",
            away,
            "same, flattened",
        ),
        knows("so can the dense net", away, "dense"),
    ]


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed of every net at both places."""
    from convjax.studies.figures import accuracy_figure

    arms = {
        f"{name}, {words}": evidence.values(dataset=place, **net)
        for place, words in PLACES.items()
        for name, net in NETS.items()
    }
    return [
        accuracy_figure(
            "nets", "Telling the upper left from the lower right", arms, theme=theme, reference=(0.5, "chance")
        )
    ]


CLAIM = Claim(
    name="position",
    title="A convolution does not know where it is",
    section="The convolution operation",
    quote="(does not depend on whether it was in the lower right-corner or at a different place)",
    studies={"corners": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "Padding that does not mark the border (circular) or more background around the patch takes the position away; "
        "pooling, deeper stacks and larger windows carry it further inwards, up to half of their receptive field "
        "(Kayhan and van Gemert 2020). On black images zero padding is at its least visible: its zeros are the "
        "background's own, until biases have lifted that."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
