"""Does width matter? The chapter: depth of the output feature map, "number of filters computed by the convolution".

python -m experiments.width

20 runs: a quarter, half, once and twice the chapter's filters, 5 seeds.
--quick takes 16 s on two cores of an AMD EPYC, compilation included.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="width",
    question="Does test accuracy grow with the number of filters: a quarter, half, once and twice the chapter's?",
    reading=(
        "Width is size: parameters and FLOPs grow with its square, and the table shows them. Matching them would undo "
        "the axis; the question is whether the larger net is worth its cost."
    ),
    axes={"channels": ("8-16-16", "16-32-32", "32-64-64", "64-128-128")},
    baseline={"channels": "32-64-64"},
)

if __name__ == "__main__":
    run(STUDY)
