"""The source tree of the site: the repository's own pages where they lie, so that links work in both places.

Links from page to page are checked by the site's generator; links to any other file are checked here.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from . import notebook

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/*.md",
    "docker/README.md",
    "benchmarks/**/README.md",
    "findings/README.md",
)
ASSETS = ("docs/site.css",)
_REPOSITORY_ONLY = re.compile(r"<!-- only in the repository -->.*?<!-- end -->\n*", re.DOTALL)
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))|(<img[^>]*\ssrc=\")([^\"]+)(\")")
_ELSEWHERE = re.compile(r"^(https?:|mailto:|#)")


def pages(root: Path) -> list[Path]:
    """Every page of the site, relative to `root`."""
    return sorted({file.relative_to(root) for pattern in PAGES for file in root.glob(pattern)})


def write(root: Path, tree: Path, sections: dict[str, Callable[[], str]]) -> None:
    """Put all pages, and the files that they link to, into a fresh folder `tree`; links have been checked.

    Args:
        sections: text for each line `<!-- generated: NAME -->` of a page. What stands between
            `<!-- only in the repository -->` and `<!-- end -->` is left out.
    """
    shutil.rmtree(tree, ignore_errors=True)
    for asset in ASSETS:
        if (root / asset).exists():
            _copy(root, tree, Path(asset))
    for page in pages(root):
        text = _REPOSITORY_ONLY.sub("", (root / page).read_text(encoding="utf-8"))
        for name, section in sections.items():
            if _mark(name) in text:
                text = text.replace(_mark(name), section())
        _write(tree / page, _with_notebooks_as_pages(text))
        for target in links(text):
            if not target.endswith(".md"):
                _copy(root, tree, (root / page.parent / target).resolve().relative_to(root.resolve()))


def broken_links(root: Path) -> list[str]:
    """A line for each link, to something other than another site, that leads nowhere."""
    mistakes = []
    for page in pages(root):
        for target in links((root / page).read_text(encoding="utf-8")):
            mistake = _mistake(root, (root / page.parent / target).resolve())
            if mistake:
                mistakes.append(f"{page}: links to {target}, {mistake}")
    return mistakes


def _mark(name: str) -> str:
    return f"<!-- generated: {name} -->"


def links(text: str) -> Iterator[str]:
    """Relative targets of the links and pictures of a page, without their anchors; code is left out."""
    for match in _LINK.finditer(_FENCE.sub("", text)):
        target = (match[2] or match[5]).partition("#")[0]
        if target and not _ELSEWHERE.match(target):
            yield target


def _mistake(root: Path, file: Path) -> str:
    """The reason why a page may not link to `file`; "" where it may."""
    if file.is_dir():
        return "which is a folder; link to a file in it"
    if not file.is_file():
        return "which is missing"
    if file.suffix == ".md" and file.relative_to(root.resolve()) not in pages(root):
        return "which is no page of the site; see PAGES in docs/generate/tree.py"
    return ""


def _copy(root: Path, tree: Path, target: Path) -> None:
    if target.suffix != ".ipynb":
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / target, tree / target)
        return
    images = tree / target.parent / f"{target.stem}_images"
    if not (tree / target.with_suffix(".md")).exists():
        _write(tree / target.with_suffix(".md"), notebook.markdown(root / target, images))


def _with_notebooks_as_pages(text: str) -> str:
    return re.sub(r"(\]\([^)\s]+)\.ipynb\)", r"\1.md)", text)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
