#!/usr/bin/env bash
# Pillow turns the white of colour JPEG 2000 with more than 8 bits into black.
#
# Version: Pillow 13.0.0; files made, and checked, with imagecodecs 2026.3.6
# Seen:    observed: 12 bits: 0 2047 4095 come as 0 128 0; 16 bits: 0 32767 65535 come as 0 128 0; 8 bits: 0 127 255
# Why it surprises: there is no error, and only the brightest values are hit: those that would round to 256 become 0. In
#          a photograph that is the sky, a lamp, paper; the mean of an image hardly tells. Grey of 10 to 16 bits is right.
# What to do: decode such files with another library (imagecodecs, glymur), or refuse them: byte 42 of the codestream
#          (Ssiz) is the number of bits less one.
# Upstream: https://github.com/python-pillow/Pillow/issues/6194 (other wrong values at 15 bits, closed)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'pillow==13.0.0' 'imagecodecs==2026.3.6' 'numpy==2.4.6'
"$work/venv/bin/python" - <<'PY'
import io
import sys

import imagecodecs
import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__, "with files of imagecodecs", imagecodecs.__version__)
print("expected: black, middle and white come as 0, 127 or 128, and 255")
whites = {}
for bits in (8, 10, 12, 14, 16):
    ramp = np.array([0, (2**bits - 1) // 2, 2**bits - 1], np.uint8 if bits == 8 else np.uint16)
    pixels = np.repeat(np.tile(ramp, (8, 1))[..., None], 3, axis=2)
    file = imagecodecs.jpeg2k_encode(pixels, bitspersample=bits, codecformat="jp2", reversible=True, level=0)
    assert np.array_equal(imagecodecs.jpeg2k_decode(file), pixels)
    image = Image.open(io.BytesIO(file))
    seen = [image.getpixel((x, 0))[0] for x in range(3)]
    print(f"observed: {bits} bits, mode {image.mode}: {' '.join(map(str, ramp))} come as {' '.join(map(str, seen))}")
    whites[bits] = seen[-1]
if whites[16] != 0:
    sys.exit("changed: white stays white; colour JPEG 2000 of more than 8 bits may be read with Pillow.")
PY
