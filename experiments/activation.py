"""Does the activation matter? The chapter uses relu throughout.

python -m experiments.activation

40 runs: 8 activations, 5 seeds.
--quick takes 29 s on two cores of an AMD EPYC, compilation included.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="activation",
    question="Does test accuracy change with an activation other than relu?",
    reading=(
        "Size and cost are the same in every arm. All arms keep Keras's Glorot-uniform initialization and the "
        "chapter's learning rate, so an activation that needs others (selu, sigmoid) is shown as a user would meet it, "
        "not at its best. 'linear' is the control: it leaves max-pooling as the only nonlinearity."
    ),
    axes={"activation": ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "linear")},
    baseline={"activation": "relu"},
)

if __name__ == "__main__":
    run(STUDY)
