"""Can strides replace pooling? The chapter: strided convolutions are "rarely used"; max-pooling is, instead.

python -m experiments.stride

40 runs: 8 ways to downsample, 5 seeds.
--quick takes 28 s on two cores of an AMD EPYC, compilation included.

Expect with --channels=16-32-32 --epochs=3 (MNIST, 5 seeds): 2x2 max-pooling 98.96 %, strides 2-2-1 98.55 %; 3x3
max-pooling 98.26 %, strides 3-3-1 97.57 %; all are shown to be worse than 2x2 max-pooling.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="stride",
    question="Does downsampling by strides give the same test accuracy as downsampling by max-pooling?",
    reading=(
        "Padding is 'same' in every arm, so stride 2 in the first two convolutions (2-2-1) halves the maps exactly as "
        "2x2 pooling does, with the same parameters. Stride 3 (3-3-1) leaves 4x4 maps; 3x3 pooling drops what does not "
        "fill a window and leaves 3x3. Strided arms skip the positions that pooling would look at and need far fewer "
        "FLOPs, as the table shows; --match=flops turns the difference into channels. The arms with pooling and "
        "strides downsample twice."
    ),
    arms=(
        {"stride": "1", "pool": "max", "pool_size": "2"},
        {"stride": "2-2-1", "pool": "none", "pool_size": "2"},
        {"stride": "1", "pool": "max", "pool_size": "3"},
        {"stride": "3-3-1", "pool": "none", "pool_size": "2"},
        {"stride": "2-1-1", "pool": "max", "pool_size": "2"},
        {"stride": "3-1-1", "pool": "max", "pool_size": "2"},
        {"stride": "2", "pool": "none", "pool_size": "2"},
        {"stride": "3", "pool": "none", "pool_size": "2"},
    ),
    baseline={"stride": "1", "pool": "max", "pool_size": "2"},
    base={"padding": "same"},
)

if __name__ == "__main__":
    run(STUDY)
