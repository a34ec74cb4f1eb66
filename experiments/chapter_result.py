"""Is the chapter's 99.17 % what its network reaches, or a lucky run? And what do dense nets reach with as much?

python -m experiments.chapter_result
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

CHAPTER = 0.9917

ARMS = ({"model": "convnet"}, {"model": "dense"})
STUDY = Study(
    name="chapter_result",
    question="Which test accuracies does the chapter's run reach over seeds, and which the dense net before it?",
    reading=(
        "Each arm is the chapter's run but for its network: the convnet of 93,322 parameters, and dense nets with one "
        "hidden layer, of the earlier chapter's 512 units and of as many units as make the parameters or the FLOPs of "
        "the convnet."
    ),
    arms=ARMS,
    baseline={"model": "convnet"},
    seeds=10,
    quick={"train_size": 2000},
)


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Is 99.17 % within the prediction interval of a single run, and is the convnet better than each dense net?"""
    from convjax.studies.verdict import difference, prediction

    convnet = evidence.values(model="convnet")
    findings = [prediction("99.17 % is what one more run may reach", convnet, CHAPTER)]
    names = {
        "plain": "the dense net of 512 units",
        "params": "a dense net of equal parameters",
        "flops": "a dense net of equal FLOPs",
    }
    for study, name in names.items():
        units = evidence.arm(study=study, model="dense").config.dense_units
        part = f"the convnet is more accurate than {name}" + (f" ({units} units)" if study != "plain" else "")
        dense = evidence.values(study=study, model="dense")
        findings.append(difference(part, dense, convnet, claimed="higher", decides=study != "flops"))
    return findings


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed of every net, with the prediction interval and the chapter's number."""
    from convjax.studies.figures import accuracy_figure

    arms = {"convnet": evidence.values(model="convnet")}
    for study, name in (("plain", "dense, 512 units"), ("params", "equal parameters"), ("flops", "equal FLOPs")):
        arm = evidence.arm(study=study, model="dense")
        label = name if study == "plain" else f"dense, {name} ({arm.config.dense_units})"
        arms[label] = evidence.values(study=study, model="dense")
    return [
        accuracy_figure(
            "seeds",
            "Test accuracy of every seed",
            arms,
            theme=theme,
            reference=(CHAPTER, "the chapter's 99.17 %"),
            predicted=("convnet",),
        )
    ]


CLAIM = Claim(
    name="chapter_result",
    title="99.17 %",
    section="Introduction to convnets",
    quote="Test accuracy: 99.17%. Even this simple convnet achieved accuracy of more than 90%.",
    studies={
        "plain": STUDY,
        "params": Study(**{**vars(STUDY), "match": "params", "seeds": 5}),
        "flops": Study(**{**vars(STUDY), "match": "flops", "seeds": 3}),
    },
    judge=judge,
    figures=figures,
    would_change=(
        "Another optimizer, learning rate or number of epochs moves the distribution: here they are the chapter's. The "
        "dense nets are trained as the convnet is and not tuned; dropout or augmentation would narrow the gap. "
        "A library with other initial weights, or an RMSprop with epsilon outside the root, is another distribution."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
