"""The claims' judges on made-up runs: every verdict is reached where it must be."""

import pandas as pd
import pytest

from convjax.config import RunConfig
from convjax.studies.evidence import StudyRuns
from convjax.studies.verdict import CONTRADICTED, NOT_SHOWN, SUPPORTED, overall
from convjax.sweeps.grid import make_grid, product
from experiments import chapter_result, equivariance, local_patterns, position, sample_efficiency, translation

SHAPES = {"mnist": ((28, 28, 1), 10), "corners/0": ((28, 28, 1), 2), "corners/7": ((28, 28, 1), 2)}
NOISE = (0.0, 0.001, -0.0005, 0.0007, -0.001)


def evidence_of(claim, accuracy, measured=None):
    """Runs of the claim's studies: five seeds per arm, with values computed from its configuration."""
    studies = {}
    for name, study in claim.studies.items():
        arms = [{**arm, **axes} for arm in (study.arms or [{}]) for axes in product(study.axes)]
        arms = make_grid(RunConfig(**study.base), arms, SHAPES.__getitem__, match=study.match).arms
        rows, kept = [], {}
        for arm in arms:
            for seed, noise in enumerate(NOISE):
                config = arm.config.replace(seed=seed)
                value = accuracy(config) + noise
                rows.append({**config.to_dict(), "digest": config.digest, "status": "done", "test_accuracy": value})
                if measured is not None:
                    kept[config.digest] = measured(config, noise)
        studies[name] = StudyRuns(arms, pd.DataFrame(rows), kept)
    return studies


def words(claim, accuracy, measured=None):
    """The words of the claim's findings, and of the claim; also draws its figures."""
    evidence = evidence_of(claim, accuracy, measured)
    findings = claim.judge(**evidence)
    for figure in claim.figures(**evidence):
        assert figure.caption
        assert figure.description
        for theme in ("light", "page"):
            assert figure.draw(theme=theme)
    return [finding.word for finding in findings], overall(findings)


@pytest.mark.parametrize(
    ("convnet", "dense", "word"),
    [
        (0.9915, 0.98, SUPPORTED),
        (0.985, 0.98, CONTRADICTED),
        (0.9915, 0.9915, NOT_SHOWN),
        (0.9915, 0.995, CONTRADICTED),
    ],
)
def test_the_chapters_number(convnet, dense, word):
    # The dense net's noise is the convnet's turned around: a difference equal in all seeds would have no spread.
    def accuracy(config):
        return convnet if config.model == "convnet" else dense - 2 * NOISE[config.seed]

    assert words(chapter_result.CLAIM, accuracy)[1] == word


