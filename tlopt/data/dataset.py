"""Records of images, splits and data sets; no pixels and no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["trainval", "train", "val", "test"]


@dataclass(frozen=True)
class File:
    """An image that is a file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Sample:
    """An image of a library's data set, by its index."""

    source: str  # "torchvision:NAME" or "digits"
    part: str  # the library's name of the split, "" if it has none
    index: int

    def __str__(self) -> str:
        return f"{self.source}/{self.part}[{self.index}]".replace("/[", "[")


@dataclass(frozen=True, kw_only=True)
class Image:
    """One readable image.

    `split` is the source's: "trainval" if the source has no validation split, so that validation images are
    drawn from it, otherwise "train", "val" or "test".
    """

    origin: File | Sample
    label: int  # index into the class names
    digest: str  # 64 hex digits: `digest.content_digest` of a file, `builtin.pixel_digest` of a sample
    split: Role
    sketch: str = ""  # see `likeness.sketch`; "" for samples
    group: str = ""  # images with the same group stay on one side of every split; "" without groups
    fold: str = ""  # the source's fold in which the image is validated on; "" without given folds
    shared: str = ""  # smallest digest of the files with the same pixels, "" if it is `digest`
    joined: str = ""  # smallest identity among the images that must stay together, "" if it is `identity`

    @property
    def identity(self) -> str:
        """A digest that images with equal pixels share."""
        return self.shared or self.digest

    @property
    def unit(self) -> str:
        """A digest that images share if they must stay on one side of every split."""
        return self.joined or self.identity


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image that cannot be decoded, with the reason."""

    origin: File | Sample
    problem: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All images of a source, test images included."""

    class_names: tuple[str, ...]
    images: tuple[Image, ...]
    unreadable: tuple[Unreadable, ...] = ()
    notices: tuple[str, ...] = ()
    former_names: tuple[str, ...] = ()  # class names in fingerprints, if earlier versions used other names


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One division into training and validation images: disjoint, sorted indices into `Data.images`."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """The images for a search: training and validation only, ordered by class and content."""

    class_names: tuple[str, ...]
    images: tuple[Image, ...]
    labels: NDArray[np.int64]  # (N,), indices into class_names
    splits: tuple[Split, ...]  # one for each repeat of a trial, then those of the confirmation alone
    n_trial_splits: int  # the first of them, which every trial of a search trains on
    fingerprint: str  # 16 hex digits, see `load.fingerprint`
    skipped: tuple[str, ...]  # files left out because unreadable = "skip"
    notices: tuple[str, ...]  # clauses without capital letter and full stop
    n_test: int  # number of held-out images

    def confirm_split(self, replicate: int) -> int:
        """Index of the split of the confirmation's runs with the seed number `replicate`, from 0.

        Seeds take splits in turn: those of the confirmation, or those of the trials if it has none.
        """
        n_own = self.n_confirm_splits
        return replicate % self.n_trial_splits if not n_own else self.n_trial_splits + replicate % n_own

    @property
    def n_confirm_splits(self) -> int:
        """Number of splits that only the confirmation uses."""
        return len(self.splits) - self.n_trial_splits

    @property
    def ever_train(self) -> NDArray[np.int64]:
        """Ascending indices of the images that are in the training part of any split."""
        return np.unique(np.concatenate([split.train for split in self.splits]))

    @property
    def ever_val(self) -> NDArray[np.int64]:
        """Ascending indices of the images that are in the validation part of any split."""
        return np.unique(np.concatenate([split.val for split in self.splits]))


@dataclass(frozen=True, kw_only=True, eq=False)
class TestSplit:
    """The held-out images, ordered by class and content. Created only by `load.test_split`."""

    __test__ = False  # pytest: not a test class

    class_names: tuple[str, ...]
    images: tuple[Image, ...]
    labels: NDArray[np.int64]  # (N,), indices into class_names
