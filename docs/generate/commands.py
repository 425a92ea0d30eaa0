"""The reference of the command line, from the commands themselves."""

import subprocess
import sys


def text() -> str:
    """Markdown by typer's own generator: a section for each command, with usage, arguments and options.

    Its list of commands is left out, since it cuts their texts short.
    """
    command = [sys.executable, "-m", "typer", "tlopt.cli.main", "utils", "docs", "--name", "tlopt"]
    written = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "## " + written.partition("\n## ")[2]
