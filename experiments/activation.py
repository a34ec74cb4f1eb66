"""Does the activation matter? The chapter uses relu throughout.

python -m experiments.activation
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="activation",
    question="Does another activation than relu give another test accuracy?",
    reading=(
        "Size and cost are the same in every arm. Keras's Glorot-uniform initialisation and the chapter's learning "
        "rate are kept for all: an activation that wants others (selu, sigmoid) is shown as a user would meet it, not "
        "at its best. 'linear' is the control: without a nonlinearity only max-pooling is not linear."
    ),
    axes={"activation": ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "linear")},
    baseline={"activation": "relu"},
)

if __name__ == "__main__":
    run(STUDY)
