"""Benchmark modules as separate processes, in any working directory."""

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]  # of the repository


def module_command(module: str, *arguments: str | Path) -> list[str]:
    """The command that runs `module`, for example "benchmarks.chaos.stock", with this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def module_environment() -> dict[str, str]:
    """This process's environment, with the package `benchmarks` importable from any folder."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
