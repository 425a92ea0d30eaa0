#!/usr/bin/env bash
# torchvision's data sets keep their class names in three shapes: strings, tuples, or another attribute.
#
# Version: torchvision 0.29.1 (with torch 2.14.1)
# Seen:    observed: EuroSAT: str 'Forest'; Imagenette: tuple ('tench', 'Tinca tinca'); Caltech101: no `classes`
# Why it surprises: all are classification sets with folders of images, and what reads `classes` works with most of them.
#          With Imagenette it gets tuples, whose str() then stands in tables and model cards; with Caltech101 and
#          Caltech256 it finds nothing, and falls back to numbers where it does not fail.
# What to do: take the first name of a tuple, and `categories` where there is no `classes`.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "installing torch and torchvision: up to several GB"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'torchvision==0.29.1' 'torch==2.14.1' 'numpy==2.4.6'
CUDA_VISIBLE_DEVICES='' "$work/venv/bin/python" -W ignore - "$work/sets" <<'PY'
import sys
from pathlib import Path

import PIL.Image
import torchvision
from torchvision.datasets import Caltech101, EuroSAT, Imagenette

root = Path(sys.argv[1])
IMAGENETTE = (
    "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257"
).split()


def image(*parts):
    """One small image where a data set looks for it."""
    file = root.joinpath(*parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 8)).save(file)


for name in IMAGENETTE:
    for split in ("train", "val"):
        image("imagenette2", split, name, "a.JPEG")
image("eurosat", "2750", "Forest", "a.jpg")
for name in ("airplanes", "BACKGROUND_Google"):  # the second is left out by torchvision
    image("caltech101", "101_ObjectCategories", name, "image_0001.jpg")
root.joinpath("caltech101", "Annotations").mkdir()

sets = [EuroSAT(root), Imagenette(root, download=False), Caltech101(root)]
print("torchvision", torchvision.__version__.split("+")[0])
print("expected: `classes` is a list of strings in each")
shapes = {}
for data in sets:
    names = getattr(data, "classes", None)
    shape = "no `classes`" if names is None else f"{type(names[0]).__name__} {names[0]!r}"
    shapes[type(data).__name__] = shape.split()[0]
    other = f", `categories` is {data.categories}" if names is None else ""
    print(f"observed: {type(data).__name__}: {shape}{other}")
if shapes["Imagenette"] == shapes["Caltech101"] == "str":
    sys.exit("changed: class names are strings under `classes` everywhere; tuples and `categories` need no care.")
PY
