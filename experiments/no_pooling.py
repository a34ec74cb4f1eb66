"""What does the chapter's net lose without max-pooling? Windows, coefficients, accuracy, overfitting.

python -m experiments.no_pooling

Expect (MNIST, channels 4-8-8, 2 epochs, 3 seeds): without max-pooling the net is 2.5 points more accurate; at equal
FLOPs (channels 8-16-16 with pooling) 0.18 points, which 3 seeds do not show.
"""

from __future__ import annotations

import dataclasses

from convjax import studies
from convjax.config import RunConfig
from convjax.nn.geometry import plan, total_parameters
from convjax.studies import measures
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement

STUDY = Study(
    name="no_pooling",
    question="What does the chapter's net lose or gain without max-pooling?",
    reading=(
        "The chapter's network at an eighth of its width (a quarter at equal FLOPs), for two epochs, with and without "
        "2x2 max-pooling between convolutions. Without it the last map has 54 times the coefficients, nearly all "
        "parameters are in the dense layer, and an image costs ten times the FLOPs. At equal FLOPs the net without "
        "pooling has fewer channels."
    ),
    arms=({"pool": "max"}, {"pool": "none"}),
    baseline={"pool": "max"},
    base={"channels": "4-8-8", "epochs": 2},
    seeds=3,
    quick={"train_size": 1000},
    measurements=(Measurement("train_accuracy", lambda trained: measures.measure_train_accuracy(trained)),),
)
# Twice the channels, so that the net without pooling keeps some.
MATCHED = dataclasses.replace(STUDY, base={**STUDY.base, "channels": "8-16-16"}, match="flops")
NAMES = {"plain": "at equal channels", "flops": "at equal FLOPs"}
POOLS = {"max": "with pooling", "none": "without"}


def gaps(runs: studies.StudyRuns, pool: str) -> dict[int, float]:
    """Training accuracy minus test accuracy by seed."""
    train = runs.measured("train_accuracy", pool=pool)
    test = runs.values(pool=pool)
    return {seed: train[seed] - test[seed] for seed in train if seed in test}


def judge(**runs: studies.StudyRuns) -> list[studies.Finding]:
    """Coefficients and windows by arithmetic, at the chapter's width; accuracy and overfitting as measured."""
    nets = [plan(RunConfig(pool=pool), (28, 28, 1), 10) for pool in POOLS]
    last = [[layer for layer in layers if layer.kind == "Conv2D"][-1] for layers in nets]
    maps = ["x".join(map(str, layer.output_shape)) for layer in last]
    flat = [next(layer.output_shape[0] for layer in layers if layer.kind == "Flatten") for layers in nets]
    total = [total_parameters(layers) for layers in nets]
    fields = [layer.receptive_field.size[0] for layer in last if layer.receptive_field is not None]
    findings = [
        studies.exact(
            "max-pooling reduces the number of feature-map coefficients to process",
            flat[0] < flat[1],
            f"in the chapter's net {maps[0]} = {flat[0]:,} instead of {maps[1]} = {flat[1]:,}, and in all "
            f"{total[0]:,} parameters instead of {total[1]:,}",
        ),
        studies.exact(
            "max-pooling makes successive layers look at larger windows",
            fields[0] > fields[1],
            f"the third convolution sees {fields[0]}x{fields[0]} pixels instead of {fields[1]}x{fields[1]}",
        ),
    ]
    for study, name in NAMES.items():
        pooled, plain = (runs[study].values(pool=pool) for pool in POOLS)
        part = f"{name} the net with max-pooling is more accurate than the one without"
        findings.append(studies.difference(part, plain, pooled, studies.above()))
        pooled, plain = (gaps(runs[study], pool) for pool in POOLS)
        part = f"{name} the net without overfits more (training accuracy minus test accuracy)"
        findings.append(studies.difference(part, pooled, plain, studies.above(), decides=False))
    return findings


def figures(**runs: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """Every seed, with and without pooling."""
    accuracies, overfitting = {}, {}
    for study, name in NAMES.items():
        for pool, words in POOLS.items():
            label = f"{words}, {name} ({runs[study].arm(pool=pool).config.channels})"
            accuracies[label] = runs[study].values(pool=pool)
            overfitting[label] = gaps(runs[study], pool)
    title, gap = "Test accuracy with and without max-pooling", "Training accuracy minus test accuracy"
    return [
        studies.accuracy_figure("accuracy", title, accuracies),
        studies.accuracy_figure("overfitting", gap, overfitting, metric="gap in accuracy"),
    ]


CLAIM = Claim(
    name="no_pooling",
    title="Why downsample?",
    section="The max-pooling operation",
    quote=(
        "Reason to use downsampling is to reduce the number of feature-map coefficients to process, as well as to "
        "induce spatial-filter hierarchies by making successive convolution layers look at increasingly large "
        "windows."
    ),
    studies={"plain": STUDY, "flops": MATCHED},
    judge=judge,
    figures=figures,
    would_change=(
        "The counts are arithmetic. The book adds that a net without pooling would overfit intensely. With 60,000 "
        "images and few epochs there is little time for that; fewer images or more epochs should widen the gap. "
        "Centered digits need no large windows; larger images would. With a global average instead of the dense layer, "
        "the net without pooling would not have its parameters."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
