"""Subsets of an image folder, made of links."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


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
        for index in np.linspace(0, len(files) - 1, n).astype(int):
            target = folder / files[index].relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(files[index].absolute())
    return folder
