"""Files named by `[model] weights`, and entries in them."""

from pathlib import Path

from tlopt.spec.text import user_path

SUFFIXES = (".pth", ".pt", ".safetensors")


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
