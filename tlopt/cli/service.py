"""The commands for workers and studies: worker, status, doctor, pause, resume, cancel, delete."""

import json
import logging
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from tlopt.cli.options import RUNS, Checkpoints, Device, Runs, Storage, Target
from tlopt.system.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlopt.analysis.snapshot import Stage
    from tlopt.app.handle import Session
    from tlopt.storage.commands import State

app = typer.Typer()
out = Console(highlight=False)

SERVER_SECONDS = 30.0  # for which a starting worker waits for the database


@app.command()
def worker(
    target: Annotated[str | None, typer.Argument(metavar="STUDY", help="As for the other commands.")] = None,
    studies: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Several studies, in order of priority."),
    ] = None,
    storage: Storage = None,
    runs: Runs = RUNS,
    checkpoints: Checkpoints = None,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as stored with the study.")] = 0,
    confirm: Annotated[bool, typer.Option("--confirm", help="Work on the study's confirmation.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Work on the study's prunings.")] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run trials of a study until its budget is spent. Start one worker per GPU, on any number of nodes.

    SIGTERM or Ctrl-C saves and requeues the trial and ends the worker within ten seconds; a second one ends
    it at once. Trials of workers that are gone are taken over and continued. A deleted study ends its
    workers with status 0.
    """
    from tlopt.worker.shutdown import Interrupt, Interrupted

    # before the slow imports: as process 1 of a container, a worker without a handler ignores SIGTERM
    interrupt = Interrupt(parent)
    interrupt.install()
    logging.basicConfig(format="%(asctime)s %(message)s")
    from tlopt.app import handle, serve, workflow

    targets = [name for name in [target, *(studies or "").split(",")] if name]
    if not targets:
        raise typer.BadParameter("name a study, or several with --studies")
    stage = _stage(confirm=confirm, prune=prune)
    n, sessions = 0, list[handle.Session]()
    with suppress(Interrupted):
        with interrupt.interruptible():
            for name in targets:
                opened = handle.open_session(
                    name,
                    storage_url=storage,
                    runs=runs,
                    checkpoints=checkpoints,
                    wait_seconds=SERVER_SECONDS,
                    store=sessions[0].store if sessions else None,
                )
                sessions.append(opened)
            left = [opened for opened in sessions if stage != "search" or not serve.is_over(opened)]
            prepared = [(opened, serve.make_ready(opened, device=device)) for opened in left]
        for opened, workspace in prepared:
            for line in workflow.warm_start_lines(opened, workspace):
                out.print(f"{opened.study.name}: {line}", markup=False, soft_wrap=True)
        if prepared:
            n = serve.run_studies(prepared, stage=stage, interrupt=interrupt, n_threads=threads)
    out.print(f"{counted(n, 'trial')} finished here" + ("; asked to stop" if interrupt.requested else ""))
    if stage == "search" and not interrupt.requested:
        _say_ends(sessions)
    if interrupt.requested:
        _leave(sessions)


def _stage(*, confirm: bool, prune: bool) -> "Stage":
    """The stage that a worker works on."""
    if confirm and prune:
        raise typer.BadParameter("choose one of --confirm and --prune")
    return "confirm" if confirm else "prune" if prune else "search"


def _say_ends(sessions: "Sequence[Session]") -> None:
    """Print why searches ended."""
    from tlopt.analysis.format import end_sentences
    from tlopt.errors import TloptError

    for opened in sessions:
        with suppress(TloptError):  # the work is done, even if the database is unavailable now
            for sentence in end_sentences(opened.snapshot()):
                out.print(f"{opened.study.name}: {sentence}", markup=False, soft_wrap=True)


def _leave(sessions: "Sequence[Session]") -> NoReturn:
    """End the process at once: taking torch down takes a second, and longer on a busy machine."""
    from tlopt.storage.studies import close

    sys.stdout.flush()
    for opened in sessions[:1]:  # all share one database
        close(opened.store)
    os._exit(0)


@app.command()
def status(
    target: Annotated[str | None, typer.Argument(metavar="STUDY", help="Default: all studies.")] = None,
    storage: Storage = None,
    top: Annotated[int, typer.Option(min=1, help="Trials to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show the trials, workers, cost and confirmation of a study, or list all studies."""
    from tlopt.app import handle, tables

    if target is None:
        rows = handle.list_studies(storage)
        if as_json:
            sys.stdout.write(json.dumps([vars(row) for row in rows]) + "\n")
        elif rows:
            out.print(tables.studies_table(rows))
        else:
            out.print("no study here yet but archived ones; tlopt run FILE begins one", markup=False)
        return
    if watch and not as_json:
        _watch(target, storage, top)
        return
    opened = handle.open_session(target, storage_url=storage, create=False)
    snapshot = opened.snapshot()
    if as_json:
        sys.stdout.write(json.dumps(snapshot.as_dict()) + "\n")
    else:
        out.print(tables.status_group(snapshot, top=top, note=opened.foreign_confirmation()))


