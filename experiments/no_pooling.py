"""What happens without max-pooling? The chapter's net with and without: windows, coefficients, accuracy, overfitting.

python -m experiments.no_pooling
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convjax.studies.claim import Claim, run
from convjax.studies.study import Study
from convjax.sweeps.measurements import Measurement, Trained

if TYPE_CHECKING:
    from convjax.studies.evidence import Evidence
    from convjax.studies.page import ClaimFigure
    from convjax.studies.verdict import Finding


def train_accuracy(trained: Trained) -> float:
    """Of the trained network on the images it was trained on, the first 10,000 of them at most."""
    from convjax.data import Split
    from convjax.training.loop import evaluate

    split = Split(*(array[:10_000] for array in (trained.dataset.train.images, trained.dataset.train.labels)))
    return evaluate(trained.task, trained.params, split).accuracy


STUDY = Study(
    name="no_pooling",
    question="What does the chapter's net lose or gain without max-pooling?",
    reading=(
        "The chapter's network at an eighth of its width (a quarter at matched FLOPs), for two epochs, with 2x2 "
        "max-pooling between convolutions and without. Without, the last map has 54 times the coefficients, nearly "
        "all parameters are in the dense layer, and an image costs ten times the FLOPs; at matched FLOPs that is paid "
        "for in channels."
    ),
    arms=({"pool": "max"}, {"pool": "none"}),
    baseline={"pool": "max"},
    base={"channels": "4-8-8", "epochs": 2},
    seeds=3,
    quick={"train_size": 1000},
    measurements=(Measurement("train_accuracy", train_accuracy),),
)
# With twice the channels, so that the net without pooling is left with some.
MATCHED = Study(**{**vars(STUDY), "base": {**STUDY.base, "channels": "8-16-16"}, "match": "flops"})
NAMES = {"plain": "at equal channels", "flops": "at equal FLOPs"}


def gaps(evidence: "Evidence", study: str, pool: str) -> dict[int, float]:
    """Training accuracy minus test accuracy by seed."""
    train: dict[int, Any] = evidence.measured("train_accuracy", study=study, pool=pool)
    test = evidence.values(study=study, pool=pool)
    return {seed: train[seed] - test[seed] for seed in train if seed in test}


def judge(evidence: "Evidence") -> Sequence["Finding"]:
    """Coefficients and windows by arithmetic at the chapter's width; accuracy and overfitting as measured."""
    from convjax.config import RunConfig
    from convjax.nn.geometry import plan, total_parameters
    from convjax.studies.verdict import difference, exact

    with_pooling, without = (plan(RunConfig(pool=pool), (28, 28, 1), 10) for pool in ("max", "none"))
    maps, flat, fields = [], [], []
    for layers in (with_pooling, without):
        last = [layer for layer in layers if layer.kind == "Conv2D"][-1]
        maps.append("x".join(map(str, last.output_shape)))
        flat.append(next(layer.output_shape[0] for layer in layers if layer.kind == "Flatten"))
        assert last.receptive_field is not None
        fields.append(last.receptive_field.size[0])
    found = [
        exact(
            "max-pooling reduces the number of feature-map coefficients to process",
            flat[0] < flat[1],
            f"in the chapter's net {maps[0]} = {flat[0]:,} instead of {maps[1]} = {flat[1]:,}, and in all "
            f"{total_parameters(with_pooling):,} parameters instead of {total_parameters(without):,}",
        ),
        exact(
            "it makes successive layers look at larger windows",
            fields[0] > fields[1],
            f"the third convolution sees {fields[0]}x{fields[0]} pixels instead of {fields[1]}x{fields[1]}",
        ),
    ]
    for study, name in NAMES.items():
        pooled, plain = (evidence.values(study=study, pool=pool) for pool in ("max", "none"))
        part = f"{name} the net with max-pooling is more accurate than the one without"
        found.append(difference(part, plain, pooled, claimed="higher"))
        part = f"{name} the net without overfits more (accuracy on training images minus accuracy on test images)"
        found.append(
            difference(
                part, gaps(evidence, study, "max"), gaps(evidence, study, "none"), claimed="higher", decides=False
            )
        )
    return found


def figures(evidence: "Evidence", theme: str) -> Sequence["ClaimFigure"]:
    """Every seed, with and without."""
    from convjax.studies.figures import accuracy_figure

    arms, apart = {}, {}
    for study, name in NAMES.items():
        for pool, label in (("max", "with pooling"), ("none", "without")):
            channels = evidence.arm(study=study, pool=pool).config.channels
            arms[f"{label}, {name} ({channels})"] = evidence.values(study=study, pool=pool)
            apart[f"{label}, {name} ({channels})"] = gaps(evidence, study, pool)
    return [
        accuracy_figure("accuracy", "Test accuracy with and without max-pooling", arms, theme=theme),
        accuracy_figure(
            "overfitting", "Accuracy on training images minus accuracy on test images", apart, theme=theme,
            metric="gap in accuracy",
        ),
    ]  # fmt: skip


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
        "The counts are arithmetic. The book adds that a net without pooling would overfit intensely: with 60,000 "
        "images and few epochs there is little time for that, and fewer images or more epochs should widen the gap. "
        "Centred digits ask little of large windows; larger images would ask more. With a global average in place of "
        "the dense layer the net without pooling would not have its parameters."
    ),
)

if __name__ == "__main__":
    run(CLAIM)
