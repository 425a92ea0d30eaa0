"""The README tells the truth: its study files decode, its commands exist, its table of keys is the code's."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tlopt import spec
from tlopt.cli.main import app
from tlopt.data.sources.folder import EXTENSIONS
from tlopt.spec import Study
from tlopt.spec.search_keys import RULES
from tlopt.spec.sections import BudgetSpec, ConfirmSpec, DataSpec, ModelSpec, ServiceSpec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(typer.main.get_group(app).commands)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def keys_table() -> str:
    """The table of keys as the README has it; print it with: python tests/test_readme.py"""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for title, table in (
        ("", Study),
        ("data.", DataSpec),
        ("model.", ModelSpec),
        ("budget.", BudgetSpec),
        ("confirm.", ConfirmSpec),
        ("service.", ServiceSpec),
    ):
        for name, field in table.model_fields.items():
            if field.description:
                default = "required" if field.is_required() else f"`{str(field.default).lower()}`"
                rows.append(f"| `{title}{name}` | {default} | {field.description} |")
    rows += ["", "| `[search]` key | allowed | default | meaning |", "| --- | --- | --- | --- |"]
    for name, rule in RULES.items():
        default = "—" if rule.default is None else f"`{rule.default}`"
        rows.append(f"| `{name}` | {rule.allowed} | {default} | {rule.meaning} |")
    return "\n".join(rows)


def test_the_readme_has_the_table_of_keys_that_the_code_has() -> None:
    assert keys_table() in README


def test_the_suffixes_in_the_readme_are_those_that_are_read() -> None:
    (listed,) = re.findall(r"Formats, by suffix: (.*?);", README, flags=re.DOTALL)

    assert listed.split() == list(EXTENSIONS)


def test_every_study_file_in_the_readme_decodes() -> None:
    files = [text for text in blocks("toml") if "[budget]" in text]
    assert files
    for text in files:
        spec.loads(text, "README.md")


def test_every_study_under_studies_decodes() -> None:
    files = sorted((ROOT / "studies").rglob("*.toml"))
    assert files
    for file in files:
        spec.load(file)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_is_in_the_readme(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert typer.main.get_group(app).commands[command].help
    assert f"`tlopt {command}" in README


def test_every_command_line_in_the_readme_names_commands_and_options_that_exist() -> None:
    lines = [line[2:] for text in blocks("console") for line in text.splitlines()]
    lines = [line for line in lines if line.startswith("tlopt")]
    assert lines
    for line in lines:
        words = shlex.split(line.split("  #")[0])
        command = typer.main.get_group(app).commands[words[1]]
        options = {option for parameter in command.params for option in parameter.opts}
        used = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert used <= options, f"{line}: {used - options}"


if __name__ == "__main__":
    print(keys_table())
