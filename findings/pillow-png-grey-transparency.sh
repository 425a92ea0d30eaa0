#!/usr/bin/env bash
# Pillow loses the transparent shade of grey PNGs with 2 and 4 bits, and the colour of RGB PNGs with 16.
#
# Version: Pillow 13.0.0
# Seen:    observed: alpha of a transparent pixel: grey 1 bit 0, 2 bits 255, 4 bits 255, 8 bits 0; RGB 8 bits 0, 16 bits 255
# Why it surprises: the image says that it has transparency (`has_transparency_data`), and convert("RGBA") leaves all of
#          it opaque. The pixels are scaled to 8 bits when they are read; the transparent value is kept in the
#          file's own bits, and matches no pixel any more. Tools that shrink icons and scans choose 2 and 4 bits.
# What to do: scale image.info["transparency"] as the pixels are, by 85, 17 or 1/257, before the conversion.
# Upstream: https://github.com/python-pillow/Pillow/issues/9281 (1 bit, right in 13.0.0)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'pillow==13.0.0'
"$work/venv/bin/python" - <<'PY'
import io
import struct
import sys
import zlib

import PIL
from PIL import Image

GREY, RGB = 0, 2


def png(bits, colour_type):
    """Eight pixels of one value, which the file names transparent (PNG specification, 11.3.1.1)."""
    value = (2**bits - 1) // 2
    samples = 3 if colour_type == RGB else 1
    row = int(format(value, f"0{bits}b") * 8 * samples, 2).to_bytes(bits * samples, "big")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 8, 1, bits, colour_type, 0, 0, 0),
        b"tRNS": struct.pack(">H", value) * samples,
        b"IDAT": zlib.compress(b"\0" + row),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


print("Pillow", PIL.__version__)
print("expected: alpha 0 for a pixel of the value that the file names transparent")
alphas = {}
for name, colour_type, depths in (("grey", GREY, (1, 2, 4, 8)), ("RGB", RGB, (8, 16))):
    for bits in depths:
        image = Image.open(io.BytesIO(png(bits, colour_type)))
        assert image.has_transparency_data
        alphas[name, bits] = image.convert("RGBA").getpixel((0, 0))[3]
        print(f"observed: {name} {bits} bits, named {image.info['transparency']}: alpha {alphas[name, bits]}")
if 0 in (alphas["grey", 2], alphas["grey", 4], alphas["RGB", 16]):
    sys.exit("changed: more depths keep their transparent value; it need not be scaled for those.")
PY
