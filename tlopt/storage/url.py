"""Database URLs: finding, normalising and displaying without passwords."""

import errno
import os
import re
from pathlib import Path

import sqlalchemy

from tlopt.errors import StorageError
from tlopt.system.filesystems import network_filesystem

DEFAULT_URL = "sqlite:///tlopt.db"
ALLOWED = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, sqlite:///FILE or the path of a .db or .sqlite file"

_PATH_SHOWN = 60  # characters shown of a path that is too long

_DRIVERS = {
    "postgres": "postgresql+psycopg2",
    "postgresql": "postgresql+psycopg2",  # without a driver, SQLAlchemy 2.1 uses psycopg 3
    "postgresql+psycopg2": "postgresql+psycopg2",
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
}


def normalise(url: str) -> str:
    """The URL with its driver, percent-encoded special characters and an absolute SQLite path.

    Raises:
        StorageError: the URL is malformed, or the kind of database is not supported.
    """
    text = url.strip()
    if "://" not in text:
        if not text.endswith((".db", ".sqlite", ".sqlite3")):
            raise StorageError(f"{hide_password(text)!r} is no storage; allowed are {ALLOWED}")
        parsed = sqlalchemy.URL.create("sqlite", database=text)
    else:
        parsed = _parse(text)
    return _canonical(parsed).render_as_string(hide_password=False)


def hide_password(url: str) -> str:
    """`url`, even if malformed, with every password replaced by ***."""
    # Greedy up to the last @, because an unencoded password may contain one.
    hidden = re.sub(r"://([^:/?@\[]*):.*@", r"://\1:***@", url, flags=re.DOTALL)
    hidden = re.sub(r"://([^:/?@\[]*):(?!\d*([/?,]|$))[^@]*$", r"://\1:***", hidden)
    return re.sub(r"(password=)[^&]*", r"\1***", hidden, flags=re.IGNORECASE)


def find_url(given: str | None) -> str:
    """The normalised URL from `given`, TLOPT_STORAGE, the file TLOPT_STORAGE_FILE, or the default.

    The default is `tlopt.db` in the working directory.

    Raises:
        StorageError: the file cannot be read, or `normalise` rejects the URL.
    """
    found = given or os.environ.get("TLOPT_STORAGE")
    file = os.environ.get("TLOPT_STORAGE_FILE")
    if not found and file:
        try:
            found = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"TLOPT_STORAGE_FILE: {file} cannot be read: {error}") from error
        if not found:
            raise StorageError(f"TLOPT_STORAGE_FILE: {file} is empty; it holds one line, the database's URL")
    return normalise(found or DEFAULT_URL)


def refuse_network_file(file: Path) -> None:
    """Check that an SQLite file, existing or not, is not on a network file system.

    The write-ahead log needs memory shared by all processes, hence one machine (sqlite.org/wal.html), and
    locks are unreliable on many network file systems.

    Raises:
        StorageError: it is; the message names the file and the kind of file system.
    """
    kind = network_filesystem(file)
    if kind:
        raise StorageError(
            f"{file} lies on a network file system ({kind}), where SQLite loses trials and may be damaged:"
            " take postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or for the workers of one machine a file"
            " on its own disk"
        )


def _parse(text: str) -> sqlalchemy.URL:
    try:
        parsed = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        parsed = None
    # A second @ would put part of the password into the host, which is shown.
    if parsed is None or (parsed.get_backend_name() != "sqlite" and text.count("@") > 1):
        raise StorageError(
            f"{hide_password(text)!r} cannot be read as a URL; in user and password special characters are"
            f" percent-encoded (@ is %40, / is %2F, : is %3A); allowed are {ALLOWED}"
        )
    return parsed


def _canonical(parsed: sqlalchemy.URL) -> sqlalchemy.URL:
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise StorageError(f"{parsed.drivername!r} is no storage that tlopt uses; allowed are {ALLOWED}")
    if driver != "sqlite":
        if not parsed.database:
            raise StorageError(f"{hide_password(str(parsed))!r} names no database; allowed are {ALLOWED}")
        return parsed.set(drivername=driver)
    if parsed.host or not parsed.database or parsed.database == ":memory:":
        raise StorageError(
            f"{hide_password(str(parsed))!r} names no file, and a database in memory cannot be shared;"
            " write sqlite:///FILE, with a fourth slash for an absolute path"
        )
    return parsed.set(drivername=driver, database=str(_absolute(parsed.database)))


def _absolute(file: str) -> Path:
    """The absolute path of an SQLite file.

    Raises:
        StorageError: the path is not valid for a file.
    """
    try:
        found = Path(file).expanduser().absolute()
        found.stat()
    except RuntimeError:  # ~NAME of an unknown user
        raise StorageError(f"{file}: there is no such user; write the whole path of the file") from None
    except ValueError as error:  # a NUL character
        raise StorageError(f"{file!r} is no path of a file: {error}") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            return found  # reported when the file is opened
        shown = file if len(file) <= _PATH_SHOWN else f"{file[:_PATH_SHOWN]}... ({len(file)} characters)"
        raise StorageError(f"{shown} is no path of a file: {os.strerror(error.errno)}") from None
    if found.is_dir():
        raise StorageError(f"{file} is a folder; name a file in it, such as {found / 'tlopt.db'}")
    return found
