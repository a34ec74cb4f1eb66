"""Few images, from scratch: what do augmentation and dropout save? The chapter's last section, on data sets at hand.

python -m experiments.small_data
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="small_data",
    question="With 100, 500 or 2,000 training images, do augmentation and dropout raise the test accuracy?",
    reading=(
        "Every arm is compared with the one of the same data set and size that has neither. Training accuracy is "
        "measured on the images as they are augmented and with units dropped, so it falls behind for that alone: "
        "overfitting shows in the distance to the validation curve and in a validation loss that rises, and what "
        "counts is the test accuracy. All arms train for the same number of epochs on the same nested subsets; an "
        "epoch of 100 images is 4 steps, of 2,000 63, so sizes differ in steps too. The augmentation (turns of up to "
        "10 degrees, shifts and zooms by up to a tenth) keeps every label: digits are not mirrored. 500 images held "
        "out of the training set draw the validation curves and decide nothing."
    ),
    axes={
        "dataset": ("mnist", "fashion_mnist"),
        "train_size": ("100", "500", "2000"),
        "augment": ("", "rotate=10+shift=0.1+zoom=0.1"),
        "dropout": ("0", "0.5"),
    },
    baseline={"augment": "", "dropout": "0"},
    quick={"dataset": "mnist_5k", "train_size": "200", "validation_size": 100},
    base={"validation_size": 500, "epochs": 25, "batch_size": 32, "channels": "8-16-16"},
)

if __name__ == "__main__":
    run(STUDY)
