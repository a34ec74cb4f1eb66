"""Does the size of the convolution window matter? The chapter: windows are "typically 3x3 or 5x5".

python -m experiments.kernel_size

35 runs: 7 windows or stacks of windows, 5 seeds.
--quick takes 48 s on two cores of an AMD EPYC, compilation included.

Expect with --channels=16-32-32 --epochs=3 (MNIST, 5 seeds): 1x1 92.33 %, 2x2 98.55 %, 3x3 98.96 %, 5x5 98.91 %,
7x7 99.08 %; only 1x1 is shown to differ from 3x3.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="kernel_size",
    question="Does test accuracy depend on the convolution window: 1, 2, 3, 5, 7, or larger first and smaller later?",
    reading=(
        "All arms pad with 'same', because three valid convolutions of 5x5 or 7x7 do not fit a 28x28 image. So no arm "
        "has a border effect (experiments.padding varies it). A larger window has more parameters and more FLOPs. The "
        "table shows both; --match=params or --match=flops scales every arm's channels until all have about as many. A "
        "1x1 window sees no neighbors: what it still learns comes from pooling."
    ),
    axes={"kernel_size": ("1", "2", "3", "5", "7", "5-3-3", "7-5-3")},
    baseline={"kernel_size": "3"},
    base={"padding": "same"},
)

if __name__ == "__main__":
    run(STUDY)
