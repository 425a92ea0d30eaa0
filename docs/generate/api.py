"""The records that the Python functions return, found in their annotations."""

from collections.abc import Iterator
from pathlib import Path

import griffe

HAVE_A_PAGE = ("tlopt.spec.study.Study",)  # the study file's


def text(root: Path) -> str:
    """Lines for mkdocstrings: each record that a function returns, then what these refer to."""
    package = griffe.load("tlopt", search_paths=[root])
    api = package["api"]
    returned = [path for name in api.exports for path in _classes(package, api[name])]
    returned = [path for path in returned if path not in HAVE_A_PAGE]
    members = [member for path in returned for member in _public(package, path)]
    further = [path for member in members for path in _classes(package, member)]
    options = "    options:\n      heading_level: 3\n      show_root_heading: true"
    return "\n\n".join(f"::: {path}\n{options}" for path in dict.fromkeys(returned + further))


def _public(package: griffe.Object, path: str) -> Iterator[griffe.Object]:
    for name, member in _found(package, path).members.items():
        if not name.startswith("_"):
            yield member


def _classes(package: griffe.Object, member: griffe.Object) -> Iterator[str]:
    """Paths of the package's classes in what a function returns, or in an attribute's annotation."""
    member = member.final_target if member.is_alias else member
    annotation = getattr(member, "returns", None) or getattr(member, "annotation", None)
    if not isinstance(annotation, griffe.Expr):
        return
    for part in annotation.iterate(flat=True):
        if isinstance(part, griffe.ExprName) and part.canonical_path.startswith("tlopt."):
            found = _found(package, part.canonical_path)
            if found.is_class:
                yield found.path


def _found(package: griffe.Object, path: str) -> griffe.Object:
    found = package[path.removeprefix("tlopt.")]
    return found.final_target if found.is_alias else found
