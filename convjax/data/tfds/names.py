"""Any other image-classification data set that TFDS knows, prepared by TFDS without TensorFlow."""

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from convjax.data import cache
from convjax.data.cache import Decoded, Pair
from convjax.data.download import DownloadError, Log
from convjax.data.idx.catalog import BUILT_IN
from convjax.data.idx.reading import ADVICE
from convjax.data.tfds.network import impatient
from convjax.data.tfds.reading import quiet, read_split
from convjax.data.tfds.without_tensorflow import TensorFlowNeeded, stand_in
from convjax.errors import UnavailableError, UserError

_NAME = re.compile(r"(?P<base>\w+)(/[A-Za-z0-9_+-][\w.+-]*)?(:\d+\.\d+\.\d+)?")


def image_info(name: str) -> tuple[tuple[int, int, int], int]:
    """Image shape (height, width, channels) and number of classes, from TFDS's description of the data set.

    Raises:
      UserError: an unknown name, not labeled images, or images of no fixed size.
    """
    shape, classes = _describe(name, _builder(name, None))
    if None in shape:
        raise UserError(f"{name}: TFDS does not say how large its images are; convjax needs images of one size")
    return shape, len(classes)


def prepare(name: str, data_dir: str, *, log: Log) -> Decoded:
    """The data set `name`: a good decoded copy of it if there is one, else through TFDS.

    `data_dir` may hold TFDS's prepared copy (array_record), its downloads, or the data set's raw files.

    Raises:
      UserError: an unknown name, not labeled images of one size, no train and test data, or TFDS cannot prepare it
        without TensorFlow or files from the user.
      UnavailableError: it cannot be downloaded, or nothing can be written.
    """
    if not _NAME.fullmatch(name):
        raise UserError(_unknown(name))
    roots = cache.roots(data_dir)
    key, folder = f"tfds {name}", re.sub("[/:]", "-", name)
    if kept := cache.find(roots, folder, key):
        return kept
    decoded = _from_prepared(name, roots, roots.write / folder, log)
    if decoded is None:
        decoded = _make(name, data_dir, roots, roots.write / folder, log)
    return cache.write(roots.write, key, decoded)


def _builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """TFDS's builder of `name`, which prepares as array_record."""
    match = _NAME.fullmatch(name)
    # For an unknown name TFDS uses the network, and fails there without TensorFlow.
    if match is None or match["base"] not in tfds.list_builders(with_community_datasets=False):
        raise UserError(_unknown(name))
    try:
        with quiet():
            return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except ImportError as error:
        missing = next((cause.name for cause in _chain(error) if getattr(cause, "name", None)), "?")
        raise UserError(f"{name}: TFDS cannot open it without the package {missing}") from error
    except (ValueError, AssertionError) as error:
        configs = ", ".join(f"{match['base']}/{config}" for config in tfds.builder_cls(match["base"]).builder_configs)
        version = tfds.builder_cls(match["base"]).VERSION
        known = f"the configurations {configs}" if configs else f"version {version} and no configurations"
        raise UserError(f"--dataset={name} is unknown: {match['base']} has {known}") from error


def _unknown(name: str) -> str:
    known = dict.fromkeys([*BUILT_IN, *tfds.list_builders(with_community_datasets=False)])
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(BUILT_IN)} and TFDS's names"
    return f"--dataset={name} is unknown: {advice}"


