#!/usr/bin/env bash
# Pillow reads the unsigned 16-bit FITS files that astropy writes with their dark and bright halves exchanged.
#
# Version: Pillow 13.0.0; files written, and read right, by astropy 8.0.2
# Seen:    observed: 0 1000 32767 32768 40000 65535 come as 32768 33768 65535 0 7232 32767
# Why it surprises: FITS has no unsigned integers: by its standard (4.4.2.5) they are stored less 32768, and the header
#          says BZERO = 32768. Pillow leaves BZERO and BSCALE alone and takes the signed values for unsigned: the order of
#          the shades is lost, and nothing warns.
# What to do: read FITS with astropy.io.fits, and choose the range that is to become 0 to 255 yourself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'pillow==13.0.0' 'astropy==8.0.2' 'numpy==2.4.6'
"$work/venv/bin/python" - <<'PY'
import io
import sys

import astropy
import numpy as np
import PIL
from astropy.io import fits
from PIL import Image

values = np.array([[0, 1000, 32767, 32768, 40000, 65535]], np.uint16)
file = io.BytesIO()
fits.PrimaryHDU(values).writeto(file)
assert np.array_equal(fits.getdata(io.BytesIO(file.getvalue())), values)
image = Image.open(file)
seen = np.asarray(image).ravel()

print("Pillow", PIL.__version__, "with a file of astropy", astropy.__version__)
print("expected: the values that were written:", *values.ravel())
print(f"observed: mode {image.mode}:", *values.ravel(), "come as", *seen)
if np.array_equal(seen, values.ravel()):
    sys.exit("changed: Pillow heeds BZERO; unsigned FITS files may be read with it.")
PY
