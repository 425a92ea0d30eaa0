"""Decoding of image files by the rule of `data.rgb`; every failure is a `DataError`."""

import importlib.metadata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tlopt.data import formats, rgb
from tlopt.data.files import read_regular
from tlopt.data.rgb import FULL_BITS, Decoded, Resize, square
from tlopt.errors import DataError
from tlopt.spec.sections import DataSpec

_RULE_VERSION = 2  # raised when files are decoded to other pixels


def _heif_version() -> str:
    try:
        return importlib.metadata.version("pillow-heif")
    except importlib.metadata.PackageNotFoundError:
        return ""


HEIF = _heif_version()  # version of the optional package for HEIC, "" without it

# Pixels may differ between versions of Pillow, which contain other codecs.
DECODER = f"{_RULE_VERSION}, Pillow {PIL.__version__}" + (f", pillow-heif {HEIF}" if HEIF else "")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The keys of `[data]` that affect decoding."""

    resize: Resize
    bits: int = FULL_BITS  # significant bits of 16-bit values
    megapixels_max: float = 0.0  # per image; 0 for Pillow's limit

    @staticmethod
    def of(spec: DataSpec) -> "Reading":
        """The keys in the section of a study file."""
        return Reading(resize=spec.resize, bits=spec.bits or FULL_BITS, megapixels_max=spec.megapixels_max)


def decode(file: str | Path | bytes, *, size: int, reading: Reading) -> NDArray[np.uint8]:
    """The image as (size, size, 3) uint8 RGB, by the rule of `data.rgb`.

    Args:
        file: a path, or the bytes of an image file.

    Raises:
        DataError: the file cannot be read or decoded; the message names it.
    """
    name = "an image" if isinstance(file, bytes) else str(file)
    try:
        content = file if isinstance(file, bytes) else read_regular(Path(file))
        return square(decode_rgb(content, size, reading).image, size=size, resize=reading.resize)
    except DataError as error:
        raise DataError(f"{name} cannot be decoded: {error}") from error


def decode_rgb(content: bytes, size: int, reading: Reading) -> Decoded:
    """The decoded, upright RGB image; a JPEG may be reduced, but not below 2 x `size`.

    Raises:
        DataError: the bytes are not a complete image; the message does not name the file.
    """
    if not content:
        raise DataError("the file is empty")
    allow(reading.megapixels_max)
    if HEIF and formats.is_heif(content):
        _register_heif()
    try:
        return rgb.open_rgb(content, size, bits=reading.bits)
    # Pillow's readers raise nearly anything on damaged files: OSError, SyntaxError, struct.error, KeyError
    except Exception as error:
        raise DataError(_reason(error, content)) from error


def sample_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """A data set's decoded image in RGB, with a white background.

    Raises:
        DataError: the range of the pixel values is not known.
    """
    try:
        return rgb.eight_bits(image)
    except ValueError as error:
        raise DataError(str(error)) from error


def allow(megapixels: float) -> None:
    """Raise Pillow's limit against decompression bombs to `megapixels`, in this process."""
    limit = PIL.Image.MAX_IMAGE_PIXELS
    # Pillow warns above its limit and raises above twice the limit.
    if limit is not None and 2 * limit < megapixels * 1e6:
        PIL.Image.MAX_IMAGE_PIXELS = int(megapixels * 1e6 / 2)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings; files that cannot be decoded are reported by name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return formats.describe_unreadable(content)
    if isinstance(error, (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)):
        return (
            "it has more pixels than Pillow's limit against decompression bombs allows: reduce it, or"
            " raise the limit with data.megapixels_max in a study file"
        )
    return str(error) or type(error).__name__
