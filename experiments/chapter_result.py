"""Is the chapter's 99.17 % what its network reaches, or a lucky run? And what do dense nets reach instead?

python -m experiments.chapter_result

Expect (MNIST, 5 epochs): the convnet 99.06 % over 10 seeds; the dense net of 512 units 98.00 %, of equal parameters
97.51 %, of equal FLOPs 98.33 %.
"""

from __future__ import annotations

import dataclasses

from convjax import studies
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

CHAPTER = 0.9917

STUDY = Study(
    name="chapter_result",
    question="Which test accuracies do the chapter's convnet and the dense net before it reach over seeds?",
    reading=(
        "Each arm is the chapter's run except for its network: the convnet of 93,322 parameters, and dense nets with "
        "one hidden layer. That layer has the 512 units of the earlier chapter, or as many units as give the net the "
        "convnet's parameters or FLOPs."
    ),
    arms=({"model": "convnet"}, {"model": "dense"}),
    baseline={"model": "convnet"},
    seeds=10,
    quick={"train_size": 2000},
)
STUDIES = {
    "plain": STUDY,
    "params": dataclasses.replace(STUDY, match="params", seeds=5),
    "flops": dataclasses.replace(STUDY, match="flops", seeds=3),
}
NETS = {"plain": "dense net", "params": "dense net of equal parameters", "flops": "dense net of equal FLOPs"}


def label(study: str, runs: studies.StudyRuns) -> str:
    """`dense net (512 units)`."""
    return f"{NETS[study]} ({runs.arm(model='dense').config.dense_units} units)"


def judge(**runs: studies.StudyRuns) -> list[studies.Finding]:
    """Does 99.17 % lie in the prediction interval of a single run, and is the convnet better than each dense net?"""
    convnet = runs["plain"].values(model="convnet")
    findings = [studies.prediction("99.17 % is a plausible single run", convnet, CHAPTER)]
    for study in NETS:
        part = f"the convnet is more accurate than the {label(study, runs[study])}"
        dense = runs[study].values(model="dense")
        findings.append(studies.difference(part, dense, convnet, studies.above(), decides=study != "flops"))
    return findings


def figures(**runs: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """Every seed of every net, with the prediction interval and the chapter's number."""
    arms = {"convnet": runs["plain"].values(model="convnet")}
    arms |= {label(study, runs[study]): runs[study].values(model="dense") for study in NETS}
    reference = (CHAPTER, "the chapter's 99.17 %")
    title = "Test accuracy of every seed"
    return [studies.accuracy_figure("seeds", title, arms, reference=reference, predicted=["convnet"])]


CLAIM = Claim(
    name="chapter_result",
    title="99.17 %",
    section="Introduction to convnets",
    quote="Test accuracy: 99.17%. Even this simple convnet achieved accuracy of more than 90%.",
    studies=STUDIES,
    judge=judge,
    figures=figures,
    would_change=(
        "Another optimizer, learning rate or number of epochs shifts the distribution; here they are the chapter's. "
        "The dense nets are trained as the convnet is and not tuned; dropout or augmentation would narrow the gap. A "
        "library with other initial weights, or an RMSprop with epsilon outside the root, has another distribution."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
