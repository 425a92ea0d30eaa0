"""Whether `[model] weights` names a file, which one, and which part of it."""

from pathlib import Path

from tlopt.spec.text import user_path

SUFFIXES = (".pth", ".pt", ".safetensors")


def is_file_name(weights: str) -> bool:
    """Whether `weights` is a path and not the name of a backbone's own weights."""
    return "/" in weights or weights.partition("#")[0].endswith(SUFFIXES)


def split_part(weights: str) -> tuple[Path, str]:
    """The file, and the entry of it after "#", as in "a.pth#state_dict_ema"; "" without one.

    Raises:
        SpecError: the path begins with the home directory of nobody.
    """
    path, _, part = weights.partition("#")
    return user_path(path), part
