"""Pages match the code, have working links, and are all in the site's navigation."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
import typer

from tlopt import spec
from tlopt.cli.main import app
from tlopt.data.sources.entry import PLAIN_EXTENSIONS

README = (pages.ROOT / "README.md").read_text(encoding="utf-8")
README_LINES, README_WORDS = 130, 1000
FOR_DEVELOPERS = ("demo", "test", "docs", "dev")


def test_generated_parts_and_links_are_as_the_code_has_them() -> None:
    command = [sys.executable, "-m", "docs.generate", "--check"]

    found = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)

    assert found.returncode == 0, found.stdout + found.stderr


def test_every_page_is_in_the_navigation() -> None:
    site = tomllib.loads((pages.ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    ours = {pages.name(page) for page in pages.PAGES if ".github" not in page.parts}

    assert ours <= set(entries(site["nav"]))


def entries(nav: object) -> Iterator[str]:
    match nav:
        case str():
            yield nav
        case list():
            for entry in nav:
                yield from entries(entry)
        case dict():
            for entry in nav.values():
                yield from entries(entry)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES
    assert len(README.split()) <= README_WORDS


def test_the_suffixes_on_the_page_about_images_are_those_that_are_read() -> None:
    text = (pages.ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"Files are read by suffix: (.*?);", text, flags=re.DOTALL)

    assert listed.split() == list(PLAIN_EXTENSIONS)


def test_every_variable_of_the_environment_is_on_the_page_about_machines() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (pages.ROOT / "tlopt").rglob("*.py"))
    page = (pages.ROOT / "docs" / "machines.md").read_text(encoding="utf-8")

    assert set(re.findall(r'"(TLOPT_[A-Z_]+)"', source)) == set(re.findall(r"\| `(TLOPT_[A-Z_]+)` \|", page))


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_a_file_named_in_the_text_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:tlopt|tests|docs|benchmarks|studies|\.ci|\.github)/[\w./-]*)`", page.read_text("utf-8")
    )

    assert [path for path in named if not (pages.ROOT / path).exists()] == []


def test_every_room_says_what_it_is_for() -> None:
    rooms = [
        folder for folder in (pages.ROOT / "tlopt").rglob("__init__.py") if folder.parent.name != "tlopt"
    ]

    assert rooms
    assert [
        pages.name(room) for room in rooms if not ast.get_docstring(ast.parse(room.read_text("utf-8")))
    ] == []


def test_every_study_under_studies_decodes() -> None:
    files = sorted((pages.ROOT / "studies").rglob("*.toml"))
    assert files
    for file in files:
        spec.load(file)


@pytest.mark.parametrize("command", sorted(typer.main.get_group(app).commands))
def test_every_command_says_what_it_does(command: str) -> None:
    found = typer.main.get_group(app).commands[command]
    said = [found.help, *(getattr(parameter, "help", None) for parameter in found.params)]

    assert found.help
    # [words] would be taken for markup, and left out
    assert [text for text in said if text and re.search(r"(?<!\\)\[[a-z]", text)] == []


def test_the_first_steps_list_every_extra() -> None:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (pages.ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z0-9]+)` \| ", text, flags=re.MULTILINE)

    assert listed == [name for name in project["optional-dependencies"] if name not in FOR_DEVELOPERS]


def test_figures_of_the_demo_are_the_same_everywhere() -> None:
    wanted = re.findall(r"\d+\.\d ± \d\.\d %", (pages.ROOT / "studies" / "digits.toml").read_text())
    assert len(wanted) == 5

    for page in ("README.md", "docs/start.md"):
        text = (pages.ROOT / page).read_text(encoding="utf-8")
        assert [figure for figure in wanted if figure not in text] == [], page
