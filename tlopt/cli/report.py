"""`tlopt report`: a study as one HTML file."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tlopt.cli.options import Storage, Target

app = typer.Typer()
out = Console(highlight=False)


@app.command()
def report(
    target: Target,
    file: Annotated[
        Path | None, typer.Argument(help="Default: exports/NAME.html; -: standard output.")
    ] = None,
    storage: Storage = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is not a report.")
    ] = False,
) -> None:
    """Write a report on a study as one HTML file that opens offline, or renew an existing one."""
    from tlopt.app import deliver, handle

    opened = handle.open_session(target, storage_url=storage, create=False)
    if str(file) == "-":
        sys.stdout.write(deliver.report_html(opened))
        return
    to = deliver.write_report(opened, file, overwrite=overwrite)
    out.print(f"wrote {to}", markup=False, soft_wrap=True)
