"""What pictures are made of: a run's network at one of its checkpoints, and test images."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.explain.activations import layer_named, map_layers
from convjax.nn.geometry import Layer, total_parameters
from convjax.sweeps.run import dataset_of
from convjax.sweeps.store import Run
from convjax.training.checkpoint import kept_steps, load_params
from convjax.training.evaluation import predict
from convjax.training.steps import Task

_LONGEST_NAME = 14
_NETWORKS = {"convnet": "a convnet", "dense": "a dense network", "local": "a locally connected network"}


@dataclass(frozen=True)
class Subject:
    """A trained network and the images to look at.

    Attributes:
      path: the run's folder.
      config, task, params: the network.
      step: optimizer steps at its checkpoint.
      images, labels: the test set, uint8 `[examples, height, width, channels]` and `[examples]`.
      class_names: one per label.
      chosen: indices of the test images to look at.
      layer: name of the layer for Grad-CAM; empty for the last convolution.
      lines: the lines of metrics.jsonl.
      examples: number of training images.
    """

    path: Path
    config: RunConfig
    task: Task
    params: Mapping[str, Any]
    step: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    class_names: Sequence[str]
    chosen: Sequence[int]
    layer: str
    lines: Sequence[Mapping[str, Any]]
    examples: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The network's layers."""
        return self.task.layers

    @functools.cached_property
    def logits(self) -> NDArray[np.floating]:
        """The logits of every test image, `[examples, classes]`."""
        return np.asarray(predict(self.params, self.images, task=self.task))

    @property
    def epoch(self) -> float:
        """How many passes over the training images the checkpoint comes after."""
        return self.step / self.task.steps_per_epoch

    def name(self, index: int) -> str:
        """The name of a class, shortened if it is long."""
        name = str(self.class_names[index])
        return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"

    @property
    def title(self) -> str:
        """Title of the page."""
        return f"What {_NETWORKS.get(self.config.model, 'a network')} sees: {self.config.dataset}"

    @property
    def facts(self) -> str:
        """A line about the network."""
        accuracy = float(np.mean(np.argmax(self.logits, axis=-1) == self.labels))
        return (
            f"{total_parameters(self.layers):,} parameters; seed {self.config.seed}; step {self.step:,} (epoch "
            f"{self.epoch:g} of {self.config.epochs}); test accuracy {accuracy:.2%} on {len(self.labels):,} images. "
            f"Run {self.path.name}."
        )


def load_subject(path: Path, step: int | None, chosen: Sequence[int], layer: str, data_dir: str) -> Subject:
    """Reads a run's folder and its test images.

    Args:
      path: the run's folder.
      step: step of the checkpoint; None for the newest.
      chosen: indices of test images.
      layer: see `Subject`.
      data_dir: see `convjax.data.load`.

    Raises:
      UserError: the folder is not a run, it lacks the checkpoint, image or layer, or the data has changed since.
    """
    config, task, params = load_params(path, step)
    run = Run(path)
    recorded = run.config()
    assert recorded is not None  # load_params has read it
    trained_on = recorded["data"]
    dataset = dataset_of(config, data_dir)
    if dataset.fingerprint != trained_on["fingerprint"]:
        raise UserError(
            f"the {config.dataset} data (fingerprint {dataset.fingerprint}) is not what {path} was trained on "
            f"({trained_on['fingerprint']}); give the --data_dir of that run"
        )
    for index in chosen:
        if index >= len(dataset.test.labels):
            raise UserError(f"--images: there is no test image {index}; the last is {len(dataset.test.labels) - 1}")
    if layer:
        layer_named(map_layers(task.layers), layer)
    return Subject(
        path=path,
        config=config,
        task=task,
        params=params,
        step=kept_steps(path)[-1] if step is None else step,
        images=np.asarray(dataset.test.images),
        labels=dataset.test.labels,
        class_names=dataset.class_names,
        chosen=chosen,
        layer=layer,
        lines=run.metrics(),
        examples=trained_on["train_examples"],
    )
