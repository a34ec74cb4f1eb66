"""The TFDS builder of data sets whose raw files convjax reads itself."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from convjax.data.cache import Pair
from convjax.data.rows import Rows
from convjax.data.tfds.reading import quiet


class ArrayImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images and labels as TFDS features `image` (a uint8 tensor) and `label`, in their given order.

    It is not registered with TFDS, which has builders by some of these names: open what it prepares with
    `open_prepared`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Pair],
        class_names: tuple[str, ...],
        *,
        data_dir: Path,
        description: str,
        homepage: str = "",
        metadata: Mapping[str, str],
        version: str = "1.0.0",
    ):
        """Describes a data set to prepare.

        Args:
          name: of the data set.
          splits: images, uint8 [n, height, width, channels], and labels [n], by TFDS split name.
          class_names: one per label.
          data_dir: TFDS's folder; the data set goes to `NAME/VERSION` in it.
          metadata: stored with the prepared copy.
        """
        self.name = name
        self.VERSION = tfds.core.Version(version)
        self._splits, self._class_names = splits, class_names
        self._texts = {"description": description, "homepage": homepage}
        self._metadata = metadata
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        image_shape = self._splits["train"][0].shape[1:]
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=image_shape, dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=list(self._class_names)),
                }
            ),
            supervised_keys=("image", "label"),
            # "Test image 247" must be the same in every copy.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(self._metadata),
            **self._texts,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # the images are loaded and verified already
        return {name: self._generate_examples(*pair) for name, pair in self._splits.items()}

    def _generate_examples(self, images: np.ndarray | Rows, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": image, "label": int(label)}

    def prepare(self) -> Path:
        """Writes the prepared copy and returns its folder."""
        with quiet():
            self.download_and_prepare()
        return Path(self.data_dir)
