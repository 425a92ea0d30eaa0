"""Code on the pages works: study files decode, commands parse, Python runs."""

import ast
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages
import pytest
import typer
from sybil import Example
from sybil.evaluators.python import PythonEvaluator

import tlopt
from tlopt import spec
from tlopt.cli.main import app

SMALLEST: dict[str, dict[str, Any]] = {
    "data": {"source": "images"},
    "model": {"backbone": "resnet18"},
    "budget": {"trials": 8, "epochs": 30},
}
TOOL = typer.main.get_group(app)
USAGE_ERROR = typer.BadParameter.__bases__  # click's, or the one that typer brings
INLINE = re.compile(r"`tlopt ([a-z]+(?: [^`]*)?)`")


def invocations() -> list[tuple[str, list[str]]]:
    """Each call of `tlopt` on a page, with its arguments."""
    found = []
    for example in pages.code("console"):
        for words in pages.commands(example.parsed):
            for place, word in enumerate(words[:-1]):
                if word == "tlopt" and (place == 0 or words[place + 1] in TOOL.commands):
                    rest = words[place + 1 :]
                    cut = next((i for i, w in enumerate(rest) if w in ("|", ">", "&&", ";")), len(rest))
                    found.append((pages.place(example), rest[:cut]))
    return found


@pytest.mark.parametrize("example", pages.code("toml"), ids=pages.place)
def test_a_study_file_decodes_whole_or_in_part(example: Example) -> None:
    part = tomllib.loads(example.parsed)
    if "budget" in part:
        spec.loads(example.parsed, pages.place(example))
        return
    tables = {key: table for key, table in part.items() if isinstance(table, dict)}
    raw = (
        {"name": "part"}
        | part
        | {key: SMALLEST.get(key, {}) | tables.get(key, {}) for key in SMALLEST | tables}
    )

    spec.study.Study.model_validate(raw)


@pytest.mark.parametrize(
    "arguments", [pytest.param(words, id=f"{place} {words[0]}") for place, words in invocations()]
)
def test_a_command_line_has_the_right_options_and_arguments(arguments: list[str]) -> None:
    context = TOOL.make_context("tlopt", arguments)
    name, command, rest = TOOL.resolve_command(context, arguments)
    if command is not None and hasattr(command, "commands"):
        name, command, rest = command.resolve_command(command.make_context(name, list(rest)), rest)
    assert command is not None
    try:
        command.make_context(name, list(rest), parent=context)
    except USAGE_ERROR as error:
        pytest.fail(f"{' '.join(arguments)}: {error.format_message()}")


def test_the_check_of_command_lines_notices_a_wrong_option() -> None:
    with pytest.raises(pytest.fail.Exception, match="--turbo"):
        test_a_command_line_has_the_right_options_and_arguments(["run", "photos.toml", "--turbo"])


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_a_command_in_the_text_exists_with_its_options(page: Path) -> None:
    for inline in INLINE.findall(page.read_text(encoding="utf-8")):
        command, *rest = inline.split()
        assert command in TOOL.commands, f"tlopt {inline}"
        found = TOOL.commands[command]
        if hasattr(found, "commands"):
            assert rest, f"tlopt {inline}"
            found = found.commands[rest[0]]
        options = {"--help"}.union(*(parameter.opts for parameter in found.params))
        assert {word for word in rest if word.startswith("--")} <= options, f"tlopt {inline}"


@pytest.mark.parametrize("example", pages.code("console"), ids=pages.place)
def test_targets_of_make_and_extras_of_pip_exist(example: Example) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (pages.ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]

    for words in pages.commands(example.parsed):
        line = " ".join(words)
        assert set(re.findall(r"\bmake ([a-z-]+)", line)) <= targets
        for extras in re.findall(r"pip install .*\.\[([a-z,0-9]+)\]", line):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("example", pages.code("python"), ids=pages.place)
def test_python_uses_what_tlopt_offers(example: Example) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(example.parsed))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tlopt"
    }

    assert used <= set(tlopt.__all__)


@pytest.mark.slow
@pytest.mark.weights
def test_python_runs(
    study_text: Callable[..., str], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a study `photos.toml`, images in `photos/`, and images to predict in `new/`."""
    monkeypatch.chdir(tmp_path)
    text = study_text(name="photos", trials=12, epochs=1, backbone="mobilenet_v3_small")
    # Log-losses differ where accuracies are alike; without a difference there is nothing to explain.
    text = 'objective = "log_loss"\n' + text.replace("[model]", "repeats = 1\n[model]")
    Path("photos.toml").write_text(text)
    shutil.copytree(image_folder, "photos")
    shutil.copytree(image_folder / "red", "new")
    examples = pages.code("python")
    assert examples

    for example in examples:
        PythonEvaluator()(example)