def _describe(name: str, builder: tfds.core.DatasetBuilder) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Image shape (a size may be None) and class names."""
    features = builder.info.features
    # A FeaturesDict is no Mapping: it has no get.
    image, label = (dict(features).get(key) for key in ("image", "label"))
    if (
        image is None
        or len(image.shape or ()) != 3
        or image.np_dtype != np.uint8
        or not isinstance(label, tfds.features.ClassLabel)
        or not label.num_classes
    ):
        found = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in dict(features).items())
        raise UserError(
            f"{name} is not an image-classification data set: it has {found}, not a uint8 `image` and a class `label`"
        )
    return tuple(image.shape), tuple(label.names or map(str, range(label.num_classes)))


def _from_prepared(name: str, roots: cache.Roots, folder: Path, log: Log) -> Decoded | None:
    """The arrays in a copy that TFDS has prepared; None if no copy can be read."""
    for root in roots.read:
        builder = _builder(name, root)
        prepared = (Path(builder.data_path) / "dataset_info.json").is_file()
        if not prepared or builder.info.file_format.value != "array_record":
            continue
        try:
            return _decode(name, builder, folder)
        except UserError:
            raise
        except Exception as error:  # TFDS, protobuf and array_record raise many types for a damaged copy
            reason = " ".join(str(error).split())[:200]
            log(f"{name}: the prepared copy in {builder.data_path} cannot be read ({reason})")
    return None


def _make(name: str, data_dir: str, roots: cache.Roots, folder: Path, log: Log) -> Decoded:
    """Prepares the data set with TFDS, keeps the copy, and decodes it."""
    with cache.scratch(roots.write) as scratch:
        builder = _builder(name, scratch)
        _describe(name, builder)  # before anything is downloaded
        manual = Path(data_dir).expanduser().absolute() if data_dir else None
        downloads = roots.write / "downloads"
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual is None:
            instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
            raise UserError(f"{name} must be downloaded by hand, into a folder given as --data_dir: {instructions}")
        log(f"{name}: TFDS downloads and prepares it (once)")
        config = tfds.download.DownloadConfig(manual_dir=manual, force_checksums_validation=True)
        try:
            with stand_in(builder), impatient(), quiet(bars=sys.stderr.isatty()):
                builder.download_and_prepare(download_dir=downloads, download_config=config)
        except Exception as error:
            raise _translated(name, builder, manual, error) from error
        decoded = _decode(name, builder, folder)
        made = Path(builder.data_path)
        if made.is_relative_to(scratch):
            place = roots.write / made.relative_to(scratch)
            cache.install(made, place, good=lambda: _from_prepared(name, roots, folder, log) is not None)
    return decoded


def _decode(name: str, builder: tfds.core.DatasetBuilder, folder: Path) -> Decoded:
    _, class_names = _describe(name, builder)
    splits = list(builder.info.splits) or ["train", "test"]  # TFDS's mock data lists none
    held_out = "test" if "test" in splits else "validation"
    if "train" not in splits or held_out not in splits:
        raise UserError(f"{name} has the splits {', '.join(splits)}; convjax needs train, and test or validation")
    train, test = (_checked(name, split, read_split(builder, split), class_names) for split in ("train", held_out))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise UserError(f"{name}: its training and test images differ in size; convjax needs one size")
    return Decoded(name, cache.fingerprint(train, test), class_names, "TFDS", train, test, folder)


def _checked(name: str, split: str, pair: Pair, class_names: Sequence[str]) -> Pair:
    labels = pair[1]
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(
            f"{name}: its split {split!r} has labels from {labels.min()} to {labels.max()}, "
            f"expected labels from 0 to {len(class_names) - 1} (are its labels secret?)"
        )
    return pair


def _translated(name: str, builder: tfds.core.DatasetBuilder, manual: Path | None, error: Exception) -> Exception:
    """What a TFDS failure means for the user; the error itself if that is unknown."""
    files = sorted({info.filename for info in (builder.url_infos or {}).values() if info.filename})
    for cause in _chain(error):
        if isinstance(cause, TensorFlowNeeded) or (isinstance(cause, ImportError) and cause.name == "tensorflow"):
            what = str(cause) if isinstance(cause, TensorFlowNeeded) else "TensorFlow"
            return UserError(
                f"{name}: TFDS prepares it with {what}, which convjax does not use. Where TensorFlow is installed, run "
                f"tfds.builder('{name}', data_dir=FOLDER, file_format='array_record').download_and_prepare(), "
                "then give --data_dir=FOLDER"
            )
        if isinstance(cause, ImportError):
            return UserError(f"{name}: TFDS needs the package {cause.name} to prepare it: pip install {cause.name}")
        if isinstance(cause, NonMatchingChecksumError):
            for path in (manual / file for file in files) if manual else ():
                if f"downloaded to {path}, " in str(cause):
                    return UserError(f"{path}: its SHA-256 is not the one TFDS lists; {ADVICE}")
        if isinstance(cause, DownloadError | tfds.download.DownloadError | NonMatchingChecksumError):
            reason = " ".join(str(cause).partition("To debug")[0].split())
            advice = (
                f"Put {', '.join(files)} into a folder and give it as --data_dir=FOLDER, or use" if files else "Use"
            )
            return UnavailableError(
                f"{name} could not be downloaded by TFDS: {reason}\n"
                f"{advice} --dataset=mnist_5k, which needs no network."
            )
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
