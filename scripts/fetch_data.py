"""Fetches, verifies and prepares a data set, so that runs start at once.

    python scripts/fetch_data.py --dataset=mnist --data_dir=DIR

Then give runs the same --dataset and --data_dir. Without --data_dir it uses the user's cache, as runs do.
Prints where the data came from, where it is kept, and its fingerprint, which every run records.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

from absl import flags

from convjax import data
from convjax.config import FIELD_NAMES, RunConfig
from convjax.flags import define_model_flags, run_program

_DATASET = flags.DEFINE_string(
    "dataset",
    "mnist",
    "mnist, fashion_mnist, kmnist, mnist_5k (embedded), cats_vs_dogs, cats_vs_dogs_small, folder:PATH, or the name of "
    "any TFDS image-classification data set",
)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of raw files and prepared data; empty for the user's cache")
_SETTINGS = ("image_size", "color", "skip_corrupt")


@contextlib.contextmanager
def _reporting() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int | None], None] | None]]:
    """The functions `log` and `progress` of `data.load`: bars on a terminal, else plain lines and None."""
    if not sys.stderr.isatty():
        yield lambda line: print(line, file=sys.stderr), None
        return
    from rich.console import Console  # here, because only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def log(line: str) -> None:
            while tasks:
                bars.remove_task(tasks.popitem()[1])
            console.print(line, markup=False, soft_wrap=True)

        def show(name: str, received: int, expected: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=expected)
            bars.update(tasks[name], completed=received, total=expected)

        yield log, show


def main(argv: list[str]) -> None:
    del argv
    name, data_dir = _DATASET.value, _DATA_DIR.value
    with _reporting() as (log, progress):
        settings = {each: flags.FLAGS[each].value for each in _SETTINGS}
        config = RunConfig.from_dict({"dataset": name} | settings)  # checks them
        decoded = data.prepare(name, data_dir, **config.data_settings, log=log, progress=progress)
    for note in decoded.details.get("notes", ()):
        print(note)
    folder = decoded.folder
    if folder is None and name in data.idx.BUILT_IN:
        folder = data.idx.pipeline.prepare_embedded_copy(data.idx.BUILT_IN[name], data_dir)
    (images, _), (test_images, _) = decoded.train, decoded.test
    size = "x".join(map(str, images.shape[1:]))
    print(f"{name}: {len(images):,} training and {len(test_images):,} test images of {size}")
    more = ", ..." if len(decoded.class_names) > 10 else ""
    print(f"classes: {len(decoded.class_names)} ({', '.join(decoded.class_names[:10])}{more})")
    print(f"source: {decoded.source}")
    print(f"folder: {folder or 'none, it is computed'}")
    print(f"fingerprint: {decoded.fingerprint}")


if __name__ == "__main__":
    define_model_flags(skip=[name for name in FIELD_NAMES if name not in _SETTINGS])
    run_program(main)
