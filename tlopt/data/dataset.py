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
    """An image that a library's data set holds under a number."""

    source: str  # "torchvision:NAME" or "digits"
    part: str  # the library's word for the split, "" where it has none
    index: int

    def __str__(self) -> str:
        return f"{self.source}/{self.part}[{self.index}]".replace("/[", "[")


@dataclass(frozen=True, kw_only=True)
class Image:
    """One readable image.

    `split` is the source's own word: "trainval" where validation still has to be drawn from it, "train"
    beside a validation split of the source's own.
    """

    origin: File | Sample
    label: int  # index into the class names
    digest: str  # 64 hex digits, see `digest.content_digest`; of a sample, sha256 of its pixels
    split: Role
    sketch: str = ""  # see `likeness.sketch`; "" for samples
    group: str = (
        ""  # the user's name of what must stay on one side of every split; "" where there are no groups
    )
    fold: str = ""  # the source's name of the fold in which it validates, "" without given folds
    shared: str = ""  # smallest digest of the files with these pixels, "" for this one's
    joined: str = ""  # smallest digest of the images that must stay with this one, "" for `identity`

    @property
    def identity(self) -> str:
        """A digest that images have in common if their pixels are the same."""
        return self.shared or self.digest

    @property
    def unit(self) -> str:
        """A digest that images have in common if they must stay on one side of every split."""
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
    former_names: tuple[str, ...] = ()  # of the classes in fingerprints, where they were called otherwise


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One division into training and validation images: disjoint, sorted indices into `Data.images`."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """The images a search may see: training and validation only, ordered by class and content."""

    class_names: tuple[str, ...]
    images: tuple[Image, ...]
    labels: NDArray[np.int64]  # (N,), indices into class_names
    splits: tuple[Split, ...]  # one for each repeat
    fingerprint: str  # 16 hex digits, see `load.fingerprint`
    skipped: tuple[str, ...]  # files left out because unreadable = "skip"
    notices: tuple[str, ...]  # for a person: clauses without capital and full stop
    n_test: int  # images locked away

    @property
    def ever_train(self) -> NDArray[np.int64]:
        """Indices, ascending, of images that some split trains on."""
        return np.unique(np.concatenate([split.train for split in self.splits]))

    @property
    def ever_val(self) -> NDArray[np.int64]:
        """Indices, ascending, of images that some split validates on."""
        return np.unique(np.concatenate([split.val for split in self.splits]))


@dataclass(frozen=True, kw_only=True, eq=False)
class TestSplit:
    """The held-out images, ordered by class and content. Only `load.test_split` makes it."""

    __test__ = False  # its name is no test case

    class_names: tuple[str, ...]
    images: tuple[Image, ...]
    labels: NDArray[np.int64]  # (N,), indices into class_names
