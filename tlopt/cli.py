"""The command line: thin commands over `tlopt.api`; errors are one line, statuses 0, 1 and 2."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tlopt.errors import TloptError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find how much of a pretrained network to keep, how fast to move it and how hard to hold it.",
    epilog="Exit status: 0 done, 1 something is wrong and the message says what, 2 wrong usage.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Target = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file, or a study's name in the database.")
]
Storage = Annotated[
    str | None,
    typer.Option(help="Database URL; default: TLOPT_STORAGE, TLOPT_STORAGE_FILE or tlopt.db.", metavar="URL"),
]
Runs = Annotated[Path, typer.Option(help="Folder for logs, pictures and weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")]


@app.command()
def check(target: Target, storage: Storage = None) -> None:
    """Read a study's file, images and weights, and say what would happen. Trains nothing."""
    from tlopt import api, session

    opened = session.open_session(target, storage_url=storage)
    bench = api.prepare(opened, progress=True)
    out.print(f"{opened.study.name}: {len(bench.data.labels)} images")


@app.command()
def run(
    target: Target,
    workers: Annotated[int, typer.Option(min=0, help="Local workers; 0: one a GPU, or one on the CPU.")] = 0,
    storage: Storage = None,
    runs: Runs = Path("runs"),
) -> None:
    """Search, confirm and export with local workers."""
    from tlopt import api, display, session

    opened = session.open_session(target, storage_url=storage, runs=runs)
    bench = api.prepare(opened, progress=True)
    last = display.follow(api.search(opened, bench, n_workers=workers), out)
    study = opened.study
    out.print(display.trials_table(last.trials, objective=study.objective, direction=study.direction, n=8))
    display.follow(api.confirm(opened, bench, n_workers=workers), out)
    verdict = api.judge(opened, bench)
    out.print(display.verdict_table(verdict))
    for line in display.gain_lines(verdict):
        out.print(line)


@app.command()
def worker(
    target: Target,
    storage: Storage = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all cores.")] = 0,
    confirm: Annotated[bool, typer.Option("--confirm", help="Work on the study's confirmation.")] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Take trials of a study until its budget is spent. Start one on each GPU, on any number of nodes."""
    from tlopt import api, session
    from tlopt.search.interrupt import Interrupt

    interrupt = Interrupt(parent)
    interrupt.install()
    opened = session.open_session(target, storage_url=storage, runs=runs)
    from tlopt.search.bench import set_threads

    set_threads(threads)
    bench = api.prepare(opened, device=device)
    n = api.work_here(opened, bench, confirm=confirm, interrupt=interrupt)
    out.print(f"{n} trials finished here" + ("; asked to stop" if interrupt.requested else ""))


def main() -> None:
    """Run the command line; a `TloptError` becomes its message and status 1."""
    try:
        app(standalone_mode=True)
    except TloptError as error:
        err.print(f"[red]error:[/red] {type(error).__name__}", end=" ")
        err.print(str(error), markup=False)
        sys.exit(1)
