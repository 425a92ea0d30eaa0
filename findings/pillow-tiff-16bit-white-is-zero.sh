#!/usr/bin/env bash
# Pillow hands over a 16-bit TIFF whose 0 means white as a negative, and the same file of 8 bits upright.
#
# Version: Pillow 13.0.0
# Seen:    observed: 0 means white: 8 bits 0 -> 255 (right), 16 bits 0 -> 0 (black)
# Why it surprises: scanners and X-ray devices write photometric interpretation 0, and one folder may hold 8 and
#          16 bits of it. Pillow undoes it for 1 and 8 bits, so a reader learns nothing of it from the mode or the info.
# What to do: look at tag 262 of files with mode "I;16": where it is 0, the pixels are 65535 less the value.
# Upstream: https://github.com/python-pillow/Pillow/issues/4804 (the tag when writing, closed)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'pillow==13.0.0'
"$work/venv/bin/python" - <<'PY'
import io
import struct
import sys

import PIL
from PIL import Image

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSET, SAMPLES, ROWS, BYTES = 256, 257, 258, 259, 262, 273, 277, 278, 279


def tiff(bits, photometric):
    """One pixel of value 0: header, nine tags (TIFF 6.0, section 4) and the pixel."""
    pixel = bytes(bits // 8)
    tags = {WIDTH: 1, LENGTH: 1, BITS: bits, COMPRESSION: 1, PHOTOMETRIC: photometric}
    tags |= {OFFSET: 8 + 2 + 9 * 12 + 4, SAMPLES: 1, ROWS: 1, BYTES: len(pixel)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixel


print("Pillow", PIL.__version__)
print("expected: a stored 0 comes as white (255 or 65535) where the file says that 0 means white")
seen = {}
for bits in (8, 16):
    for photometric, meaning in ((0, "white"), (1, "black")):
        image = Image.open(io.BytesIO(tiff(bits, photometric)))
        seen[bits, meaning] = image.getpixel((0, 0))
        print(f"observed: {bits} bits, 0 means {meaning}: mode {image.mode}, 0 -> {seen[bits, meaning]}")
if seen[16, "white"] != 0:
    sys.exit("changed: 16-bit files come upright, too; tag 262 need not be looked at.")
PY
