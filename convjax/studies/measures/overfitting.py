"""How well a trained network knows the images it was trained on."""

from convjax.data import Split
from convjax.sweeps.measurements import Trained
from convjax.training.evaluation import evaluate

IMAGES = 10_000


def measure_train_accuracy(trained: Trained) -> float:
    """Accuracy on the training images, the first 10,000 of them at most."""
    train = trained.dataset.train
    return evaluate(trained.task, trained.params, Split(train.images[:IMAGES], train.labels[:IMAGES])).accuracy
