"""Files and folders that come into place whole or not at all, also where the process is killed meanwhile.

They are written beside their place under a hidden name that holds this host and process. A process that was
killed leaves that name behind; the next writer of the same file on the host removes it.
"""

import errno
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOST = re.sub(r"[^A-Za-z0-9-]", "", platform.node())[:40]


@contextmanager
def replacing_file(path: Path, *, part: Path | None = None) -> Iterator[Path]:
    """The name to write a file under, which takes `path`'s place when the block ends well.

    Its content is on the disk then, also after a loss of power. Where the block raises, nothing is left and
    `path` is as it was.

    Args:
        part: the name to write under; by default a hidden one beside `path`.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    if part is None:
        _remove_leftovers(path)
        part = _part(path)
    try:
        yield part
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes `path`'s place when the block ends well, and else leaves no trace.

    Raises:
        OSError: the folder's parent cannot be written; what was at `path` is there again.
    """
    _remove_leftovers(path)
    part, former = _part(path), _part(path).with_suffix(".old")
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rename(former)
        part.rename(path)
    except OSError:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put `content` at `path`, text as UTF-8, whole or not at all; into a pipe or device, as it comes.

    Raises:
        OSError: the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with replacing_file(path) as part:
        part.write_bytes(data)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk.

    Raises:
        OSError: it cannot be brought there; a file system that cannot sync folders is passed over.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        # some network file systems know no such thing of folders: fsync(2)
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.part")


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this host left that were killed while they wrote `path`."""
    head = f".{path.name}.{_HOST}."
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(head)]
    except OSError:  # not there yet, or not ours to list
        return
    for name in names:
        pid, _, kind = name.removeprefix(head).partition(".")
        # What was replaced (.old) is kept where its successor has not come into place.
        if kind == "part" and pid.isdecimal() and not _is_alive(int(pid)):
            left = path.with_name(name)
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
