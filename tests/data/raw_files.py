"""Image files that Pillow cannot write, built byte by byte."""

import base64
import struct
import zlib

import numpy as np

# 2 x 2 pixels, all of them white, by OpenJPEG.
JPEG_2000 = {
    "grey9": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAAAgAAAAIAAQgHAAAAAAAPY29scgEA"
        "AAAAABEAAABfanAyY/9P/1EAKQAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAAQgBAf9SAAwAAAABAAAEBAAB"
        "/1wABEBI/5AACgAAAAAAFAAB/5PPwAwByr//2Q=="
    ),
    "grey10": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAAAgAAAAIAAQkHAAAAAAAPY29scgEA"
        "AAAAABEAAABfanAyY/9P/1EAKQAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAAQkBAf9SAAwAAAABAAAEBAAB"
        "/1wABEBQ/5AACgAAAAAAFAAB/5PPzAwByr//2Q=="
    ),
    "grey16": (
        "/0//UQApAAAAAAACAAAAAgAAAAAAAAAAAAAAAgAAAAIAAAAAAAAAAAABDwEB/1IADAAAAAEAAAQEAAH/XAAEQID/kAAKAAAA"
        "AAAVAAH/k8/8MAwByr//2Q=="
    ),
    "rgb8": (
        "/0//UQAvAAAAAAACAAAAAgAAAAAAAAAAAAAAAgAAAAIAAAAAAAAAAAADBwEBBwEBBwEB/1IADAAAAAEBAAQEAAH/XAAEQED/"
        "kAAKAAAAAAAWAAH/k8+0DAHKv4CA/9k="
    ),
    "rgb12": (
        "/0//UQAvAAAAAAACAAAAAgAAAAAAAAAAAAAAAgAAAAIAAAAAAAAAAAADCwEBCwEBCwEB/1IADAAAAAEBAAQEAAH/XAAEQGD/"
        "kAAKAAAAAAAWAAH/k8/kDAHKv4CA/9k="
    ),
    "rgba16": (
        "/0//UQAyAAAAAAACAAAAAgAAAAAAAAAAAAAAAgAAAAIAAAAAAAAAAAAEDwEBDwEBDwEBDwEB/1IADAAAAAEAAAQEAAH/XAAE"
        "QID/kAAKAAAAAAAqAAH/k8/8MAwByr/P/DAMAcq/z/wwDAHKv8/8MAwByr//2Q=="
    ),
}


def jpeg_2000(kind: str) -> bytes:
    """A white JPEG 2000 of so many bits a sample."""
    return base64.b64decode(JPEG_2000[kind])


def png(rows: list[bytes], width: int, *, depth: int, colour: int, transparent: bytes = b"") -> bytes:
    """A PNG of colour type 0 (grey) or 2 (RGB) perhaps with a transparent colour.

    Args:
        rows: packed samples, big-endian.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    clear = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + clear + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(
    data: bytes, width: int, height: int, *, bits: int, photometric: int = 1, bands: int = 1, planar: int = 1
) -> bytes:
    """An uncompressed little-endian TIFF.

    Args:
        photometric: 0: white is zero, 1: black is zero.
        planar: 1: the bands of a pixel lie together, 2: each band is a plane.
    """
    n = 10
    pixels_at = 8 + 2 + 12 * n + 4 + 2 * bands
    bits_at = 8 + 2 + 12 * n + 4
    bits_field = (258, 3, bands, bits_at) if bands > 2 else (258, 3, 1, bits)
    fields = [
        *((256, 4, 1, width), (257, 4, 1, height), bits_field, (259, 3, 1, 1), (262, 3, 1, photometric)),
        *((273, 4, 1, pixels_at), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data))),
        (284, 3, 1, planar),
    ]
    directory = struct.pack("<H", n) + b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0\x08\0\0\0" + directory + bytes(4) + struct.pack("<H", bits) * bands + data


def packed_12_bits(values: list[int]) -> bytes:
    """Values of 12 bits, two in three bytes, as TIFF packs them."""
    pairs = zip(values[::2], values[1::2], strict=True)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


def tga(pixels: np.ndarray, *, alpha_bits: int) -> bytes:
    """A 32-bit TGA of BGRA `pixels` (h, w, 4) that declares so many bits of alpha."""
    height, width, _ = pixels.shape
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, width, height, 32, 0x20 | alpha_bits)
    return header + pixels.astype(np.uint8).tobytes()


def fits(values: np.ndarray) -> bytes:
    """A FITS file of unsigned 16-bit `values`, stored as signed ones with BZERO, as cameras write it."""
    cards = [
        *(
            "SIMPLE  =                    T",
            "BITPIX  =                   16",
            "NAXIS   =                    2",
        ),
        *(
            f"NAXIS1  = {values.shape[1]:20}",
            f"NAXIS2  = {values.shape[0]:20}",
            "BZERO   =                32768",
        ),
        *("BSCALE  =                    1", "END"),
    ]
    header = "".join(f"{card:<80}" for card in cards).encode().ljust(2880)
    data = (values.astype(np.int64) - 32768).astype(">i2").tobytes()
    return header + data.ljust(2880, b"\0")


def jpeg_head(bits: int) -> bytes:
    """The start of a JPEG of so many bits a sample, up to its frame."""
    frame = struct.pack(">BHHB", bits, 8, 8, 1) + bytes([1, 0x11, 0])
    return b"\xff\xd8\xff\xc1" + struct.pack(">H", len(frame) + 2) + frame + bytes(32)
