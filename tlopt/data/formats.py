"""Descriptions of files that cannot be decoded: their format and a cure."""

import io

import PIL.Image
import PIL.TiffImagePlugin

from tlopt.system.words import counted

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_SAVE = "save it as PNG or JPEG"
# Start-of-frame markers of ITU-T T.81, table B.1: all but DHT, JPG and DAC
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "undefined"}


def is_heif(content: bytes) -> bool:
    """Whether the content is HEIC or HEIF, as written by phones."""
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS


def describe_unreadable(content: bytes) -> str:
    """A description of content that no reader accepts, with a cure."""
    if is_heif(content):
        return 'an HEIC image, which needs the extra heif: pip install "tlopt[heif]"'
    if content[4:8] == b"ftyp" and content[8:12] in _AVIF_BRANDS:
        return f"an AVIF image that this Pillow cannot decode: {_SAVE}"
    if content[:2] == b"\xff\xd8":
        return _jpeg(content)
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(content)
    if content[:2] == b"\xff\x0a" or content[4:12] == b"JXL \r\n\x87\n":
        return f"a JPEG XL image, which Pillow does not read: {_SAVE}"
    if content[128:132] == b"DICM":
        return "a DICOM file: save its image as PNG, with the window that shows what is to be learnt"
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the image itself: git lfs pull fetches it"
    if content.lstrip()[:1] == b"<":
        return "a web page or another text with tags (HTML, SVG), not an image"
    kind = _pillows_name(content)
    if kind:
        return f"its content is {kind}, which is not treated as a photograph: {_SAVE}"
    return "the content has no known image format"


def _jpeg(content: bytes) -> str:
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES:
            bits = content[at + 4]
            if bits != 8:
                return (
                    f"a JPEG with {counted(bits, 'bit')} per sample, which Pillow does not read: {_SAVE} of 8"
                    " bits"
                )
            break
        at += 2 + length
    return f"a damaged JPEG, or one of a kind that Pillow does not read: {_SAVE}"


def _tiff(content: bytes) -> str:
    try:
        file = io.BytesIO(content)
        tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if content[2:3] == b"+" else 8))
        file.seek(tags.next)
        tags.load(file)
        bits, bands = tags.get(258, (1,)), tags.get(277, 1)
        planar = "planar, " if tags.get(284) == 2 else ""
        values = _SAMPLE_FORMATS.get(tags.get(339, (1,))[0], "undefined")
    # a damaged file: its tags may contain anything
    except Exception:
        return f"a damaged TIFF: {_SAVE}"
    kind = f"{planar}{'/'.join(map(str, sorted(set(bits))))} bits, {values}"
    return (
        f"a TIFF of {counted(bands, 'band')} ({kind}), which Pillow does not read: save it as RGB or"
        " grey, with 8 bits, or 16 for grey"
    )


def _pillows_name(content: bytes) -> str:
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            return image.format or ""
    # not an image, or a truncated header
    except Exception:
        return ""
