"""Subsets of an image folder, made of links."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tlopt.spec.point import seed_for


def link_images(data: Path, folder: Path, counts: Mapping[str, int | None]) -> Path:
    """Fill `folder` with links to images of `data`, and return it.

    Args:
        data: A folder with a subfolder per split and in it one per class.
        folder: Folder for the links; need not exist.
        counts: Images per split, spaced evenly over its sorted files and thus over its classes; None for all.
    """
    for split, n_images in counts.items():
        files = sorted(file for file in (data / split).rglob("*") if file.is_file())
        n = len(files) if n_images is None else min(n_images, len(files))
        _link(data, folder, (files[index] for index in np.linspace(0, len(files) - 1, n).astype(int)))
    return folder


def link_drawn(data: Path, folder: Path, counts: Mapping[str, int], seed: int) -> Path:
    """Fill `folder` with links to images of `data` that the seed draws, and return it.

    Args:
        data: A folder with a subfolder per split and in it one per class.
        folder: Folder for the links; links that are there stay.
        counts: Largest number of images per split, in proportion to its classes, at least one of each.
    """
    for split, n_images in counts.items():
        _link(data, folder, _drawn(data / split, n_images, seed))
    return folder


def _drawn(split: Path, n_images: int, seed: int) -> list[Path]:
    random = np.random.default_rng(seed_for("proof", split.name, seed))
    ranked: list[tuple[float, str]] = []
    for folder in sorted(each for each in split.iterdir() if each.is_dir()):
        files = sorted(str(file) for file in folder.iterdir() if file.is_file())
        # the first of each class comes first of all, and the others are spread evenly
        places = random.permutation(len(files)) / len(files)
        ranked += zip((float(place) for place in places), files, strict=True)
    return [Path(file) for _, file in sorted(ranked)[:n_images]]


def _link(data: Path, folder: Path, files: Iterable[Path]) -> None:
    for file in files:
        target = folder / file.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(file.absolute())
