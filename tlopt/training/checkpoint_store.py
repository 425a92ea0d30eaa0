"""Storage for checkpoints: a folder or object store with a few files per trial, bounded in size.

    TRIAL/EPOCH-STEP-HOLDER.ckpt     a complete checkpoint
    TRIAL/HOLDER.part                being written to a file system, or left by a killed writer

The holder of a trial is the worker that trains it. A holder that was considered lost may come back and
write next to its successor. Its checkpoints are equally good, because runs are deterministic, and it deletes
none of the successor's.
"""

import contextlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tlopt.errors import CheckpointUnreadable, MissingExtra, SpecError
from tlopt.system.atomic import replacing_file, sync
from tlopt.training.checkpoint import Checkpoint, unpack

CHECKPOINTS_PER_HOLDER = 2  # the newest, and the one before in case that is unreadable

_HOLDER = re.compile(r"[0-9a-f]{1,64}")
_FILE = re.compile(r"(\d{6,})/(?:(\d{6,})-(\d{8,})-([0-9a-f]{1,64})\.ckpt|([0-9a-f]{1,64})\.part)")


@dataclass(frozen=True)
class _File:
    """A file of a store."""

    path: str
    trial: int
    holder: str
    position: tuple[int, int]  # (epoch, step); (-1, -1) for an incomplete file
    n_bytes: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class CheckpointStore:
    """The checkpoints of one study's trials."""

    def __init__(self, url: str, bytes_max: int = 0) -> None:
        """
        Args:
            url: a folder or an fsspec URL (s3://bucket/prefix) used by this study alone; need not exist.
            bytes_max: upper bound for all checkpoints together; 0: none. A checkpoint is deleted only after
                its successor is written, and each concurrent writer may exceed the bound by one checkpoint.

        Raises:
            MissingExtra: the URL needs a package that is not installed.
            SpecError: fsspec does not know this kind of URL.
        """
        scheme = url.partition("://")[0]
        try:
            # other workers' files must be visible at once
            self._fs, self._root = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            extra = ': pip install "tlopt[s3]"' if scheme in ("s3", "s3a") else ""
            raise MissingExtra(f"checkpoints at {scheme}://… need a package ({error}){extra}") from error
        except ValueError as error:
            raise SpecError(f"checkpoints cannot lie at {scheme}://…: {error}") from error
        self._bytes_max = bytes_max
        # by trial: holders with files when this process took it over; files of later ones are left alone
        self._earlier_holders: dict[int, frozenset[str]] = {}

    @property
    def location(self) -> str:
        """The folder, or the path in the object store."""
        return str(self._root)

    def write(self, trial: int, holder: str, position: tuple[int, int], data: bytes) -> bool:
        """Store `data` atomically and delete the files it supersedes; return False if there is no room.

        The holder's last two checkpoints are kept. Older files of earlier holders are deleted, except that
        the newest of them is kept as a fallback for the holder's first checkpoint.

        Args:
            trial: trial number.
            holder: hexadecimal token of the lease under which the trial is trained.
            position: (epoch, step).

        Raises:
            OSError: the disk is full or the store refuses; nothing was stored or deleted.
        """
        if not _HOLDER.fullmatch(holder):
            raise ValueError(f"{holder!r} is no token of hexadecimal digits")
        path = f"{self._folder(trial)}/{position[0]:06d}-{position[1]:08d}-{holder}.ckpt"
        new = _File(path, trial, holder, position, len(data))
        existing = [file for file in self._list(self._folder(trial)) if file.path != path]
        before = self._earlier_holders.setdefault(trial, frozenset(file.holder for file in existing))
        superseded = _superseded(new, existing, before - {holder})
        if not self._has_room(new, superseded):
            return False
        self._put(new, data)
        for file in superseded:
            # the next write tries again
            with contextlib.suppress(OSError):
                self._remove(file)
        return True

    def newest_first(self, trial: int, identity: str) -> Iterator[Checkpoint | str]:
        """Yield a trial's checkpoints, newest first, and for each unreadable one the reason as a string.

        Checkpoints are read lazily. To resume a trial, use the first one that can be applied:

            for found in store.newest_first(trial, identity):
                if isinstance(found, str):
                    notes.append(found)
                    continue
                runs = ...  # built according to found.facts
                try:
                    apply(found, runs)
                    break
                except CheckpointUnreadable as error:
                    notes.append(str(error))
            else:
                runs = ...  # from the start

        Errors of the store are yielded as strings too.
        """
        try:
            existing = self._list(self._folder(trial))
        except OSError as error:
            yield f"the checkpoints of trial {trial} cannot be listed: {_line(error)}"
            return
        self._earlier_holders[trial] = frozenset(file.holder for file in existing)
        whole = [file for file in existing if file.name.endswith(".ckpt")]
        for file in sorted(whole, key=lambda file: (file.position, file.name), reverse=True):
            yield self._read(file, identity)

    def delete(self, trial: int) -> None:
        """Delete all files of a trial, if there are any.

        Raises:
            OSError: the store refuses; `trials` still lists the trial.
        """
        for file in self._list(self._folder(trial)):
            self._remove(file)
        self._earlier_holders.pop(trial, None)
        if isinstance(self._fs, LocalFileSystem):
            # a former holder may still be writing there
            with contextlib.suppress(OSError):
                self._fs.rmdir(self._folder(trial))

    def trials(self) -> set[int]:
        """Numbers of the trials that have files, including finished ones that a former holder wrote to.

        Raises:
            OSError: the store cannot be read.
        """
        return {file.trial for file in self._everything()}

    def _folder(self, trial: int) -> str:
        return f"{self._root}/{trial:06d}"

    def _has_room(self, new: _File, superseded: Collection[_File]) -> bool:
        if not self._bytes_max:
            return True
        gone = {file.path for file in superseded} | {new.path}
        left = sum(file.n_bytes for file in self._everything() if file.path not in gone)
        return left + new.n_bytes <= self._bytes_max

    def _put(self, new: _File, data: bytes) -> None:
        if isinstance(self._fs, LocalFileSystem):
            _write_whole(Path(new.path), data, part=Path(new.path).with_name(f"{new.holder}.part"))
            return
        try:
            with _store_errors():
                self._fs.pipe_file(new.path, data)
        except OSError:
            # not every store writes atomically
            with contextlib.suppress(OSError):
                self._remove(new)
            raise

    def _read(self, file: _File, identity: str) -> Checkpoint | str:
        try:
            with _store_errors():
                data = self._fs.cat_file(file.path)
            return unpack(data, identity=identity)
        except (OSError, CheckpointUnreadable) as error:
            return f"checkpoint {file.name} of trial {file.trial} is unreadable: {_line(error)}"

    def _remove(self, file: _File) -> None:
        with contextlib.suppress(FileNotFoundError), _store_errors():
            self._fs.rm_file(file.path)

    def _list(self, folder: str) -> list[_File]:
        with contextlib.suppress(FileNotFoundError), _store_errors():
            return self._files(self._fs.ls(folder, detail=True))
        return []

    def _everything(self) -> list[_File]:
        with contextlib.suppress(FileNotFoundError), _store_errors():
            return self._files(self._fs.find(self._root, detail=True).values())
        return []

    def _files(self, rows: Collection[dict[str, object]]) -> list[_File]:
        """The entries of `rows` that follow the naming scheme; others are ignored."""
        files = []
        for row in rows:
            path = str(row["name"])
            found = _FILE.fullmatch(path.removeprefix(self._root).lstrip("/"))
            if found is not None and row["type"] == "file":
                trial, epoch, step, holder, writer = found.groups()
                position = (-1, -1) if writer else (int(epoch), int(step))
                files.append(_File(path, int(trial), writer or holder, position, int(str(row["size"]))))
        return files


def _superseded(new: _File, existing: Collection[_File], before: Collection[str]) -> list[_File]:
    """The files of `existing` that are obsolete once `new` is written.

    Args:
        before: earlier holders than that of `new`.
    """
    own = [file for file in existing if file.holder == new.holder]
    theirs = [file for file in existing if file.holder in before and file.position < new.position]
    candidates = [file for file in own or theirs if file.name.endswith(".ckpt")]
    preserved = sorted(candidates, key=lambda file: file.position, reverse=True)[: CHECKPOINTS_PER_HOLDER - 1]
    return [file for file in own + theirs if file not in preserved]


def _write_whole(path: Path, data: bytes, *, part: Path) -> None:
    """Write a file atomically, safe against power loss; `part` is its temporary path."""
    is_first = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path, part=part):
        part.write_bytes(data)
    if is_first:
        sync(path.parent.parent)


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Raise errors of an object store's client as OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        # clients' packages are unknown here; built-in exceptions are programming errors
        if type(error).__module__ == "builtins":
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
