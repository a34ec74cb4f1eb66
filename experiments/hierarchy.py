"""Do layers build on layers? Receptive fields, linear probes of every layer, and nets of one, two and three blocks.

python -m experiments.hierarchy
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement, Trained

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding


def receptive_fields(trained: Trained) -> dict[str, Any]:
    """See `convjax.studies.measures.receptive`."""
    from convjax.studies.measures.receptive import measure_fields

    return measure_fields(trained)


def probes(trained: Trained) -> dict[str, Any]:
    """See `convjax.studies.measures.probes`."""
    from convjax.studies.measures.probes import measure_probes

    return measure_probes(trained)


CONVOLUTIONS = ("conv2d_1", "conv2d_2", "conv2d_3")
PROBED = ("input", "max_pooling2d_1", "max_pooling2d_2", "max_pooling2d_3")

BLOCKS = Study(
    name="hierarchy",
    question="With equal parameters, does test accuracy grow with the number of blocks, from one to three?",
    reading=(
        "A block is a 3x3 convolution with padding and 2x2 max-pooling. The classifier behind the last block is "
        "linear, so that what a net can do beyond a linear model is in its blocks. All nets have the parameters of "
        "the deepest: the shallow ones have few filters, because their large maps need a large classifier, and fewer "
        "FLOPs."
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
        "The net of three blocks. The effective receptive field is measured by the gradients of a feature map's centre "
        "with respect to the pixels, over 500 test images. A probe is a logistic regression on a layer's activations, "
        "fitted on 3,000 training images and tested on all test images."
    ),
    arms=({"channels": "16-32-32"},),
    base=BLOCKS.base,
    seeds=3,
    quick=BLOCKS.quick,
    measurements=(Measurement("receptive_fields", receptive_fields), Measurement("probes", probes)),
)
DEPTHS = {"one block": "16", "two blocks": "16-32", "three blocks": "16-32-32"}


def widths(found: Mapping[int, Any], layer: str, network: str = "trained") -> dict[int, float]:
    """The effective width of a layer's receptive field by seed."""
    return {seed: one[network][layer]["width"] for seed, one in found.items()}


def accuracies(found: Mapping[int, Any], layer: str, network: str = "trained") -> dict[int, float]:
    """The test accuracy of a layer's probe by seed."""
    return {seed: one[network][layer]["test_accuracy"] for seed, one in found.items()}


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Fields grow, classes become more linear with every block, training does it, and depth pays."""
    from convjax import data
    from convjax.analysis.metrics import Metric
    from convjax.nn.geometry import plan
    from convjax.studies.verdict import difference, exact

    pixels = Metric("width", "effective width", "", "pixels", decimals=2)
    config = evidence.arm(study="layers").config
    layers = plan(config, *data.image_info(config.dataset, **config.data_settings))
    sizes = {layer.name: layer.receptive_field.size for layer in layers if layer.receptive_field is not None}
    seen = [sizes[name][0] for name in CONVOLUTIONS]
    fields = evidence.measured("receptive_fields", study="layers")
    probed = evidence.measured("probes", study="layers")
    names = dict(zip(PROBED, ("the pixels", "the first block", "the second block", "the third block"), strict=True))
    found = [
        exact(
            "each convolution looks at a larger window of the image",
            seen[0] < seen[1] < seen[2],
            " -> ".join(f"{name} {size[0]}x{size[1]}" for name, size in sizes.items()),
        )
    ]
    for before, after in itertools.pairwise(CONVOLUTIONS):
        part = f"in effect, by gradients, {after} looks at a larger window than {before}"
        found.append(difference(part, widths(fields, before), widths(fields, after), claimed="higher", metric=pixels))
    for before, after in itertools.pairwise(PROBED):
        part = f"a linear classifier reads the digit better off {names[after]} than off {names[before]}"
        # The third block has a fifth of the second's features.
        decides = after != PROBED[-1]
        found.append(
            difference(part, accuracies(probed, before), accuracies(probed, after), claimed="higher", decides=decides)
        )
    found.append(
        difference(
            "it reads the digit better off the third block than off the pixels",
            accuracies(probed, "input"),
            accuracies(probed, PROBED[-1]),
            claimed="higher",
        )
    )
    found.append(
        difference(
            "that is learned: off the third block of an untrained network it reads it less well",
            accuracies(probed, PROBED[-1]),
            accuracies(probed, PROBED[-1], "untrained"),
            claimed="lower",
        )
    )
    one, two, three = (evidence.values(study="blocks", **_arm(evidence, channels)) for channels in DEPTHS.values())
    found.append(difference("with equal parameters two blocks are more accurate than one", one, two, claimed="higher"))
    found.append(difference("three blocks are more accurate than one", one, three, claimed="higher"))
    part = "three blocks are more accurate than two"
    found.append(difference(part, two, three, claimed="higher", decides=False))
    return found


def _arm(evidence: "Evidence", channels: str) -> dict[str, str]:
    """The arm with as many blocks, whose channels matching has changed."""
    depth = channels.count("-")
    [arm] = [arm for arm in evidence.arms("blocks") if arm.config.channels.count("-") == depth]
    return {"channels": arm.config.channels}


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Where each layer looks, what can be read off it, and the accuracy by number of blocks."""
    from convjax import data
    from convjax.nn.geometry import plan
    from convjax.studies.figures import accuracy_figure
    from convjax.studies.layer_figures import fields_figure, probes_figure

    config = evidence.arm(study="layers").config
    layers = plan(config, *data.image_info(config.dataset, **config.data_settings))
    blocks = {name: evidence.values(study="blocks", **_arm(evidence, channels)) for name, channels in DEPTHS.items()}
    return [
        fields_figure(layers, evidence.measured("receptive_fields", study="layers"), theme=theme),
        probes_figure(evidence.measured("probes", study="layers"), theme=theme),
        accuracy_figure("blocks", "Test accuracy by number of blocks, at equal parameters", blocks, theme=theme),
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
        "That windows grow is arithmetic, and that their effective part grows follows nearly from it; a net trained "
        "so that the rim of its windows mattered more than their middle could still contradict it. Probes say that "
        "classes become easier to separate, not that features are 'patterns made of patterns'. Probes fitted on more "
        "images gain most on the layers of many features. On data with structure at more scales than digits have, "
        "depth should pay more; with a hidden dense layer behind the blocks, less."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
