"""Small images and `[data]` tables for the tests of this folder."""

from pathlib import Path

import numpy as np
import PIL.Image

from tlopt.data.dataset import File, Image, Role
from tlopt.spec.sections import DataSpec

SEED = 7


def save(path: Path, content: int, *, side: int = 12) -> Path:
    """A small image at `path`; `content` names its pixels: equal contents give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(content).integers(0, 256, (side, side, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def spec(source: Path | str, **changes: object) -> DataSpec:
    """`[data]` for a source, with `changes`."""
    return DataSpec.model_validate({"source": str(source), **changes})


def image(label: int, content: int, *, split: Role = "trainval", path: str = "x.png") -> Image:
    """A record of an image that is nowhere."""
    return Image(origin=File(Path(path)), label=label, digest=f"{content:064x}", split=split)
