"""The command line: thin commands, which import torch and Optuna only where they need them."""

import errno
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from tlopt.cli.cache import app as cache_app
from tlopt.cli.export import app as export_app
from tlopt.cli.options import RUNS, Checkpoints, Device, NWorkers, Runs, Storage, Target
from tlopt.cli.report import app as report_app
from tlopt.cli.service import app as service_app
from tlopt.errors import SpecError, TloptError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find how much of a pretrained network to keep, how fast to move it and how hard to hold it.",
    epilog="Exit status: 0 done; 1 something is wrong, and the message says what; 2 wrong usage; 130 Ctrl-C.",
)
app.add_typer(service_app)
app.add_typer(export_app)
app.add_typer(report_app)
app.add_typer(cache_app, name="cache")
out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)
# No mistake of a program's: what a user may not write to, or what is full.
_DISK_ERRORS = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@app.command()
def init(
    folder: Annotated[str, typer.Argument(help='Image folder, "torchvision:NAME" or "digits".')],
    backbone: Annotated[str | None, typer.Option(help="See: tlopt blocks.")] = None,
    trials: Annotated[int | None, typer.Option(min=1)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most, for each trial.")] = None,
    resolution: Annotated[int | None, typer.Option(min=8, help="Pixels a side.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1, help="For search and confirmation.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the study and its file.")] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be decoded.")
    ] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: NAME.toml.")] = None,
) -> None:
    """Look at the images and the machine, and write a commented study file.

    Beside it goes tlopt.schema.json, by which editors complete and check the file.
    """
    from tlopt import spec
    from tlopt.propose.proposal import Wishes, propose
    from tlopt.spec.schema import FILE_NAME, schema_text
    from tlopt.training.timing import look_at_machine

    wishes = Wishes(
        backbone=backbone,
        trials=trials,
        epochs=epochs,
        resolution=resolution,
        minutes=minutes,
        name=name,
        skip_unreadable=skip_unreadable,
    )
    if output is not None:
        _check_absent(output)
    proposal = propose(folder, wishes, look_at_machine(), progress=True)
    path = output or Path(f"{spec.loads(proposal.text, 'the proposal').name}.toml")
    _check_absent(path)
    path.write_text(f"#:schema ./{FILE_NAME}\n{proposal.text}", encoding="utf-8")
    path.with_name(FILE_NAME).write_text(schema_text(), encoding="utf-8")
    for note in proposal.notes:
        out.print(f"- {note}", markup=False, soft_wrap=True)
    out.print(f"wrote {path}; next: tlopt run {path}", markup=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the study file, by which editors complete and check it."""
    from tlopt.spec.schema import schema_text

    sys.stdout.write(schema_text())


@app.command()
def check(target: Target, storage: Storage = None) -> None:
    """Read a study's file, images and weights, and say what would happen. Trains nothing."""
    from tlopt.app import handle, tables, workflow

    opened = handle.open_session(target, storage_url=storage)
    bench = workflow.prepare(opened, progress=True)
    for line in tables.check_lines(opened.study, bench):
        out.print(line, markup=False, soft_wrap=True)


@app.command()
def blocks(
    backbone: Annotated[str | None, typer.Argument(help="A name; without one, all that there are.")] = None,
) -> None:
    """List a backbone's blocks, the unit in which depths count, or all backbones."""
    from tlopt.app import tables
    from tlopt.model.build import outline, supported

    if backbone is None:
        for line in tables.backbone_lines(supported()):
            out.print(line, markup=False)
    else:
        out.print(tables.blocks_table(backbone, outline(backbone)))


@app.command()
def run(
    target: Target,
    workers: NWorkers = 0,
    storage: Storage = None,
    runs: Runs = RUNS,
    checkpoints: Checkpoints = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: exports/NAME.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too.")] = False,
) -> None:
    """Search with local workers, confirm the best points over seeds, and export the best one.

    Goes on where it stopped; a finished study is shown, not run again.
    """
    from tlopt.analysis.format import hours_sentence
    from tlopt.app import deliver, handle, progress, tables, workflow

    _stop_on_sigterm()
    opened = handle.open_session(target, storage_url=storage, runs=runs, checkpoints=checkpoints)
    study, folder = opened.study, output or Path("exports") / opened.study.name
    verdict = deliver.known_verdict(opened, folder)
    if verdict is not None and not onnx:
        out.print(f"{study.name} is finished and exported to {folder}", markup=False)
        tables.show_verdict(verdict, out)
        return
    bench = workflow.prepare(opened, progress=True)
    for line in tables.check_lines(study, bench):
        out.print(line, markup=False, soft_wrap=True)
    last = progress.follow(workflow.search(opened, bench, n_workers=workers), out)
    out.print(tables.trials_table(last.trials, objective=study.objective, direction=study.direction, n=8))
    out.print(f"search: {tables.outcomes_line(last.trials)}")
    if sentence := hours_sentence(last):
        out.print(sentence, markup=False, soft_wrap=True)
    progress.follow(workflow.confirm(opened, bench, n_workers=workers), out)
    verdict = workflow.judge(opened, bench)
    tables.show_verdict(verdict, out)
    deliver.export(opened, bench, verdict, folder, overwrite=True, onnx=onnx)
    out.print(f"exported to {folder}; next: tlopt predict {folder} IMAGES", markup=False)


@app.command()
def confirm(
    target: Target,
    workers: NWorkers = 0,
    storage: Storage = None,
    runs: Runs = RUNS,
    checkpoints: Checkpoints = None,
) -> None:
    """Run the best points and the defaults over seeds, choose by validation, then read the test once."""
    from tlopt.app import handle, progress, tables, workflow

    _stop_on_sigterm()
    opened = handle.open_session(target, storage_url=storage, runs=runs, checkpoints=checkpoints)
    bench = workflow.prepare(opened, progress=True)
    progress.follow(workflow.confirm(opened, bench, n_workers=workers), out)
    tables.show_verdict(workflow.judge(opened, bench), out)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="An export's config.toml, or its folder.")],
    folder: Annotated[Path, typer.Argument(help="Where the trained export goes.")],
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too.")] = False,
) -> None:
    """Train an exported config on training and validation images together, to final weights."""
    from tlopt.app import deliver, progress

    epochs = deliver.train(config, folder, device=device, overwrite=overwrite, onnx=onnx)
    progress.follow_training(epochs, out)
    out.print(f"exported to {folder}", markup=False)


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="EXPORT", help="An exported folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV; default: standard output.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Classify images with an export; writes CSV with the label and every class's probability."""
    from tlopt.app import deliver

    n_unreadable = deliver.predict_csv(folder, images, output, device=device)
    if n_unreadable:
        err.print(f"{n_unreadable} files could not be read: see the column error")


