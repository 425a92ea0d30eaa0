"""The pages of the documentation and the code blocks in them."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    file
    for pattern in ("*.md", "docs/*.md", "docker/*.md", "findings/*.md", ".github/**/*.md")
    for file in ROOT.glob(pattern)
    if file.name != "CHANGELOG.md"
)


def name(page: Path) -> str:
    """The page relative to the repository, for the ids of tests."""
    return page.relative_to(ROOT).as_posix()


def code(language: str) -> list[Example]:
    """Every fenced block of that language on any page, as Sybil finds it; `example.parsed` is its text."""
    sybil = Sybil(parsers=[CodeBlockParser(language, lambda example: None)])
    return [example for page in PAGES for example in _document(sybil, page).examples()]


def _document(sybil: Sybil, page: Path) -> Document:
    document: Document = sybil.parse(page)
    return document


def place(example: Example) -> str:
    """Page and line, for the ids of tests."""
    return f"{name(Path(example.path))}:{example.line}"


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command of a console block; a command may go on over several lines."""
    lines = iter(block.replace("\\\n", " ").splitlines())
    for line in lines:
        while line.startswith("$ "):
            try:
                yield shlex.split(line[2:], comments=True)
                break
            except ValueError:  # a quotation goes on in the next line
                line += "\n" + next(lines)
