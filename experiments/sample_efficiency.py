"""How much less data does a convnet need? Learning curves over nested subsets, at equal numbers of updates.

python -m experiments.sample_efficiency

Expect (MNIST, channels 16-32-32, 3 seeds): the dense net needs 4.2 times the convnet's images for 94.2 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convjax import analysis, studies
from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

SIZES = (50, 100, 250, 500, 1000, 5000, 59_000)
QUICK_SIZES = (100, 1000)
BATCH, UPDATES, PATIENCE = 64, 1844, 300
"""Of every run. 1,844 updates are two epochs of 59,000 images; training stops after about 300 without improvement."""
NAMES = {"convnet": "convnet", "local": "locally connected net", "dense": "dense net"}


def arms(sizes: Sequence[int], updates: int, patience: int) -> tuple[Mapping[str, str], ...]:
    """Every network on every size with the same number of updates: small sets are seen in many epochs."""
    found = []
    for model in NAMES:
        for size in sizes:
            steps = -(-size // BATCH)
            epochs, wait = (max(1, round(count / steps)) for count in (updates, patience))
            lengths = {"train_size": str(size), "epochs": str(epochs), "early_stopping": str(wait)}
            found.append({"model": model, **lengths})
    return tuple(found)


STUDY = Study(
    name="sample_efficiency",
    question="How many examples does each net need for the accuracy that the others reach with more?",
    reading=(
        "Subsets are nested and stratified: every larger one contains every smaller one, and all nets and seeds use "
        "the same. Another 1,000 training images decide when to stop and which epoch's weights to take; the largest "
        "size is the other 59,000 of 60,000. All runs may take the same number of updates, so nets on few images are "
        "not cut short; they usually stop earlier."
    ),
    arms=arms(SIZES, UPDATES, PATIENCE),
    quick_arms=arms(QUICK_SIZES, 64, 32),
    baseline={"model": "dense"},
    base={"channels": "16-32-32", "validation_size": 1000},
    seeds=3,
    quick={"channels": "8-16-16", "validation_size": 200},
)


def curves(sizes: studies.StudyRuns) -> dict[str, dict[int, dict[int, float]]]:
    """Accuracies by seed, by size, by model."""
    counts = sorted({arm.config.train_size for arm in sizes.arms})
    return {model: {size: sizes.values(model=model, train_size=size) for size in counts} for model in NAMES}


def factor(sizes: studies.StudyRuns, arm: str, baseline: str) -> studies.data_factor.DataFactor:
    """The factor in data at the accuracy that the baseline reaches with the second largest size, 5,000 examples."""
    found = curves(sizes)
    at = sorted(found[baseline])[-2]
    return studies.data_factor.data_factor(found[baseline][at], found[arm], at)


def fewer(sizes: studies.StudyRuns, arm: str, baseline: str, *, decides: bool = True) -> studies.Finding:
    """Does the arm need fewer examples than the baseline?"""
    found = factor(sizes, arm, baseline)
    bound = f"{found.bound}: its curve was not run that far; " if found.bound else ""
    reached = f"at {100 * found.accuracy:.1f} %, which the {NAMES[baseline]} reaches with {found.at:,}"
    return studies.estimate(
        f"the {NAMES[arm]} needs fewer examples than the {NAMES[baseline]} for the same accuracy",
        found.factor,
        found.interval,
        studies.above(1.0),
        metric=analysis.metrics.Metric("data_factor", "times the data", "times", decimals=1),
        note=f"{bound}{reached}; bootstrap over {found.seeds} seeds",
        decides=decides,
    )


def judge(sizes: studies.StudyRuns) -> list[studies.Finding]:
    """Does the convnet need fewer examples than the dense net, and does locality or sharing save them?"""
    return [
        fewer(sizes, "convnet", "dense"),
        fewer(sizes, "local", "dense", decides=False),
        fewer(sizes, "convnet", "local", decides=False),
    ]


def figures(sizes: studies.StudyRuns) -> list[studies.ClaimFigure]:
    """Learning curves over sizes."""
    labelled = {NAMES[model]: by_size for model, by_size in curves(sizes).items()}
    return [studies.sample_figure(labelled, factor(sizes, "convnet", "dense"))]


CLAIM = Claim(
    name="sample_efficiency",
    title="Fewer training samples",
    section="The convolution operation",
    quote="Fewer training samples are needed to learn representations that have generalization power.",
    studies={"sizes": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "Stronger regularization or augmentation helps the dense net more than the convnet, whose structure has some "
        "of both built in. Data whose patterns are bound to places (aligned faces, spectra) would take away the "
        "advantage of shared weights. The factor depends on the accuracy: the page gives it at the accuracy that the "
        "dense net reaches with the second largest size."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
