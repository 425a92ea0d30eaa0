"""torchvision's data sets, by class name, with their splits; downloaded if missing."""

import difflib
import http.client
import inspect
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torchvision.datasets

from tlopt.cache.folder import locked
from tlopt.data.dataset import Role
from tlopt.errors import DataError, MissingExtra

# Names of splits in torchvision's data sets, tried in this order.
_WORDS: dict[Role, tuple[str, ...]] = {
    "train": ("train", "trainval"),
    "val": ("val", "valid"),
    "test": ("test",),
}
# Attributes with class names; those in the order of the labels come first.
_NAMES = ("classes", "categories", "all_categories", "class_to_idx")
_FETCH_ERRORS = (
    OSError,
    RuntimeError,
    EOFError,
    http.client.HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
)


def parts(source: str, cache: Path) -> dict[Role, str]:
    """torchvision's name of each split in the data set; {"trainval": ""} if it has no splits.

    Raises:
        DataError: the data set does not exist, cannot be fetched, or has no training split.
    """
    parameters = _parameters(_dataset_class(source))
    if "split" in parameters:
        # Without a training split, nothing else is downloaded.
        words: dict[Role, str] = {"train": _first_known(source, "train", cache)}
        if words["train"]:
            words |= {"val": _first_known(source, "val", cache), "test": _first_known(source, "test", cache)}
    elif "train" in parameters:
        words = {"train": "train", "test": "test"}
    else:
        return {"trainval": ""}
    found: dict[Role, str] = {role: word for role, word in words.items() if word}
    if "train" not in found:
        raise DataError(f"{source} has no split called train or trainval: it is not supported")
    if "val" not in found:
        found["trainval"] = found.pop("train")
    return found


def open_part(source: str, part: str, cache: Path) -> Any:
    """One split of the data set, downloaded if it is not under `cache`/torchvision.

    Raises:
        DataError: it cannot be fetched.
        MissingExtra: torchvision needs another package for it.
        ValueError: the data set has no split called `part`.
    """
    root = cache / "torchvision"
    dataset_class = _dataset_class(source)
    with locked(root / source.replace(":", "-")):
        try:
            return _open(dataset_class, root, part, download=False)
        except _FETCH_ERRORS as error:
            if "download" not in _parameters(dataset_class):
                raise DataError(_fetch_message(source, root, error)) from error
        try:
            return _open(dataset_class, root, part, download=True)
        except _FETCH_ERRORS as error:
            raise DataError(_fetch_message(source, root, error)) from error


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """The class names in the order of the labels; None if the data set has none.

    The first of several names of a class is used; equal names get the label as a suffix.
    """
    for attribute in _NAMES:
        found = getattr(dataset, attribute, None)
        if isinstance(found, dict):
            found = sorted(found, key=found.__getitem__)
        if isinstance(found, (list, tuple)) and found and all(map(_is_name, found)):
            names = [name if isinstance(name, str) else name[0] for name in found]
            return tuple(
                name if names.count(name) == 1 else f"{name} ({label})" for label, name in enumerate(names)
            )
    return None


def _is_name(value: object) -> bool:
    several = isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], str)
    return isinstance(value, str) or several


def _first_known(source: str, role: Role, cache: Path) -> str:
    for word in _WORDS[role]:
        try:
            open_part(source, word, cache)
        except ValueError:  # raised by torchvision for an unknown split
            continue
        return word
    return ""


def _open(dataset_class: Any, root: Path, part: str, *, download: bool) -> Any:
    arguments = {"root": str(root), "download": download, "split": part, "train": part == "train"}
    known = _parameters(dataset_class)
    try:
        return dataset_class(**{name: value for name, value in arguments.items() if name in known})
    except ImportError as error:
        name = f"torchvision's {dataset_class.__name__}"
        raise MissingExtra(f"{name} needs the package {error.name}: pip install {error.name}") from error
    except TypeError as error:
        name = f"torchvision:{dataset_class.__name__}"
        raise DataError(f"{name} needs more than a name ({error}): it is not supported") from error


def _dataset_class(source: str) -> Any:
    name = source.removeprefix("torchvision:")
    found = getattr(torchvision.datasets, name, None)
    if inspect.isclass(found) and issubclass(found, torchvision.datasets.VisionDataset):
        return found
    close = difflib.get_close_matches(name, torchvision.datasets.__all__, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise DataError(f"torchvision has no data set called {name}{hint}")


def _parameters(dataset_class: Any) -> set[str]:
    """Names of the arguments, including those passed to base classes by **kwargs."""
    names: set[str] = set()
    for each in dataset_class.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters
        names |= {name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names - {"self"}


def _fetch_message(source: str, root: Path, error: Exception) -> str:
    return (
        f"{source} could not be fetched ({error}): try again with a network, put its files under {root},"
        " or name a folder of images"
    )