PATTERNS = {
    "as theory has it": (
        {"convnet": 0.99, "local": 0.985, "dense": 0.975},
        {"convnet": -0.03, "local": -0.02},
        SUPPORTED,
    ),
    "permutation harms nobody": ({"convnet": 0.99, "local": 0.985, "dense": 0.975}, {}, NOT_SHOWN),
    "permutation helps": ({"convnet": 0.99, "local": 0.985, "dense": 0.975}, {"convnet": 0.005}, CONTRADICTED),
    "the dense net minds": (
        {"convnet": 0.99, "local": 0.985, "dense": 0.975},
        {"convnet": -0.03, "dense": -0.02},
        CONTRADICTED,
    ),
    "dense is better": ({"convnet": 0.96, "local": 0.96, "dense": 0.975}, {"convnet": -0.03}, CONTRADICTED),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_local_patterns(case):
    plain, change, word = PATTERNS[case]

    def accuracy(config):
        moved = change.get(config.model, 0.0) if config.pixels == "permuted" else 0.0
        flips = 1 if config.pixels == "permuted" else -1
        own = {"convnet": 0.9, "local": 0.5, "dense": -0.7}[config.model]
        return plain[config.model] + moved + flips * NOISE[config.seed] * own

    assert words(local_patterns.CLAIM, accuracy)[1] == word


def maps(loss):
    """Measured accuracies that fall by `loss(config)` per pixel of distance."""

    def measured(config, noise):
        offsets = list(range(-8, 9))
        slope = loss(config) + noise / (8 if config.head == "gap" else 3 if config.model == "dense" else 5)
        fall = [[max(0.0, 0.99 - slope * max(abs(d), abs(r))) for r in offsets] for d in offsets]
        return {"shifts": {"offsets": offsets, "images": 1000, "accuracy": fall, "ink": [[0.95] * 17] * 17}}

    return measured


def test_translation():
    def as_theory(config):
        return 0.12 if config.model == "dense" else 0.002 if config.head == "gap" else 0.08

    found, word = words(translation.CLAIM, lambda config: 0.99, maps(as_theory))
    assert found == [CONTRADICTED, SUPPORTED, CONTRADICTED, SUPPORTED]
    assert word == CONTRADICTED

    def invariant(config):
        return 0.12 if config.model == "dense" else 0.0005

    assert words(translation.CLAIM, lambda config: 0.99, maps(invariant))[1] == SUPPORTED


def test_at_distance_is_the_mean_of_eight_directions():
    grid = [[10 * (down + 1) + right for right in range(3)] for down in range(3)]
    maps = {7: {"offsets": [-1, 0, 1], "accuracy": grid}}
    assert translation.at_distance(maps, 0) == {7: 21}
    assert translation.at_distance(maps, 1) == {7: (10 + 11 + 12 + 20 + 22 + 30 + 31 + 32) / 8}


@pytest.mark.parametrize(("wrong", "word"), [(0.0, SUPPORTED), (1e-3, CONTRADICTED)])
def test_equivariance(wrong, word):
    def measured(config, noise):
        pooled = config.pool != "none"
        layers = ["conv2d_1", "max_pooling2d_1", "conv2d_2", "max_pooling2d_2", "conv2d_3"][:: 1 if pooled else 2]
        error = [
            [wrong, wrong, 1e-7] if "conv2d_1" in name or not pooled else [0.3 + noise, 0.1, 1e-7] for name in layers
        ]
        if pooled:
            error[-1][-1] = None  # a map without inner positions
        everywhere = [[0.2 + noise] * 3 for _ in layers]
        return {"equivariance": {"layers": layers, "shifts": [1, 2, 4], "inside": error, "all": everywhere}}

    found, claimed = words(equivariance.CLAIM, lambda config: 0.9, measured)
    assert claimed == word
    assert found[1] == SUPPORTED
    assert found[2:] == [CONTRADICTED] * 5


def test_position():
    def borders(config):
        blind = config.model == "convnet" and config.head == "gap"
        return 0.5 if blind and config.dataset == "corners/7" else 0.99 if not blind else 0.8

    found, word = words(position.CLAIM, borders)
    assert (found, word) == ([SUPPORTED, SUPPORTED, CONTRADICTED, CONTRADICTED, SUPPORTED, SUPPORTED], CONTRADICTED)
    found, word = words(position.CLAIM, lambda config: 0.5)
    assert (found, word) == ([SUPPORTED] * 4 + [CONTRADICTED] * 2, SUPPORTED)


@pytest.mark.parametrize(("ahead", "word"), [(0.06, SUPPORTED), (0.0, NOT_SHOWN), (-0.06, CONTRADICTED)])
def test_sample_efficiency(ahead, word):
    def accuracy(config):
        rises = {50: 0.6, 100: 0.7, 250: 0.78, 500: 0.83, 1000: 0.88, 5000: 0.93, 59_000: 0.98}[config.train_size]
        flips = -2 * NOISE[config.seed] if config.model == "dense" else 0.0
        return rises + flips + (ahead if config.model == "convnet" else 0.0)

    assert words(sample_efficiency.CLAIM, accuracy)[1] == word


def test_every_run_of_the_learning_curves_has_the_same_updates():
    for arm in sample_efficiency.STUDY.arms:
        steps = -(-int(arm["train_size"]) // 64)
        assert steps * int(arm["epochs"]) == pytest.approx(sample_efficiency.UPDATES, rel=0.02)
