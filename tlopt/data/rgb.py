"""Decoding of images to RGB pixels, for training, confirmation and prediction.

Needs only Pillow and NumPy: exports contain a copy of this file. Images are decoded completely:

1. The first frame, with its EXIF orientation applied.
2. RGB: grey is repeated, CMYK and palettes are converted, transparent pixels are put on white, 16-bit values
   are scaled by 255/65535, or by 255/(2**bits - 1) if fewer bits are used. Colour profiles are ignored.
3. "crop": the largest centred square; "stretch": the whole image; resampled to `size` x `size` pixels with
   Pillow's antialiased bicubic filter. A JPEG with a shorter side of 4 x `size` pixels or more is first
   reduced by the JPEG decoder (to 1/2, 1/4 or 1/8), to not less than 2 x `size`.
"""

import io
import struct
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
from numpy.typing import NDArray

Resize = Literal["crop", "stretch"]

# By content, not by name. Other formats (FITS, EPS, ...) contain data or programs rather than photographs.
FORMATS = (
    *(
        "AVIF",
        "BMP",
        "CUR",
        "DDS",
        "DIB",
        "GIF",
        "HEIF",
        "ICNS",
        "ICO",
        "JPEG",
        "JPEG2000",
        "MPO",
        "PCX",
        "PNG",
    ),
    *("PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)
FULL_BITS = 16

_FULL, _TWELVE_BITS = 65535, 4095
_WHITE_IS_ZERO = 0  # TIFF 6.0, PhotometricInterpretation
_PHOTOMETRIC, _BITS_PER_SAMPLE = 262, 258
_PNG_DEPTH_AT = 24  # position in the file of the bit depth in IHDR
_TGA_FLAGS_AT = 17


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image."""

    image: PIL.Image.Image
    peak: int  # largest value in 0..65535 for more than 8 bits, else -1
    revised: bool = False  # whether the first version of tlopt decoded other pixels
    side: int = 0  # pixels of the shorter side, before any reduction by the JPEG decoder


def open_rgb(content: bytes, size: int, *, bits: int = FULL_BITS) -> Decoded:
    """The decoded image; a JPEG may be reduced, but not below 2 x `size`.

    Args:
        bits: significant bits of 16-bit values, 8 to 16; larger values become white.

    Raises:
        ValueError: the pixels cannot be converted to 8 bits faithfully.
        Exception: Pillow's readers raise nearly anything on damaged content.
    """
    file = PIL.Image.open(io.BytesIO(content), formats=_formats())
    side, kind, deep = min(file.size), file.format or "", _has_deep_samples(file)
    white = _white(file, content, bits)
    image: PIL.Image.Image = file
    image.draft(image.mode, (2 * size, 2 * size))
    image.load()
    _upright(image)
    if kind == "JPEG2000":
        _refuse_wrapped_jpeg2000(image, _jpeg2000_bits(content))
    if image.mode.startswith("I"):
        return replace(_grey(image, white), side=side)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    peak = 257 * int(np.asarray(image).max()) if deep else -1
    if deep and bits < FULL_BITS:
        image = _rescaled_colour(image, content, bits)
    revised = False
    if kind == "TGA" and image.mode in ("RGBA", "LA") and not content[_TGA_FLAGS_AT] & 0x0F:
        image, revised = image.convert(image.mode.removesuffix("A")), True
    elif kind == "PNG":
        image, revised = _with_transparent_colour(image, content)
    return Decoded(_on_white(image), peak, revised, side)


def square(image: PIL.Image.Image, *, size: int, resize: Resize) -> NDArray[np.uint8]:
    """The RGB image as uint8 (size, size, 3): its central square ("crop") or all of it ("stretch")."""
    width, height = image.size
    side = min(width, height)
    part = (side, side) if resize == "crop" else (width, height)
    left, top = (width - part[0]) / 2, (height - part[1]) / 2
    box = (left, top, left + part[0], top + part[1])
    return np.array(image.resize((size, size), PIL.Image.Resampling.BICUBIC, box=box))


def eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """A decoded image of any mode in RGB, without its file.

    Raises:
        ValueError: the range of the pixel values is not known.
    """
    if image.mode.startswith("I"):
        return _grey(image, _FULL).image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    return _on_white(image)


def _formats() -> list[str]:
    PIL.Image.init()  # all plugins, including registered ones of other packages
    return [name for name in FORMATS if name in PIL.Image.OPEN]


def _upright(image: PIL.Image.Image) -> None:
    try:
        PIL.ImageOps.exif_transpose(image, in_place=True)
    # Broken EXIF blocks are common on the web; the pixels are fine, so the image is used as stored.
    except Exception:
        return


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", over.size, "white"), over).convert("RGB")


def _white(image: PIL.ImageFile.ImageFile, content: bytes, bits: int) -> int:
    """The value of white in an image that is not loaded yet and may have integers of more than 8 bits."""
    match image.format:
        case "TIFF" if image.tag_v2.get(_BITS_PER_SAMPLE) == (12,):  # type: ignore[attr-defined]
            return _TWELVE_BITS
        case "JPEG2000" if _jpeg2000_bits(content) < FULL_BITS:
            return _FULL  # Pillow scales them
        case "PPM" if (
            image.tile and image.tile[0][0] == "ppm"
        ):  # likewise, by the largest value in the header
            return _FULL
        case _:
            return int(2**bits - 1)


def _grey(image: PIL.Image.Image, white: int) -> Decoded:
    """Integers of more than 8 bits as grey."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _FULL:
        raise ValueError("whole-number pixels outside 0..65535: save it with 8 or 16 bits")
    revised = white == _TWELVE_BITS and getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,)
    grey = (np.minimum(values, white) * 255 + white // 2) // white
    peak = int(values.max()) * (_FULL // white if revised else 1)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey, peak, revised = 255 - grey, _FULL - int(values.min()), True
    clear = image.info.get("transparency") if image.format == "PNG" else None
    if isinstance(clear, int):
        grey, revised = np.where(values == clear, 255, grey), True
    return Decoded(PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB"), peak, revised)


def _has_deep_samples(image: PIL.ImageFile.ImageFile) -> bool:
    """Whether Pillow will truncate 16-bit colours to their upper 8 bits."""
    raw = [args if isinstance(args, str) else str(args[0]) for *_, args in image.tile if args]
    return any(mode.endswith((";16B", ";16L", ";16N")) and not mode.startswith("I") for mode in raw)


def _sixteen_bits(image: PIL.Image.Image, content: bytes) -> NDArray[np.int64]:
    """The values (h, w, 3) of a PNG with 16 bits per colour, given an `image` of the upper eight."""
    lower = PIL.Image.open(io.BytesIO(content), formats=["PNG"])
    # Read as little-endian, a big-endian sample gives its lower byte.
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
    lower.load()
    _upright(lower)
    return np.asarray(np.asarray(image).astype(np.int64) * 256 + np.asarray(lower))


def _rescaled_colour(image: PIL.Image.Image, content: bytes, bits: int) -> PIL.Image.Image:
    if image.format != "PNG" or image.mode != "RGB" or "transparency" in image.info:
        raise ValueError(
            f"colours of 16 bits of which {bits} are used (data.bits) are read from opaque PNG files only:"
            " save it as one, or with 8 bits"
        )
    white = 2**bits - 1
    values = np.minimum(_sixteen_bits(image, content), white)
    return PIL.Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))


def _with_transparent_colour(image: PIL.Image.Image, content: bytes) -> tuple[PIL.Image.Image, bool]:
    """A PNG with correct transparency; Pillow compares the transparent colour with changed values."""
    clear, depth = image.info.get("transparency"), content[_PNG_DEPTH_AT]
    if image.mode == "L" and isinstance(clear, int) and depth in (2, 4):
        image.info["transparency"] = clear * (255 // (2**depth - 1))
        return image, True
    if image.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
        opaque = (_sixteen_bits(image, content) != clear).any(axis=2)
        del image.info["transparency"]
        image.putalpha(PIL.Image.fromarray(opaque.astype(np.uint8) * 255))
        return image, True
    return image, False


def _refuse_wrapped_jpeg2000(image: PIL.Image.Image, bits: int) -> None:
    """Raise for samples that Pillow rounds up past 255, so that white becomes black."""
    if bits > 8 and image.mode != "I;16":
        raise ValueError(
            f"a JPEG 2000 with {bits} bits per sample, whose white Pillow decodes to black: save it with 8"
            " bits, or as a 16-bit PNG"
        )


def _jpeg2000_bits(content: bytes) -> int:
    """Bits per sample, the maximum over components."""
    at = content.find(b"\xff\x4f\xff\x51")  # SOC and SIZ, ISO/IEC 15444-1 A.5.1
    (n_components,) = struct.unpack_from(">H", content, at + 40)
    return max(1 + (content[at + 42 + 3 * i] & 0x7F) for i in range(n_components))
