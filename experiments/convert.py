"""Keras files: export the network of a run, or measure the test accuracy of a file from anywhere.

python -m experiments.convert --run=runs/train/DIGEST --out=digits.keras
python -m experiments.convert --weights=digits.keras

Seconds. Expect: the second line prints the test accuracy that the run had. A `.keras` file brings its network with it;
for a `.weights.h5` the flags describe the network. Needs the extra: pip install 'convjax[keras]'.
"""

import importlib.util
from pathlib import Path

from absl import flags

from convjax import convert, data, training
from convjax.config import FIELD_NAMES
from convjax.errors import UnavailableError, UserError
from convjax.flags import config_from_flags, define_model_flags, run_program
from convjax.nn.geometry import class_count, plan, total_parameters

_RUN = flags.DEFINE_string("run", "", "folder of a finished run (WORKDIR/EXPERIMENT/DIGEST) to export with --out")
_OUT = flags.DEFINE_string("out", "", "file to write: NAME.keras (network and weights) or NAME.weights.h5")
_WEIGHTS = flags.DEFINE_string("weights", "", "file (.keras, .weights.h5, .h5) to measure on --dataset's test images")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with raw data files, and where fetched ones are kept")

# A file of weights alone does not say these.
_NETWORK = (
    "model", "channels", "kernel_size", "padding", "stride", "pool", "pool_size", "pool_stride", "dense_units",
    "activation", "head",
)  # fmt: skip
_COMPUTATION = ("dataset", "image_size", "color", "skip_corrupt", "precision", "conv")


def main(argv: list[str]) -> None:
    """Exports or measures."""
    if not all(map(importlib.util.find_spec, ("keras", "h5py"))):
        raise UserError("this needs Keras; install it: pip install 'convjax[keras]'")
    if bool(_RUN.value) == bool(_WEIGHTS.value) or bool(_RUN.value) != bool(_OUT.value):
        raise UserError("give --run=FOLDER and --out=FILE to export, or --weights=FILE to measure")
    if _RUN.value:
        _refuse_flags((*_COMPUTATION, *_NETWORK), "the run has its own configuration")
        _export(_RUN.value, _OUT.value)
    else:
        _measure(_WEIGHTS.value)


def _export(run: str, out: str) -> None:
    _, task, params = training.checkpoint.load_params(Path(run))
    try:
        convert.save_keras(out, params, task.layers)
    except OSError as error:
        raise UnavailableError(f"cannot write {out}: {error.strerror or error}") from None
    print(f"wrote {out}: {total_parameters(task.layers):,} parameters; it takes images / 255")


def _measure(path: str) -> None:
    config = config_from_flags()
    settings = config.data_settings
    image_shape, num_classes = data.image_info(config.dataset, **settings, data_dir=_DATA_DIR.value)
    if path.endswith(".weights.h5"):
        params = convert.load_keras(path, plan(config, image_shape, num_classes))
    else:
        _refuse_flags(_NETWORK, f"{path} brings its own network")
        model = convert.load_keras_model(path)
        takes, gives = model.layers[0].input_shape, class_count(model.layers)
        if (takes, gives) != (image_shape, num_classes):
            raise UserError(
                f"{path}: its network is for images {takes} of {gives} classes; "
                f"{config.dataset} has {image_shape} of {num_classes}"
            )
        config = model.config.replace(dataset=config.dataset, precision=config.precision, conv=config.conv)
        params = model.params
    dataset = data.load(config.dataset, _DATA_DIR.value, **settings)
    task = training.steps.Task.of(config, image_shape, num_classes, len(dataset.train.labels))
    found = training.evaluate(task, params, dataset.test)
    auc = "" if found.auc is None else f"test AUC: {found.auc:.4f}  "
    print(
        f"test accuracy: {found.accuracy:.2%}  test loss: {found.loss:.4f}  {auc}"
        f"({config.dataset}, {path}, {total_parameters(task.layers):,} parameters)"
    )


def _refuse_flags(names: tuple[str, ...], because: str) -> None:
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} has no effect: {because}; leave the flag out")


if __name__ == "__main__":
    define_model_flags(skip=[name for name in FIELD_NAMES if name not in (*_COMPUTATION, *_NETWORK)])
    run_program(main)