@app.command()
def dashboard(
    storage: Storage = None,
    runs: Runs = RUNS,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's need a login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    edit: Annotated[
        bool, typer.Option("--edit/--read-only", help="Whether studies and notes may be changed.")
    ] = False,
    login_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="TLOPT_DASHBOARD_LOGIN_FILE",
            help="Lines user:password. Passwords go over the net as they are: put TLS before it.",
        ),
    ] = None,
) -> None:
    """Show the studies in optuna-dashboard; on this machine only and read-only unless told otherwise."""
    from tlopt.dashboard.access import check_host, read_logins
    from tlopt.dashboard.server import serve
    from tlopt.storage.studies import find_url

    logins = read_logins(login_file) if login_file else {}
    check_host(host, logins)
    what = "changes allowed" if edit else "read-only"
    out.print(f"http://{host}:{port}/dashboard  ({what}; Ctrl-C ends it)")
    serve(find_url(storage), runs, host=host, port=port, edits=edit, logins=logins)


def main() -> None:
    """Run the command line; an error of ours, or of a disk, becomes its message and status 1."""
    # Optuna tells of every trial and study; the tables here say it once
    logging.disable(logging.INFO)
    try:
        app()
    except TloptError as error:
        err.print(f"[bold red]{type(error).__name__}:[/] ", end="")
        err.print(str(error), markup=False)
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        err.print(f"{where}{error.strerror or error}", markup=False)
        sys.exit(1)


def _check_absent(path: Path) -> None:
    """Refuse a path that is taken, or whose folder is not there, before anything is measured for it."""
    if os.path.lexists(path):
        raise SpecError(f"{path} exists; remove it, or name another file with --output")
    if not path.absolute().parent.is_dir():
        raise SpecError(f"{path}: the folder {path.parent} does not exist; make it first")


def _stop_on_sigterm() -> None:
    """Let SIGTERM unwind the stack, so that local workers are stopped with their launcher."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
