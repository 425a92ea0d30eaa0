"""`tlopt next`: the study file of a follow-up search."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tlopt.cli.options import Storage, Target
from tlopt.errors import SpecError
from tlopt.system.atomic import write_atomically

app = typer.Typer()
out = Console(highlight=False)


@app.command("next")
def next_study(
    target: Target,
    file: Annotated[
        Path | None, typer.Argument(help="Default: the new study's NAME.toml; -: standard output.")
    ] = None,
    storage: Storage = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write the study file of a follow-up search, whose ranges are those that the trials suggest.

    A range is extended where the best lies at its end, and cut where it is evidently worse; a comment above
    the key has the evidence. The trials so far are carried over. Where no range has to change, nothing is
    written.
    """
    from tlopt.app import handle
    from tlopt.app.next_study import default_file, lines, propose_next

    opened = handle.open_session(target, storage_url=storage, create=False)
    to_stdout = str(file) == "-"
    if file is not None and not to_stdout:
        _check_writable(file, overwrite=overwrite)
    found = propose_next(opened)
    if to_stdout:
        sys.stdout.write(found.text)
        return
    for line in lines(found):
        out.print(line, markup=False, soft_wrap=True)
    if not found.text:
        out.print(
            "no range has to change, so nothing is written. To search on, raise budget.trials in the study"
            " file and run it again",
            markup=False,
            soft_wrap=True,
        )
        return
    to = file or default_file(opened, found.name)
    _check_writable(to, overwrite=overwrite)
    write_atomically(to, found.text)
    check, run = (opened.command(verb, str(to)) for verb in ("check", "run"))
    out.print(f"wrote {to}; next: {check}, then {run}", markup=False, soft_wrap=True)


def _check_writable(file: Path, *, overwrite: bool) -> None:
    if os.path.lexists(file) and (not overwrite or not file.is_file()):
        hint = "replace it with --overwrite, or name another file" if file.is_file() else "name another file"
        raise SpecError(f"{file} exists; {hint}")
    if not file.absolute().parent.is_dir():
        raise SpecError(f"{file}: the folder {file.parent} does not exist; make it first")
