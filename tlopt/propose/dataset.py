"""A summary of the user's images: classes, counts, sizes, grey or colour."""

import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np

from tlopt.data.dataset import Data, File, Image
from tlopt.data.decode import Reading, decode_rgb, quiet
from tlopt.data.files import read_regular
from tlopt.data.load import IMBALANCE, load_data
from tlopt.data.sources.builtin import open_sample
from tlopt.propose.budget import ImageCounts
from tlopt.spec.sections import DataSpec

_SAMPLE = 48  # number of images that are opened
_GREY_SPREAD = 3.0  # mean difference between channels, of 255, up to which an image counts as grey (JPEG)


@dataclass(frozen=True, kw_only=True)
class ImageSummary:
    """Summary of the images of a source."""

    class_names: tuple[str, ...]
    counts: ImageCounts
    largest_class: int  # images in it, without those held out
    smallest_class: int
    repeats: int  # default number of splits of a study
    own_val: bool  # whether the source has a validation split
    side: int  # median of the shorter sides, in pixels
    grey: bool
    skipped: tuple[str, ...]  # files left out because they cannot be decoded
    notices: tuple[str, ...]

    @property
    def n_seen(self) -> int:
        """Number of images available to the search."""
        return self.counts.train + self.counts.val

    @property
    def imbalanced(self) -> bool:
        """Whether plain accuracy would favour the large classes."""
        return self.largest_class >= IMBALANCE * self.smallest_class

    @property
    def are_signs(self) -> bool:
        """Whether the classes are single digits or letters, which change their meaning when mirrored.

        Only digits and Latin, Greek or Cyrillic letters count: in other scripts a character is often a word.
        """
        return all(len(name) == 1 and _is_sign(name) for name in self.class_names)


def _is_sign(character: str) -> bool:
    scripts = ("LATIN", "GREEK", "CYRILLIC")
    return character.isdigit() or unicodedata.name(character, "").startswith(scripts)


def summarize(spec: DataSpec, *, seed: int, progress: bool) -> ImageSummary:
    """A summary of the images of `spec`, split as in a study with `seed`.

    Raises:
        DataError, MissingExtra: the images cannot be used as they are; the message gives the cure.
    """
    data = load_data(spec, seed=seed, progress=progress)
    sizes = Counter(data.labels.tolist())
    split = data.splits[0]
    side, grey = _open_some(data, Reading.of(spec))
    return ImageSummary(
        class_names=data.class_names,
        counts=ImageCounts(train=len(split.train), val=len(split.val), test=data.n_test),
        largest_class=max(sizes.values()),
        smallest_class=min(sizes.values()),
        repeats=data.n_trial_splits,
        own_val=any(image.split == "val" for image in data.images),
        side=side,
        grey=grey,
        skipped=data.skipped,
        notices=data.notices,
    )


def _open_some(data: Data, reading: Reading) -> tuple[int, bool]:
    """The median of the shorter sides and whether all images are grey, from a sample over all classes."""
    spread = np.linspace(0, len(data.images) - 1, min(_SAMPLE, len(data.images))).astype(int)
    with quiet():
        rows = [_open(data.images[i], reading) for i in spread]
    return int(np.median([side for side, _ in rows])), all(grey for _, grey in rows)


def _open(image: Image, reading: Reading) -> tuple[int, bool]:
    if isinstance(image.origin, File):
        content = read_regular(image.origin.path)
        decoded = decode_rgb(content, 32, reading)
        side, opened = decoded.side, decoded.image
    else:
        opened = open_sample(image.origin)
        side = min(opened.size)
    channels = np.asarray(opened, dtype=np.float64)
    return side, float(np.ptp(channels, axis=2).mean()) < _GREY_SPREAD
