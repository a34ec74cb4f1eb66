"""Which downsampling? The chapter: max-pooling, by 2x2 windows with stride 2, rather than average-pooling or strides.

python -m experiments.pooling

40 runs: 8 ways to downsample, 5 seeds.
--quick takes 39 s on two cores of an AMD EPYC, compilation included.

Expect with --channels=8-16-16 --epochs=3 (MNIST, 5 seeds): 2x2 max-pooling 98.55 %, 2x2 average-pooling 98.33 %,
strides 98.17 %, no downsampling 98.65 %; none of these is shown to differ from max-pooling.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="pooling",
    question="Does max-pooling give a better test accuracy than average-pooling, strides, or no downsampling at all?",
    reading=(
        "Padding is 'same' in every arm. Downsampling by 2, whether by maximum, average or strided convolution "
        "(2-2-1), gives the same 7x7 final map and the same parameters. Downsampling by 3 gives 3x3, overlapping "
        "windows (3x3 with stride 2) 6x6. Without downsampling the final map is 28x28, with 16 times the parameters in "
        "the dense layer and eight times the FLOPs at the chapter's width. The table shows both, and --match equalizes "
        "them."
    ),
    arms=(
        {"pool": "max", "pool_size": "2", "pool_stride": "0", "stride": "1"},
        {"pool": "avg", "pool_size": "2", "pool_stride": "0", "stride": "1"},
        {"pool": "max", "pool_size": "3", "pool_stride": "0", "stride": "1"},
        {"pool": "avg", "pool_size": "3", "pool_stride": "0", "stride": "1"},
        {"pool": "max", "pool_size": "3", "pool_stride": "2", "stride": "1"},
        {"pool": "avg", "pool_size": "3", "pool_stride": "2", "stride": "1"},
        {"pool": "none", "pool_size": "2", "pool_stride": "0", "stride": "2-2-1"},
        {"pool": "none", "pool_size": "2", "pool_stride": "0", "stride": "1"},
    ),
    baseline={"pool": "max", "pool_size": "2", "pool_stride": "0", "stride": "1"},
    base={"padding": "same"},
)

if __name__ == "__main__":
    run(STUDY)
