"""How much less data does a convnet need? Learning curves over nested subsets, at equal numbers of updates.

python -m experiments.sample_efficiency
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study

if TYPE_CHECKING:
    from convjax.studies.data_factor import DataFactor
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding

SIZES = (50, 100, 250, 500, 1000, 5000, 59_000)
QUICK_SIZES = (100, 1000)
BATCH, UPDATES, PATIENCE = 64, 1844, 300
"""Of all runs: 1,844 updates are two epochs of 59,000 images; training stops after about 300 without improvement."""
NAMES = {"convnet": "convnet", "local": "locally connected net", "dense": "dense net"}


def arms(sizes: Sequence[int], updates: int, patience: int) -> tuple[Mapping[str, str], ...]:
    """Every network on every size, for the same number of updates: small sets are seen in many epochs."""
    found = []
    for model in NAMES:
        for size in sizes:
            steps = -(-size // BATCH)
            epochs, wait = (max(1, round(count / steps)) for count in (updates, patience))
            sizes_of_run = {"train_size": str(size), "epochs": str(epochs), "early_stopping": str(wait)}
            found.append({"model": model, **sizes_of_run})
    return tuple(found)


STUDY = Study(
    name="sample_efficiency",
    question="With how many examples does each net reach what the others reach with more?",
    reading=(
        "Subsets are nested and stratified, a smaller one inside every larger one, the same for all nets and seeds. "
        "1,000 other training images say when to stop and which epoch's weights to take; the largest size is what is "
        "left, 59,000 of 60,000. All runs may take the same number of updates, so that nets on few images are not cut "
        "short; they usually stop before."
    ),
    arms=arms(SIZES, UPDATES, PATIENCE),
    quick_arms=arms(QUICK_SIZES, 64, 32),
    baseline={"model": "dense"},
    base={"channels": "16-32-32", "validation_size": 1000},
    seeds=3,
    quick={"channels": "8-16-16", "validation_size": 200},
)


def curves(evidence: "Evidence") -> dict[str, dict[int, dict[int, float]]]:
    """Accuracies by seed, by size, by model."""
    sizes = sorted({arm.config.train_size for arm in evidence.arms()})
    return {model: {size: evidence.values(model=model, train_size=size) for size in sizes} for model in NAMES}


def factor(evidence: "Evidence", arm: str, baseline: str) -> "DataFactor":
    """The factor in data at what the baseline reaches with the second largest size: 5,000 examples."""
    from convjax.errors import UserError
    from convjax.studies.data_factor import data_factor

    found = curves(evidence)
    at = sorted(found[baseline])[-2]
    try:
        return data_factor(found[baseline][at], found[arm], at)
    except ValueError as error:
        raise UserError(f"{NAMES[arm]} against {NAMES[baseline]}: {error}") from None


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Does the convnet need fewer examples than the dense net, and is it locality or sharing that saves them?"""
    from convjax.analysis.metrics import Metric
    from convjax.studies.verdict import estimate

    metric = Metric("data_factor", "times the data", "times", decimals=1)

    def fewer(part: str, arm: str, baseline: str, decides: bool = True) -> "Finding":
        found = factor(evidence, arm, baseline)
        note = f"at {100 * found.accuracy:.1f} %, which the {NAMES[baseline]} reaches with {found.at:,}"
        bound = f"{found.bound}: its curve was not run that far; " if found.bound else ""
        return estimate(
            part,
            found.factor,
            found.interval,
            claimed="higher",
            than=1.0,
            metric=metric,
            note=f"{bound}{note}; bootstrap over {found.seeds} seeds",
            decides=decides,
        )

    return [
        fewer("the convnet needs fewer examples than the dense net for the same accuracy", "convnet", "dense"),
        fewer("the locally connected net needs fewer than the dense net", "local", "dense", decides=False),
        fewer("the convnet needs fewer than the locally connected net", "convnet", "local", decides=False),
    ]


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Learning curves over sizes."""
    from convjax.studies.figures import sample_figure

    labelled = {NAMES[model]: by_size for model, by_size in curves(evidence).items()}
    return [sample_figure(labelled, factor(evidence, "convnet", "dense"), theme=theme)]


CLAIM = Claim(
    name="sample_efficiency",
    title="Fewer training samples",
    section="The convolution operation",
    quote="Fewer training samples are needed to learn representations that have generalization power.",
    studies={"sizes": STUDY},
    judge=judge,
    figures=figures,
    would_change=(
        "Stronger regularisation or augmentation helps the dense net more than the convnet, whose structure has some "
        "of both built in; data whose patterns are bound to places (aligned faces, spectra) would take the advantage "
        "of shared weights away. A factor at another accuracy is another number: the page gives it at what the dense "
        "net reaches with the second largest size."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
