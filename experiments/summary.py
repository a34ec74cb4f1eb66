"""The layer table of a network: names, output shapes and parameters, as Keras prints them. No data, no training.

python -m experiments.summary --kernel_size=5 --verbose
"""

from absl import flags

from convjax.flags import config_from_flags, define_model_flags, run_program

_VERBOSE = flags.DEFINE_bool("verbose", False, "also receptive field, FLOPs and memory of every layer")


def main(argv: list[str]) -> None:
    """Prints the table."""
    from convjax import data
    from convjax.nn.geometry import plan
    from convjax.nn.summary import summary

    config = config_from_flags()
    print(summary(plan(config, *data.image_info(config.dataset, **config.data_settings)), verbose=_VERBOSE.value))


if __name__ == "__main__":
    define_model_flags()
    run_program(main)
