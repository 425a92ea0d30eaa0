"""The records that the Python functions return, found in their annotations."""

from collections.abc import Iterator
from pathlib import Path

import griffe

HAVE_A_PAGE = ("tlopt.spec.study.Study",)  # the study file's
Found = griffe.Object | griffe.Alias


def text(root: Path) -> str:
    """Lines for mkdocstrings: each record that a function returns, then what these refer to."""
    package = griffe.load("tlopt", search_paths=[root])
    names = [str(name) for name in package["api"].exports or ()]
    returned = [path for name in names for path in _classes(package, package[f"api.{name}"])]
    returned = [path for path in returned if path not in HAVE_A_PAGE]  # nor is it looked into
    members = [member for path in returned for member in _public(package, path)]
    further = [path for member in members for path in _classes(package, member)]
    options = "    options:\n      heading_level: 3\n      show_root_heading: true"
    paths = [path for path in dict.fromkeys(returned + further) if path not in HAVE_A_PAGE]
    return "\n\n".join(f"::: {path}\n{options}" for path in paths)


def _public(package: Found, path: str) -> Iterator[Found]:
    for name, member in _at(package, path).members.items():
        if not name.startswith("_"):
            yield member


def _classes(package: Found, member: Found) -> Iterator[str]:
    """Paths of the package's classes in what a function returns, or in an attribute's annotation."""
    target = _target(member)
    annotation = getattr(target, "returns", None) or getattr(target, "annotation", None)
    if not isinstance(annotation, griffe.Expr):
        return
    for part in annotation.iterate(flat=True):
        if isinstance(part, griffe.ExprName) and part.canonical_path.startswith("tlopt."):
            found = _at(package, part.canonical_path)
            if found.is_class:
                yield found.path


def _at(package: Found, path: str) -> griffe.Object:
    return _target(package[path.removeprefix("tlopt.")])


def _target(found: Found) -> griffe.Object:
    return found.final_target if isinstance(found, griffe.Alias) else found
