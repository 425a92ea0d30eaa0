"""The generators of the documentation, on planted pages, notebooks and records."""

from pathlib import Path

import nbformat
from pydantic import BaseModel, Field

from docs.generate import architecture, notebook, study_file, tree


def write(root: Path, **files: str) -> None:
    """Files by name, "__" for a folder's "/" and "_md" for ".md"."""
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_md", ".md")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_links_that_lead_nowhere_are_named_with_their_page(tmp_path: Path) -> None:
    write(
        tmp_path,
        README_md="[a](docs/a.md) [b](docs) [c](LICENSE) [d](other.md) [e](https://e.org)",
        other_md="x",
    )
    write(tmp_path, docs__a_md="![picture](images/none.png)\n\n```markdown\n[code](nowhere.md)\n```\n")

    assert tree.broken_links(tmp_path) == [
        "README.md: links to docs, which is a folder; link to a file in it",
        "README.md: links to LICENSE, which is missing",
        "README.md: links to other.md, which is no page of the site; see PAGES in docs/generate/tree.py",
        "docs/a.md: links to images/none.png, which is missing",
    ]


def test_the_tree_has_pages_where_they_lie_with_the_files_they_link_to(tmp_path: Path) -> None:
    write(tmp_path, README_md="[a](docs/a.md#x) [file](LICENSE)", LICENSE="free", private="secret")
    hidden = "<!-- only in the repository -->\nx\n<!-- end -->\n\n"
    write(tmp_path, docs__a_md=f"before\n<!-- generated: words -->\n{hidden}after")

    tree.write(tmp_path, tmp_path / "build", {"words": lambda: "planted"})

    built = {file.relative_to(tmp_path / "build").as_posix() for file in (tmp_path / "build").rglob("*.*")}
    assert built | {"LICENSE"} == {"README.md", "docs/a.md", "LICENSE"}
    assert (tmp_path / "build" / "LICENSE").read_text() == "free"
    assert (tmp_path / "build" / "docs" / "a.md").read_text() == "before\nplanted\nafter"


def test_a_notebook_becomes_a_page_and_links_to_it_follow(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("print(1)", outputs=[planted("1"), planted("2\n")]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "first.ipynb")
    write(tmp_path, README_md="[notebook](first.ipynb)")

    tree.write(tmp_path, tmp_path / "build", {})

    assert (tmp_path / "build" / "README.md").read_text() == "[notebook](first.md)"
    expected = "# Title\n\n```python\nprint(1)\n```\n\n```text\n12\n```\n"
    assert (tmp_path / "build" / "first.md").read_text() == expected
    assert notebook.markdown(tmp_path / "first.ipynb", tmp_path / "images") == expected


def planted(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


class Planted(BaseModel):
    needed: str = Field(description="a name")
    share: float = Field(default=0.25, description="a share")
    off: bool = Field(default=False, description="a switch")
    inner: int = 1  # without a description it is no key


def test_a_table_of_keys_has_a_row_for_each_key_with_a_meaning() -> None:
    assert study_file._keys(Planted).splitlines() == [
        "| key | default | meaning |",
        "| --- | --- | --- |",
        "| `needed` | required | a name |",
        "| `share` | `0.25` | a share |",
        "| `off` | `false` | a switch |",
    ]


def test_a_room_has_its_floor_its_words_and_the_colour_of_what_it_imports(tmp_path: Path) -> None:
    write(tmp_path, tests__floors="")
    (tmp_path / "tests" / "floors.toml").write_text(
        '[[floor]]\nrooms = ["low"]\n[[floor]]\nrooms = ["high", "side"]\n'
    )
    (tmp_path / "tlopt" / "high").mkdir(parents=True)
    (tmp_path / "tlopt" / "high" / "__init__.py").write_text('"""Says much: and more."""\n')
    (tmp_path / "tlopt" / "high" / "a.py").write_text("import torch.nn\n")
    (tmp_path / "tlopt" / "low.py").write_text('"""Says little."""\nfrom optuna import trial\n')
    (tmp_path / "tlopt" / "side.py").write_text('"""Says nothing."""\n')

    picture = architecture.svg(tmp_path)

    rooms = [line.split('"')[1] for line in picture.splitlines() if 'width="182"' in line]
    assert rooms == ["torch", "none", "optuna"]
    assert [words in picture for words in ("Says much<", "and more", "Says little<")] == [True, False, True]
    assert architecture.floors(tmp_path) == [["low"], ["high", "side"]]