def _watch(target: str, storage: str | None, top: int) -> None:
    """Refresh the study's status every two seconds until Ctrl-C; wait for a study that has not begun."""
    from rich.live import Live
    from rich.text import Text

    from tlopt.app import handle, tables
    from tlopt.errors import NotReady

    opened = None
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            try:
                opened = opened or handle.open_session(target, storage_url=storage, create=False)
                live.update(tables.status_group(opened.snapshot(), top=top), refresh=True)
            except NotReady as error:
                opened = None  # the study may begin in a database that does not exist yet
                live.update(Text(f"waiting for {target}: {error}"), refresh=True)
            time.sleep(2.0)


@app.command()
def doctor(
    target: Annotated[str | None, typer.Argument(metavar="STUDY", help="Also check this study.")] = None,
    storage: Storage = None,
    runs: Runs = RUNS,
    checkpoints: Checkpoints = None,
) -> None:
    """Check Python, torch, GPU, disks, the database and a study; exit status 1 if there is a problem."""
    from tlopt.doctor.examine import examine
    from tlopt.doctor.finding import as_text

    levels = []
    for finding in examine(target, storage_url=storage, runs=runs, checkpoints=checkpoints, progress=True):
        out.print(as_text(finding), soft_wrap=True)
        levels.append(finding.level)
    if "problem" in levels:
        raise typer.Exit(1)


@app.command()
def pause(target: Target, storage: Storage = None) -> None:
    """Pause a study: its workers save and requeue their trials, and wait."""
    _command(target, storage, "paused", "its workers save their trials and wait; continue with:", "resume")


@app.command()
def resume(target: Target, storage: Storage = None) -> None:
    """Resume a study that was paused, stopped, cancelled or archived."""
    _command(target, storage, "open", "waiting workers continue; start others with:", "worker")


@app.command()
def cancel(target: Target, storage: Storage = None) -> None:
    """Cancel a study: its workers save and requeue their trials, and end."""
    _command(target, storage, "cancelled", "its workers end; begin again with:", "resume")


@app.command()
def archive(target: Target, storage: Storage = None) -> None:
    """Cancel a study and hide it from the list of studies; nothing is deleted."""
    _command(target, storage, "archived", "hidden from tlopt status; bring it back with:", "resume")


@app.command()
def delete(
    target: Target,
    storage: Storage = None,
    runs: Runs = RUNS,
    checkpoints: Checkpoints = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a study, its confirmation and prunings from the database.

    Exports stay, and so do logs, pictures, weights and checkpoints, whose folders the command names.
    """
    from tlopt.app import admin

    store, deletion = admin.plan_deletion(target, storage_url=storage, runs=runs, checkpoints=checkpoints)
    said = " and ".join(f"{name} ({counted(n, 'trial')})" for name, n in deletion.trials.items())
    if deletion.workers:
        names = ", ".join(deletion.workers)
        out.print(f"workers that will lose their trials: {names}", markup=False, soft_wrap=True)
    if not yes:
        typer.confirm(f"delete {said} from the database?", abort=True)
    admin.delete(store, deletion)
    out.print(f"deleted {said}", markup=False, soft_wrap=True)
    for folder in deletion.folders:
        out.print(f"left: {folder}", markup=False, soft_wrap=True)
    if deletion.artifacts:
        pictures = counted(len(deletion.artifacts), "picture")
        folder = deletion.artifacts[0].parent
        out.print(f"left: {pictures} for the dashboard in {folder}", markup=False, soft_wrap=True)


def _command(target: str, storage: str | None, state: "State", sentence: str, then: str) -> None:
    """Set the desired state of a study; print it and the next command."""
    from tlopt.app import admin, handle

    opened = handle.open_session(target, storage_url=storage, create=False)
    admin.command(opened, state)
    said = f"{opened.study.name} is {state}: {sentence} {opened.command(then)}"
    out.print(said, markup=False, soft_wrap=True)


@app.command()
def upgrade(
    target: Annotated[str | None, typer.Argument(metavar="STUDY", help="Default: all studies.")] = None,
    storage: Storage = None,
) -> None:
    """Upgrade a database and its studies from an earlier version of tlopt."""
    from tlopt.app import admin

    for line in admin.upgrade(storage, target):
        out.print(line, markup=False, soft_wrap=True)
