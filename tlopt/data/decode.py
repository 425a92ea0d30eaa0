"""From a file to a square of pixels: the one rule that training, confirmation and prediction share.

1. The first frame, turned as its EXIF orientation says.
2. RGB: grey is repeated, CMYK and palettes are converted, whatever is transparent lies on white, 16-bit grey
   is scaled by 255/65535. Colour profiles are not applied.
3. "crop": the largest centred square; "squash": the whole image; resampled to `size` x `size` pixels with
   Pillow's antialiased bicubic filter. A JPEG whose shorter side has 4 x `size` pixels or more is halved (or
   quartered, ...) by the JPEG decoder first, to not less than 2 x `size`.

A damaged, truncated or empty file, and one above Pillow's limit against decompression bombs, is unreadable.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Transpose

from tlopt.errors import DataError

_RULE_VERSION = 1  # raised when the same file comes to give other pixels
# What equal pixels need: another Pillow, with other codecs in it, may read files otherwise.
DECODER = f"{_RULE_VERSION}, Pillow {PIL.__version__}"

Resize = Literal["crop", "squash"]

_ORIENTATION = 0x0112  # EXIF 2.3, 4.6.4 A
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def decode(file: str | Path | bytes, *, size: int, resize: Resize) -> NDArray[np.uint8]:
    """The image as (size, size, 3) uint8 RGB, by the rule at the top of this module.

    Args:
        file: a path, or the bytes of an image file.

    Raises:
        DataError: the file cannot be read or decoded; the message names it.
    """
    name = "an image" if isinstance(file, bytes) else str(file)
    try:
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error
    try:
        return square(open_rgb(content, size), size=size, resize=resize)
    except DataError as error:
        raise DataError(f"{name} cannot be decoded: {error}") from error


def problem_of(content: bytes) -> str:
    """Why these bytes of a file are not an image, or "" if they are: every byte of the image is decoded."""
    try:
        open_rgb(content, 1)
    except DataError as error:
        return str(error)
    return ""


def open_rgb(content: bytes, size: int) -> PIL.Image.Image:
    """The decoded, upright RGB image; a JPEG may come smaller, but not below 2 x `size`.

    Raises:
        DataError: the bytes are not a whole image; the message does not name the file.
    """
    if not content:
        raise DataError("the file is empty")
    try:
        image = PIL.Image.open(io.BytesIO(content))
        image.draft(image.mode, (2 * size, 2 * size))
        image.load()
        return rgb(_upright(image))
    except DataError:
        raise
    # Pillow's readers raise nearly anything on damaged files: OSError, SyntaxError, struct.error, KeyError
    except Exception as error:
        raise DataError(_reason(error)) from error


def rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image in mode RGB; transparent parts lie on white.

    Raises:
        DataError: pixels of a kind whose range is not known.
    """
    if image.mode.startswith("I"):
        return PIL.Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise DataError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = PIL.Image.new("RGBA", over.size, "white")
        return PIL.Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def square(image: PIL.Image.Image, *, size: int, resize: Resize) -> NDArray[np.uint8]:
    """The RGB image as (size, size, 3) uint8: its middle ("crop") or the whole of it ("squash")."""
    width, height = image.size
    side = min(width, height)
    part = (side, side) if resize == "crop" else (width, height)
    left, top = (width - part[0]) / 2, (height - part[1]) / 2
    box = (left, top, left + part[0], top + part[1])
    return np.asarray(image.resize((size, size), PIL.Image.Resampling.BICUBIC, box=box))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about odd files: what cannot be decoded is reported by name instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    # Broken EXIF blocks are common on the web; the pixels are whole, so the image is used as it lies.
    except Exception:
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _eight_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError("whole-number pixels outside 0..65535: save it with 8 or 16 bits")
    return ((values * 255 + 32767) // 65535).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "the content is no known image format, or one that this Pillow was built without (avif, jp2)"
    if isinstance(error, (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)):
        return "it has more pixels than Pillow's limit against decompression bombs allows: make it smaller"
    return str(error) or type(error).__name__
