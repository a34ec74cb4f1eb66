"""As test_judges, for the claims on layers, windows and downsampling."""

import numpy as np
import pytest

from convjax.nn import geometry
from convjax.studies import measures
from convjax.studies.verdict import CONTRADICTED, NOT_SHOWN, SUPPORTED, overall
from experiments import (
    border_effects,
    hierarchy,
    max_or_average,
    no_pooling,
    output_sizes,
    strides_or_pooling,
    typical_windows,
)
from tests.studies.test_judges import NOISE, evidence_of


def words(claim, accuracy, measured=None):
    """The words of the claim's findings, and of the claim."""
    findings = claim.judge(**evidence_of(claim, accuracy, measured))
    return [finding.word for finding in findings], overall(findings)


def turned(config, value):
    """A value with its noise turned around: equal noise in all arms would give differences no spread."""
    return value - 2 * NOISE[config.seed]


def layers(widths, accuracies, untrained=0.7):
    """Measurements of every run, equal up to noise."""
    names = ("conv2d_1", "max_pooling2d_1", "conv2d_2", "max_pooling2d_2", "conv2d_3")

    def measured(config, noise):
        fields = {
            name: {"width": width + (index + 1) * 50 * noise, "map": np.ones((28, 28)).tolist()}
            for index, (name, width) in enumerate(zip(names, widths, strict=True))
        }
        probed = {
            name: {"test_accuracy": accuracy + (-1) ** index * noise, "features": 100.0}
            for index, (name, accuracy) in enumerate(
                zip(("input", "max_pooling2d_1", "max_pooling2d_2", "max_pooling2d_3"), accuracies, strict=True)
            )
        }
        return {
            "receptive_fields": {"trained": fields, "untrained": fields},
            "probes": {
                "trained": probed,
                "untrained": {"max_pooling2d_3": {"test_accuracy": untrained + noise, "features": 100.0}},
            },
        }

    return measured


GROWS, READABLE = (3.0, 4.0, 7.0, 8.0, 14.0), (0.88, 0.92, 0.96, 0.97)
HIERARCHIES = {
    "as the chapter has it": (GROWS, READABLE, 0.9, (0.95, 0.97, 0.98), SUPPORTED),
    "windows shrink in effect": ((3.0, 4.0, 7.0, 8.0, 5.0), READABLE, 0.9, (0.95, 0.97, 0.98), CONTRADICTED),
    "no layer is easier to read": (GROWS, (0.97, 0.95, 0.93, 0.92), 0.9, (0.95, 0.97, 0.98), CONTRADICTED),
    "training does nothing": (GROWS, READABLE, 0.99, (0.95, 0.97, 0.98), CONTRADICTED),
    "depth does not pay": (GROWS, READABLE, 0.9, (0.98, 0.97, 0.95), CONTRADICTED),
    "depth changes nothing": (GROWS, READABLE, 0.9, (0.98, 0.98, 0.98), NOT_SHOWN),
}


@pytest.mark.parametrize("case", HIERARCHIES)
def test_hierarchy(case):
    widths, accuracies, untrained, by_depth, word = HIERARCHIES[case]

    def accuracy(config):
        depth = config.channels.count("-")
        return turned(config, by_depth[depth]) if depth == 1 else by_depth[depth] + NOISE[config.seed] * depth

    assert words(hierarchy.CLAIM, accuracy, layers(widths, accuracies, untrained))[1] == word


@pytest.mark.parametrize(
    ("without", "train", "word", "overfitting"),
    [(0.97, 0.99, SUPPORTED, SUPPORTED), (0.99, 0.985, CONTRADICTED, CONTRADICTED), (0.98, 0.98, NOT_SHOWN, NOT_SHOWN)],
)
def test_no_pooling(without, train, word, overfitting):
    def accuracy(config):
        return 0.98 if config.pool == "max" else turned(config, without)

    def measured(config, noise):
        return {"train_accuracy": (0.98 if config.pool == "max" else train) + 3 * noise}

    found, claimed = words(no_pooling.CLAIM, accuracy, measured)
    assert claimed == word
    assert found[:2] == [SUPPORTED, SUPPORTED]
    assert found[3] == found[5] == overfitting


