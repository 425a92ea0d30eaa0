"""Near-duplicate images: a difference hash of each image, and pairs with similar hashes.

The hash, called sketch, has one bit for each pixel of the image at 17 x 16 grey pixels: whether its right
neighbour is brighter by more than noise. Saving, scaling and light retouching change few bits.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image
from numpy.typing import NDArray

SIDE = 16
BITS = SIDE * SIDE
_BRIGHTER = 2  # grey levels; less is noise in plain areas
_DISTINCTIVE_BITS = BITS // 8  # set bits from which equal sketches are no coincidence of plain areas
_BANDS = 8  # sketches that differ in at most 7 bits agree in at least one of 8 parts
DIFFERENT_MAX = _BANDS - 1
_BUCKET_MAX = 200  # images that agree in a part; more mean a plain area


def sketch(image: PIL.Image.Image) -> str:
    """The difference hash of an image, 64 hex digits."""
    small = image.convert("L").resize((SIDE + 1, SIDE), PIL.Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] - grey[:, :-1] > _BRIGHTER).tobytes().hex()


def is_distinctive(text: str) -> bool:
    """Whether images with this sketch are similar, and not just plain."""
    return int(text, 16).bit_count() >= _DISTINCTIVE_BITS


def similar_pairs(sketches: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, sorted, whose sketches differ in at most `DIFFERENT_MAX` bits.

    Images with equal sketches are paired with the first of them only.
    """
    if len(sketches) < 2:
        return []
    first: dict[str, int] = {}
    found = {(first[text], i) for i, text in enumerate(sketches) if first.setdefault(text, i) != i}
    index = np.array(list(first.values()), dtype=np.int64)
    codes = np.array([np.frombuffer(bytes.fromhex(text), dtype=np.uint8) for text in first])
    width = codes.shape[1] // _BANDS
    for band in range(_BANDS):
        for bucket in _equal(codes[:, band * width : (band + 1) * width]):
            found |= set(_near(codes, index, bucket))
    return sorted(found)


def _equal(parts: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Groups of at most `_BUCKET_MAX` equal rows."""
    order = np.lexsort(parts.T[::-1])
    breaks = np.flatnonzero((np.diff(parts[order].astype(np.int16), axis=0) != 0).any(axis=1)) + 1
    for bucket in np.split(order, breaks):
        if 1 < len(bucket) <= _BUCKET_MAX:
            yield bucket


def _near(
    codes: NDArray[np.uint8], index: NDArray[np.int64], bucket: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    bits = np.unpackbits(codes[bucket], axis=1).astype(np.float32)
    ones = bits.sum(axis=1)
    different = ones[:, None] + ones[None, :] - 2 * bits @ bits.T
    for a, b in np.argwhere(np.triu(different <= DIFFERENT_MAX, k=1)):
        first, second = sorted((int(index[bucket[a]]), int(index[bucket[b]])))
        yield first, second
