"""Names for the kinds of file at a path: a folder, a named pipe."""

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def kind_of(mode: int) -> str:
    """The kind of a file of this mode, as in "a named pipe"; "" for a regular one."""
    kind = stat.S_IFMT(mode)
    return "" if kind == stat.S_IFREG else _KINDS.get(kind, "something else")


def kind_at(path: Path) -> str:
    """The kind of what is at `path`; "" for a regular file, and where nothing is. Links are followed."""
    try:
        return kind_of(os.stat(path).st_mode)
    except (OSError, ValueError):
        return ""


def file_in_place_of_folder(path: Path) -> Path | None:
    """The file at `path` or above it that keeps `path` from being a folder; None if there is none."""
    way = (path.absolute(), *path.absolute().parents)
    return next((each for each in reversed(way) if os.path.lexists(each) and not each.is_dir()), None)
