"""A copy of an image folder that is less related to it: some of its classes, or noise on its pixels.

    python -m benchmarks.relation.images FOLDER COPY [--classes a,b,c] [--noise 0.5]

The noise is Gaussian, independent for each channel of each pixel, and the same for files of one name; its
standard deviation is in units of the range of pixels, and what leaves the range is cut off.
"""

import argparse
import sys
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def copy_images(folder: Path, copy: Path, *, classes: Collection[str] = (), noise: float = 0.0) -> Path:
    """Write the images of the classes of `folder`, all by default, to `copy`, and return it.

    Raises:
        ValueError: a class is not in the folder.
    """
    there = {each.name: each for each in sorted(folder.iterdir()) if each.is_dir()}
    if missing := sorted(set(classes) - set(there)):
        raise ValueError(f"{folder}: no class {', '.join(missing)}; there are {', '.join(there)}")
    for name in classes or there:
        (copy / name).mkdir(parents=True, exist_ok=True)
        for file in sorted(there[name].iterdir()):
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB")) / 255
            drawn = np.random.default_rng(zlib.crc32(file.stem.encode())).normal(0, noise, pixels.shape)
            noisy = np.clip(np.rint(255 * (pixels + drawn)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(copy / name / f"{file.stem}.png")
    return copy


def main(arguments: Sequence[str]) -> None:
    """Write the copy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--classes", default="", help="names with commas; default: all")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation; pixels are 0 to 1")
    asked = parser.parse_args(arguments)
    classes = [name for name in asked.classes.split(",") if name]
    print(copy_images(asked.folder, asked.copy, classes=classes, noise=asked.noise))


if __name__ == "__main__":
    main(sys.argv[1:])
