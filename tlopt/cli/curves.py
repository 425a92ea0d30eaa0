"""`tlopt curves`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tlopt.cli.options import Storage

app = typer.Typer()
out = Console(highlight=False)


@app.command()
def curves(
    targets: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help="Study files, or names in the database.")
    ],
    over: Annotated[
        str,
        typer.Option(
            metavar="KEY", help='The axis: a key with several numbers, or "epoch"; default: a depth.'
        ),
    ] = "",
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG; default: exports/NAME.curves.png.")
    ] = None,
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show and draw the curves of a grid over its seeds, and say what can be told of them.

    Several grids are drawn together. Validation only; from the database, without images or weights. Works
    while a grid is running.
    """
    from tlopt.app import handle
    from tlopt.app.grids import curves as grids

    sessions = [handle.open_session(target, storage_url=storage, create=False) for target in targets]
    found = grids.read_curves(*sessions, over=over)
    drawn = grids.draw(found, figure or grids.figure_file(found))
    if as_json:
        sys.stdout.write(json.dumps(grids.as_dict(found, drawn), indent=1, ensure_ascii=False) + "\n")
        return
    out.print(grids.shown(found))
    out.print(f"figure: {drawn}", markup=False, soft_wrap=True)
