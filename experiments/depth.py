"""Does depth matter? The chapter: convnets learn spatial hierarchies, layer upon layer.

python -m experiments.depth

20 runs: one to four convolutions, 5 seeds.
--quick takes 15 s on two cores of an AMD EPYC, compilation included.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="depth",
    question="Does test accuracy grow with the number of convolutions, from one to four?",
    reading=(
        "Padding is 'same', so that four convolutions fit. Between convolutions there is 2x2 max-pooling, so depth "
        "also brings downsampling and a larger receptive field. A shallow net flattens a large map and therefore has "
        "MORE parameters, in the dense layer. The table shows parameters and FLOPs; --match=params and --match=flops "
        "equalize them."
    ),
    axes={"channels": ("32", "32-64", "32-64-64", "32-64-64-64")},
    baseline={"channels": "32-64-64"},
    base={"padding": "same"},
)

if __name__ == "__main__":
    run(STUDY)
