"""Does the batch size matter? The chapter fits with batches of 64.

python -m experiments.batch_size

20 runs: batches of 16, 64, 256 and 1,024 images, 5 seeds.
--quick takes 12 s on two cores of an AMD EPYC, compilation included.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="batch_size",
    question="Does test accuracy after the same number of epochs depend on the batch size?",
    reading=(
        "Epochs are equal, so a larger batch makes fewer updates at the same learning rate. That is what a user gets "
        "who changes only the batch size. Parameters and FLOPs per image are the same; the seconds column shows what "
        "larger batches save."
    ),
    axes={"batch_size": ("16", "64", "256", "1024")},
    baseline={"batch_size": "64"},
)

if __name__ == "__main__":
    run(STUDY)
