"""The layer table of a network: names, output shapes and parameters, as Keras prints them. No data, no training.

python -m experiments.summary --kernel_size=5 --padding=same --verbose

Less than a second. Expect without flags: 93,322 parameters, the chapter's network.
"""

from absl import flags

from convjax import data, nn
from convjax.flags import config_from_flags, define_model_flags, run_program
from convjax.nn.geometry import plan

_VERBOSE = flags.DEFINE_bool("verbose", False, "also show receptive field, FLOPs and memory of every layer")


def main(argv: list[str]) -> None:
    """Prints the table."""
    config = config_from_flags()
    layers = plan(config, *data.image_info(config.dataset, **config.data_settings))
    print(nn.layer_table(layers, verbose=_VERBOSE.value))


if __name__ == "__main__":
    define_model_flags()
    run_program(main)
