"""Names in `[model]`: backbones with a width, weights files and entries in them."""

import re
from pathlib import Path

from tlopt.errors import SpecError
from tlopt.spec.text import user_path

TIMM = "timm:"  # before the name of a network of timm
SUFFIXES = (".pth", ".pt", ".safetensors")
WIDTH_MIN, WIDTH_MAX = 0.05, 16


def split_width(backbone: str) -> tuple[str, float]:
    """The library's name and the factor of its channels, as in "timm:resnet18d@0.5"; 1 without a factor.

    Raises:
        SpecError: the name is missing; or the factor is no number that is allowed, or is not in its shortest
            form, so that a network has one name.
    """
    name, at, factor = backbone.partition("@")
    if name in ("", TIMM):
        raise SpecError(
            f'model.backbone: "{backbone}": the name of a network is missing; write "resnet50", "timm:NAME",'
            ' or with a factor of its channels "timm:NAME@0.5"; tlopt blocks lists the names'
        )
    if not at:
        return backbone, 1.0
    width = float(factor) if re.fullmatch(r"\d+(\.\d+)?", factor) else 0.0
    if not WIDTH_MIN <= width <= WIDTH_MAX:
        raise SpecError(
            f'model.backbone: "{backbone}": after @ comes a factor of the channels from {WIDTH_MIN:g} to'
            f' {WIDTH_MAX}, as in "timm:resnet18d@0.5"; write "{name}" for the usual width'
        )
    usual = name if width == 1 else f"{name}@{width:g}"
    if usual != backbone:
        raise SpecError(f'model.backbone: "{backbone}": write "{usual}"')
    return name, width


def is_file_name(weights: str) -> bool:
    """Whether `weights` is a path, not the name of a backbone's weights."""
    return "/" in weights or weights.partition("#")[0].endswith(SUFFIXES)


def split_part(weights: str) -> tuple[Path, str]:
    """The file and the entry after "#", as in "a.pth#state_dict_ema"; "" without an entry.

    Raises:
        SpecError: the path begins with ~name, and there is no such user.
    """
    path, _, part = weights.partition("#")
    return user_path(path), part
