"""Pictures of what a trained network sees: PNG, SVG and GIF files, and one page that shows them all.

python -m experiments.visualize --run=runs/train/DIGEST --out=pictures

About a minute. Writes pictures/visualize.html and the files beside it: the network to scale, a convolution step by
step, feature maps, filters, why this class, the most confidently wrong images, norms during training, and training as a
film. --what= selects some. The film needs a run with --keep_checkpoints=0.
"""

from pathlib import Path

from absl import flags

from convjax import explain, training
from convjax.errors import UnavailableError, UserError
from convjax.flags import run_program

_WHAT = ("model", "convolution", "feature_maps", "filters", "why", "wrong", "inside", "film")

_RUN = flags.DEFINE_string("run", "", "folder of the run (WORKDIR/EXPERIMENT/DIGEST)")
_PICTURES = flags.DEFINE_string("what", "all", f"what to draw: all, or some of {','.join(_WHAT)}")
_OUT = flags.DEFINE_string("out", "", "folder for the pictures; empty for RUN/pictures")
_STEP = flags.DEFINE_integer("step", 0, "step of the checkpoint; 0 for the newest", 0)
_IMAGES = flags.DEFINE_string("images", "0,1,2", "indices of the test images")
_LAYER = flags.DEFINE_string("layer", "", "layer for Grad-CAM, such as conv2d_2; empty for the last convolution")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with raw data files; downloaded files are kept there too")


def main(argv: list[str]) -> None:
    """Draws the chapters and writes the page; chapters that this run cannot have are named and left out."""
    if not _RUN.value:
        raise UserError("give --run=FOLDER, a run's folder (WORKDIR/EXPERIMENT/DIGEST)")
    wanted, images = _chosen(_PICTURES.value), _indices(_IMAGES.value)
    out = Path(_OUT.value or Path(_RUN.value) / "pictures")
    training.backend.enable_compilation_cache()
    subject = explain.pictures.load_subject(
        Path(_RUN.value), _STEP.value or None, images, _LAYER.value, _DATA_DIR.value
    )
    chapters, left_out = [], []
    for name in wanted:
        try:
            chapters.append(explain.pictures.CHAPTERS[name](subject))
        except UserError as error:
            if len(wanted) == 1:
                raise
            left_out.append(f"{name} is left out: {error}")
            print(left_out[-1])
    try:
        page = explain.pictures.write_gallery(
            out, subject.title, subject.facts, chapters, left_out, lambda path: print(f"wrote {path}")
        )
    except OSError as error:
        raise UnavailableError(f"cannot write into {out}: {error.strerror or error}") from None
    print(f"open {page}")


def _chosen(text: str) -> list[str]:
    names = _WHAT if text.strip() == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _WHAT:
            raise UserError(f"--what={text}: {name!r} is not known; expected all, or some of {', '.join(_WHAT)}")
    return list(dict.fromkeys(names))


def _indices(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UserError(f"--images={text}: expected indices of test images, such as 0,1,2")
    return list(dict.fromkeys(int(part) for part in parts))


if __name__ == "__main__":
    run_program(main)
