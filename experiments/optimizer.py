"""Does the optimizer matter? The chapter compiles its model with RMSprop.

python -m experiments.optimizer

25 runs: RMSprop, Adam and three settings of SGD, 5 seeds.
--quick takes 12 s on two cores of an AMD EPYC, compilation included.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="optimizer",
    question="Does test accuracy change with an optimizer other than RMSprop?",
    reading=(
        "Optimizers need different learning rates; a comparison at one rate would only show that. The adaptive ones "
        "run at Keras's default 1e-3, SGD at Keras's default 1e-2 and at 1e-1, and at 1e-2 with momentum 0.9. None was "
        "tuned on the test set; experiments.learning_rate shows how much the rate matters."
    ),
    arms=(
        {"optimizer": "rmsprop", "learning_rate": "0.001", "momentum": "0"},
        {"optimizer": "adam", "learning_rate": "0.001", "momentum": "0"},
        {"optimizer": "sgd", "learning_rate": "0.01", "momentum": "0"},
        {"optimizer": "sgd", "learning_rate": "0.1", "momentum": "0"},
        {"optimizer": "sgd", "learning_rate": "0.01", "momentum": "0.9"},
    ),
    baseline={"optimizer": "rmsprop", "learning_rate": "0.001", "momentum": "0"},
)

if __name__ == "__main__":
    run(STUDY)
