"""Can strides stand in for pooling? The chapter: strided convolutions are "rarely used"; max-pooling is, instead.

python -m experiments.stride
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="stride",
    question="Does downsampling by strides give the test accuracy that downsampling by max-pooling gives?",
    reading=(
        "Padding is 'same' in every arm, so that stride 2 in the first two convolutions (2-2-1) halves the maps "
        "exactly as 2x2 pooling does, with the same parameters. Stride 3 (3-3-1) leaves maps of 4x4 where 3x3 "
        "pooling, which drops what does not fill a window, leaves 3x3. Strided arms skip the positions that pooling "
        "would look at: far fewer FLOPs, shown in the table, and --match=flops gives them back as channels. The arms "
        "with pooling and strides downsample twice."
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
