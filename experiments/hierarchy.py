"""Do layers build on layers? Receptive fields, linear probes of every layer, and nets of one, two and three blocks.

python -m experiments.hierarchy

Expect (MNIST, channels 16-32-32, 2 epochs, 3 seeds): a linear classifier reads the digit 8.0 points better off the
third block than off the pixels; at equal parameters three blocks gain 2.6 points over one, which 3 seeds do not show.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from convjax import analysis, studies
from convjax.studies import measures
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement

CONVOLUTIONS = ("conv2d_1", "conv2d_2", "conv2d_3")
PROBED = {
    "input": "the pixels",
    "max_pooling2d_1": "the first block",
    "max_pooling2d_2": "the second block",
    "max_pooling2d_3": "the third block",
}
BLOCKS = Study(
    name="hierarchy",
    question="At equal parameters, does test accuracy grow with the number of blocks, from one to three?",
    reading=(
        "A block is a 3x3 convolution with padding and 2x2 max-pooling. The classifier after the last block is linear, "
        "so a net owes its blocks everything beyond a linear model. All nets have as many parameters as the deepest. "
        "The shallow ones have few filters, because their large maps need a large classifier, and fewer FLOPs."
    ),
    arms=({"channels": "16"}, {"channels": "16-32"}, {"channels": "16-32-32"}),
    baseline={"channels": "16-32-32"},
    base={"padding": "same", "pool": "max+", "dense_units": "0", "epochs": 2},
    match="params",
    seeds=3,
    quick={"train_size": 1000},
)
LAYERS = Study(
    name="hierarchy",
    question="What does each layer of the three blocks see, and how well can a linear classifier read it?",
    reading=(
        "The net of three blocks. The effective receptive field is measured by the gradients of a feature map's center "
        "with respect to the pixels, over 500 test images. A probe is a logistic regression on a layer's activations, "
        "fitted on 3,000 training images and tested on all test images."
    ),
    arms=({"channels": "16-32-32"},),
    base=BLOCKS.base,
    seeds=3,
    quick=BLOCKS.quick,
    measurements=(
        Measurement("receptive_fields", lambda trained: measures.measure_fields(trained)),
        Measurement("probes", lambda trained: measures.measure_probes(trained)),
    ),
)


def by_depth(blocks: studies.StudyRuns) -> list[dict[int, float]]:
    """Accuracies by seed of the nets of one, two and three blocks; matching has changed their channels."""
    arms = sorted(blocks.arms, key=lambda arm: arm.config.channels.count("-"))
    return [blocks.values(channels=arm.config.channels) for arm in arms]


def by_seed(found: Mapping[int, Any], layer: str, value: str, network: str = "trained") -> dict[int, float]:
    """One measured value of a layer by seed."""
    return {seed: one[network][layer][value] for seed, one in found.items()}


def window_findings(runs: studies.StudyRuns) -> list[studies.Finding]:
    """Windows grow with depth, in theory and in effect."""
    pixels = analysis.metrics.Metric("width", "effective width", "", "pixels", decimals=2)
    layers = runs.plan()
    sizes = {layer.name: layer.receptive_field.size[0] for layer in layers if layer.receptive_field is not None}
    first, second, third = (sizes[name] for name in CONVOLUTIONS)
    told = " -> ".join(f"{name} {size}x{size}" for name, size in sizes.items())
    findings = [studies.exact("each convolution looks at a larger window of the image", first < second < third, told)]
    fields = runs.measured("receptive_fields")
    for before, after in itertools.pairwise(CONVOLUTIONS):
        smaller, larger = (by_seed(fields, layer, "width") for layer in (before, after))
        part = f"measured by gradients, {after} looks at a larger window than {before}"
        findings.append(studies.difference(part, smaller, larger, studies.above(), metric=pixels))
    return findings


def probe_findings(runs: studies.StudyRuns) -> list[studies.Finding]:
    """Classes become more linear with every block, and training does it."""
    probes = runs.measured("probes")
    accuracies = {layer: by_seed(probes, layer, "test_accuracy") for layer in PROBED}
    first, last = "input", "max_pooling2d_3"
    untrained = by_seed(probes, last, "test_accuracy", "untrained")
    findings = []
    for before, after in (*itertools.pairwise(PROBED), (first, last)):
        part = f"a linear classifier reads the digit better off {PROBED[after]} than off {PROBED[before]}"
        # The step to the third block does not decide: that block has a fifth of the second's features.
        decides = (before, after) != ("max_pooling2d_2", last)
        pair = accuracies[before], accuracies[after]
        findings.append(studies.difference(part, *pair, studies.above(), decides=decides))
    part = "training does that: a linear classifier reads the third block of an untrained network less well"
    return [*findings, studies.difference(part, accuracies[last], untrained, studies.below())]


def judge(layers: studies.StudyRuns, blocks: studies.StudyRuns) -> list[studies.Finding]:
    """Windows grow, classes become more linear with every block, training does it, and depth pays."""
    one, two, three = by_depth(blocks)
    return [
        *window_findings(layers),
        *probe_findings(layers),
        studies.difference("at equal parameters two blocks are more accurate than one", one, two, studies.above()),
        studies.difference("three blocks are more accurate than one", one, three, studies.above()),
        studies.difference("three blocks are more accurate than two", two, three, studies.above(), decides=False),
    ]


def figures(layers: studies.StudyRuns, blocks: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """Where each layer looks, what can be read off it, and the accuracy by number of blocks."""
    accuracies = dict(zip(("one block", "two blocks", "three blocks"), by_depth(blocks), strict=True))
    return [
        studies.fields_figure(layers.plan(), layers.measured("receptive_fields")),
        studies.probes_figure(layers.measured("probes")),
        studies.accuracy_figure("blocks", "Test accuracy by number of blocks, at equal parameters", accuracies),
    ]


CLAIM = Claim(
    name="hierarchy",
    title="Spatial hierarchies of patterns",
    section="The convolution operation",
    quote=(
        "They learn spatial hierarchies of patterns: First convolution layer will learn small local patterns such as "
        "edges, a second convolution layer will learn larger patterns made of the features of the first layer, and so "
        "on."
    ),
    studies={"layers": LAYERS, "blocks": BLOCKS},
    judge=judge,
    figures=figures,
    would_change=(
        "That windows grow is arithmetic, and that their effective part grows nearly follows from it; a net for which "
        "the rim of its windows matters more than their middle could still contradict it. Probes say that classes "
        "become easier to separate, not that features are 'patterns made of patterns'. Probes fitted on more images "
        "gain most on layers of many features. On data with structure at more scales than digits, depth should pay "
        "more; with a hidden dense layer after the blocks, less."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
