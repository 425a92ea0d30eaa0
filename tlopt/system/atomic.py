"""Atomic replacement of files and folders, safe even if the process is killed.

Content is written next to the target under a hidden name that contains the host and the process id. A killed
process leaves that file behind; the next writer of the same target on that host removes it.
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
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def replacing_file(path: Path, *, part: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block succeeds.

    The content is synced first, so it survives a power loss. If the block raises, the temporary file is
    removed and `path` is unchanged.

    Args:
        part: temporary path; default: a hidden name next to `path`.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(os.path.realpath(path))  # replace a symbolic link's target, not the link
    if part is None:
        _remove_leftovers(path)
        part = _part(path)
    try:
        yield part
        sync(part)
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and (
            error.filename == str(part) or (error.filename is None and error.errno in _WRITE_ERRORS)
        ):
            error.filename = str(path)  # the name that people know; `write` knows none
        raise
    sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it replaces `path` when the block succeeds and is removed otherwise.

    Raises:
        OSError: the parent folder cannot be written; the previous content of `path` has been restored.
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
    """Write `content` to `path` atomically, text as UTF-8; pipes and devices are written directly.

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
    """Flush a file, or a folder's entries, to the disk.

    Raises:
        OSError: flushing failed; ignored for folders on file systems that cannot sync them.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        # some network file systems cannot sync folders: fsync(2)
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.part")


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` left by killed processes of this host."""
    head = f".{path.name}.{_HOST}."
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(head)]
    except OSError:  # missing, or not readable
        return
    for name in names:
        pid, _, kind = name.removeprefix(head).partition(".")
        # .old may be the only copy of what was being replaced.
        if kind == "part" and pid.isdecimal() and not _is_alive(int(pid)):
            left = path.with_name(name)
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True
