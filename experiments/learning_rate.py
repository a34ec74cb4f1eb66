"""Does the learning rate matter? The chapter leaves RMSprop at its default of 0.001.

python -m experiments.learning_rate

25 runs: 5 rates from 0.0001 to 0.01, 5 seeds.
--quick takes 7 s on two cores of an AMD EPYC, compilation included.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="learning_rate",
    question="Does test accuracy depend on RMSprop's learning rate around the default of 0.001?",
    reading=(
        "Everything else is equal, including the number of epochs, which may be too few for a small rate. A run whose "
        "loss is no longer finite counts as diverged, with the accuracy it has."
    ),
    axes={"learning_rate": ("0.0001", "0.0003", "0.001", "0.003", "0.01")},
    baseline={"learning_rate": "0.001"},
)

if __name__ == "__main__":
    run(STUDY)
