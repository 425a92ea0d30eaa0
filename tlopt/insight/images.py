"""The images on which fit is measured, and those of the source."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlopt.data import pixels
from tlopt.data.dataset import Data
from tlopt.data.decode import Reading
from tlopt.data.split import subset
from tlopt.errors import DataError
from tlopt.insight.labelled_features import Labels
from tlopt.insight.record import SourceSet
from tlopt.model.folds import Fold, stratified_folds
from tlopt.spec.sections import DataSpec
from tlopt.system.words import counted

IMAGES_MAX = 1000  # images used; more would hardly improve the values and slow the command down
_PER_CLASS_MIN = 3  # images of each class that `subset` keeps, whatever the limit
_PER_SOURCE_CLASS_MAX = (
    20  # images; their mean is then about as far off as the mean of as few training images
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Some training images of a data set."""

    data: Data
    reading: Reading
    indices: NDArray[np.int64]  # into `data.images`

    @property
    def labels(self) -> Labels:
        """Class indices, (N,)."""
        return self.data.labels[self.indices]

    def pixels(self, resolution: int, *, progress: bool = False) -> pixels.Pixels:
        """The pixels of the data set, with these images decoded.

        Raises:
            DataError: an image has changed or disappeared since it was first read.
        """
        size = pixels.eval_size(resolution)
        return pixels.pixels(
            self.data, size=size, reading=self.reading, wanted=self.indices, progress=progress
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImages(Images):
    """The images on which fit is measured: training images of the first split only."""

    folds: tuple[Fold, ...]

    @classmethod
    def of(cls, data: Data, spec: DataSpec, *, images_max: int | None = None) -> "TrainingImages":
        """At most `images_max` training images of the first split, with each class in proportion.

        The default is `IMAGES_MAX`, or more if the classes need more. Copies and groups stay on one side of
        each fold.

        Raises:
            DataError: `images_max` is too small for the classes, or no class has two different images.
        """
        indices = _sample(data, images_max)
        units = np.unique([data.images[i].unit for i in indices], return_inverse=True)[1]
        try:
            folds = stratified_folds(data.labels[indices], units)
        except ValueError:
            few = counted(len(indices), "training image is", "training images are")
            raise DataError(
                f"{few} too few to measure a fit, with at most one different image of each class: add images"
            ) from None
        return cls(data=data, reading=Reading.of(spec), indices=indices, folds=folds)


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImages(Images):
    """Images that a network was pretrained on."""

    name: str

    @classmethod
    def of(cls, data: Data, spec: DataSpec) -> "SourceImages":
        """Training images of the first split, with each class in proportion.

        They are at most `IMAGES_MAX`, or `_PER_SOURCE_CLASS_MAX` for each class if that is more.
        """
        most = max(IMAGES_MAX, _PER_SOURCE_CLASS_MAX * len(data.class_names))
        return cls(data=data, reading=Reading.of(spec), indices=_sample(data, most), name=spec.source)

    @property
    def record(self) -> SourceSet:
        """The set and its size."""
        return SourceSet(name=self.name, n_images=len(self.indices), n_classes=len(np.unique(self.labels)))


def _sample(data: Data, images_max: int | None) -> NDArray[np.int64]:
    """Indices of training images of the first split, with each class in proportion."""
    split = data.splits[0].train
    images = [data.images[i] for i in split]
    needed = _PER_CLASS_MIN * len({(image.label, image.split) for image in images})
    most = images_max or max(IMAGES_MAX, needed)
    kept = set(map(id, subset(images, most, called="--images")))
    return np.array([i for i in split if id(data.images[i]) in kept], dtype=np.int64)
