"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from tlopt.errors import StorageError

Target = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file, or a study's name in the database.")
]


def _without_password(url: str | None) -> str | None:
    """The option's value; refuse a password, which everybody could read in the process list."""
    from tlopt.storage.url import hide_password

    if url is not None and hide_password(url) != url:
        raise StorageError(
            "--storage with a password shows it in the process list: put the URL into TLOPT_STORAGE,"
            " or into a file that TLOPT_STORAGE_FILE names"
        )
    return url


Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        callback=_without_password,
        help="Database; default: TLOPT_STORAGE, TLOPT_STORAGE_FILE or ./tlopt.db.",
    ),
]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder for logs, pictures and weights of runs.")]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Folder or s3://bucket/prefix for checkpoints, the same for all nodes;"
        " default: TLOPT_CHECKPOINTS or RUNS/checkpoints.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")]
NWorkers = Annotated[
    int,
    typer.Option("--workers", min=0, help="Local workers; 0: one for each GPU, or for each core up to 4."),
]
RUNS = Path("runs")