def test_the_counts_without_pooling_are_the_books():
    runs = evidence_of(no_pooling.CLAIM, lambda config: 0.98, lambda config, noise: {"train_accuracy": 0.98})
    findings = no_pooling.judge(**runs)
    assert "3x3x64 = 576 instead of 22x22x64 = 30,976" in findings[0].sentence
    assert "93,322 parameters instead of 2,038,922" in findings[0].sentence
    assert "18x18 pixels instead of 7x7" in findings[1].sentence


WINDOWS = {
    "as is customary": ({1: 0.92, 3: 0.98, 5: 0.981, 7: 0.976}, SUPPORTED),
    "the smallest is better": ({1: 0.99, 3: 0.98, 5: 0.98, 7: 0.98}, CONTRADICTED),
    "the largest is better": ({1: 0.92, 3: 0.98, 5: 0.981, 7: 0.99}, CONTRADICTED),
    "nobody knows": ({1: 0.98, 3: 0.98, 5: 0.98, 7: 0.98}, NOT_SHOWN),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_typical_windows(case):
    values, word = WINDOWS[case]

    def accuracy(config):
        size = config.layer_kernel_sizes[0][0]
        return turned(config, values[size]) if size in (3, 5) else values[size]

    assert words(typical_windows.CLAIM, accuracy)[1] == word


@pytest.mark.parametrize(("gain", "word"), [(0.01, SUPPORTED), (0.0, NOT_SHOWN), (-0.01, CONTRADICTED)])
def test_borders_strides_and_averages(gain, word):
    """Padding over none, pooling over strides, maximum over average: each claims that one arm is the better."""

    def accuracy(better):
        return lambda config: 0.98 + gain if better(config) else turned(config, 0.98)

    found, claimed = words(border_effects.CLAIM, accuracy(lambda config: config.padding == "same"))
    assert (found[:2], claimed) == ([SUPPORTED, SUPPORTED], word)
    assert words(strides_or_pooling.CLAIM, accuracy(lambda config: config.pool == "max"))[1] == word
    found, claimed = words(max_or_average.CLAIM, accuracy(lambda config: config.pool == "max"))
    assert (found[-1], claimed) == (SUPPORTED, word)


def test_output_sizes(monkeypatch):
    monkeypatch.setattr(measures, "xla_disagreements", lambda count: [])
    found, claimed = words(output_sizes.CLAIM, None)
    assert (found, claimed) == ([SUPPORTED] * 6, SUPPORTED)
    monkeypatch.setattr(measures, "xla_disagreements", lambda count: [(5, 3, 1, "valid")])
    monkeypatch.setattr(output_sizes, "CHAPTER", ((26, 26, 31),))
    assert words(output_sizes.CLAIM, None)[0] == [CONTRADICTED, *[SUPPORTED] * 4, CONTRADICTED]


def test_xla_would_be_caught_disagreeing(monkeypatch):
    assert measures.xla_disagreements(100) == []
    monkeypatch.setattr(geometry, "same_padding", lambda size, window, stride: (0, 0))
    assert measures.xla_disagreements(100)


FIGURES = {
    hierarchy: ["fields", "probes", "blocks"],
    no_pooling: ["accuracy", "overfitting"],
    typical_windows: ["plain", "flops"],
    border_effects: ["valid", "same", "plain", "flops"],
    strides_or_pooling: ["windows", "accuracy"],
    max_or_average: ["accuracy"],
    output_sizes: ["valid", "same", "stride"],
}


@pytest.mark.parametrize("script", FIGURES, ids=lambda script: script.__name__)
def test_figures_say_what_they_show(script):
    def measured(config, noise):
        return layers(GROWS, READABLE)(config, noise) | {"train_accuracy": 0.99}

    evidence = evidence_of(script.CLAIM, lambda config: turned(config, 0.98), measured)
    figures = script.CLAIM.figures(**evidence)
    assert [figure.name for figure in figures] == FIGURES[script]
    for figure in figures:
        assert figure.draw(theme="page")
        assert figure.caption.endswith(".")
        assert figure.description.endswith(".")
