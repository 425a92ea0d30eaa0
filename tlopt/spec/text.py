"""Reading study files from disk, and writing values as TOML."""

import codecs
import os
from pathlib import Path

import tomlkit

from tlopt.errors import SpecError
from tlopt.spec.dimensions import Scalar
from tlopt.system.files import kind_at

# UTF-32 begins like UTF-16 in little-endian order, so it is tested first.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_text(path: str | Path) -> str:
    """The text of a study file, without the byte-order mark that some editors write.

    Raises:
        SpecError: the file cannot be read, or is not UTF-8; the message names the encoding or the line.
    """
    place = user_path(path)
    if kind := kind_at(place):  # opening a named pipe would wait for a writer
        raise _other_kind(path, kind)
    try:
        data = place.read_bytes()
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{path}: cannot be read as a study file: {getattr(error, 'strerror', None) or error}"
        ) from error
    for mark, encoding in _OTHER_MARKS:
        if data.startswith(mark):
            raise SpecError(f"{path}: is {encoding} text; a study file is UTF-8: save it in that encoding")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8, as in text saved as Latin-1;"
            " save the file as UTF-8"
        ) from error


def is_path(target: str) -> bool:
    """Whether `target` is written like the path of a study file, not like the name of a study."""
    return target.endswith(".toml") or "/" in target


def no_such_file(target: str) -> SpecError:
    """The error for a study file that does not exist or is not a regular file."""
    if kind := kind_at(user_path(target)):
        return _other_kind(target, kind)
    return SpecError(f"{target}: there is no such study file; tlopt init FOLDER writes one")


def _other_kind(path: str | Path, kind: str) -> SpecError:
    cure = "every worker reads it: save its text in a file"
    if kind == "a folder":
        cure = "an export's network is read by tlopt.load_model, and tlopt init proposes a file for images"
    return SpecError(f"{path}: is {kind} and no study file; {cure}")


def is_file(path: str | Path) -> bool:
    """Whether the file exists; False also for impossible names, such as one with 300 letters."""
    try:
        return user_path(path).is_file()
    except (OSError, SpecError, ValueError):
        return False


def user_path(path: str | Path) -> Path:
    """`path` with a leading ~ or ~name replaced by that home directory.

    Raises:
        SpecError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = os.fspath(path).split("/")[0]
        raise SpecError(f"{path}: {user} names no home directory; write the whole path") from None


def literal(value: Scalar | list[Scalar]) -> str:
    """`value` as TOML; reading it back gives an equal value, even for strings with control characters."""
    return tomlkit.item(value).as_string()
