"""Small subsets of an image folder for training, validation and test, decoded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlopt.data.decode import Reading, decode
from tlopt.data.pixels import eval_size, training_size
from tlopt.data.views import eval_views
from tlopt.model.sources import find_named
from tlopt.spec.point import seed_for

NORMAL = find_named("efficientnet_lite0", "default")
_READING = Reading(resize="crop")


@dataclass(frozen=True)
class Subset:
    """Files of one split and their labels."""

    files: tuple[Path, ...]
    labels: Tensor  # int64

    def pixels(self, size: int) -> Tensor:
        """uint8 (n, size, size, 3)."""
        return torch.from_numpy(np.stack([_decoded(file, size) for file in self.files]))

    def views(self, resolution: int) -> Tensor:
        """The normalised views for evaluation: float32 (n, 3, resolution, resolution)."""
        pixels = self.pixels(eval_size(resolution))
        return eval_views(pixels, resolution=resolution, mean=NORMAL.mean, std=NORMAL.std)

    def training_pixels(self, resolution: int) -> Tensor:
        """uint8 (n, S, S, 3), of the size that training crops are cut from."""
        return self.pixels(training_size(resolution))


@dataclass(frozen=True)
class Images:
    """The images of one set and seed; the seed draws those for training, the others are always the same."""

    name: str
    n_classes: int
    train: Subset
    val: Subset
    test: Subset


@cache
def _decoded(file: Path, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return decode(file, size=size, reading=_READING)


def draw(data: Path, counts: Sequence[int], seed: int) -> Images:
    """Images of `data`, at most `counts` for training, validation and test, in proportion to the classes."""
    classes = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    train, val, test = (
        _subset(data / split, classes, n, seed if split == "train" else 0)
        for split, n in zip(("train", "val", "test"), counts, strict=True)
    )
    return Images(data.name, len(classes), train, val, test)


def _subset(folder: Path, classes: Sequence[str], n_images: int, seed: int) -> Subset:
    generator = np.random.default_rng(seed_for("recipes", folder.name, seed))
    ranked = []
    for label, name in enumerate(classes):
        files = sorted(file for file in (folder / name).iterdir() if file.is_file())
        places = (generator.permutation(len(files)) + 0.5) / len(files)
        ranked += [(place, label, file) for place, file in zip(places, files, strict=True)]
    taken = sorted(ranked)[:n_images]
    return Subset(tuple(file for *_, file in taken), torch.tensor([label for _, label, _ in taken]))
