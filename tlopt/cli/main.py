"""The command line; each command imports torch and Optuna only if it needs them."""

import errno
import inspect
import logging
import os
import shlex
import signal
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from tlopt.cli.cache import app as cache_app
from tlopt.cli.cost import app as cost_app
from tlopt.cli.curves import app as curves_app
from tlopt.cli.export import app as export_app
from tlopt.cli.fit import app as fit_app
from tlopt.cli.next import app as next_app
from tlopt.cli.options import RUNS, Checkpoints, Device, NWorkers, Runs, Storage, Target
from tlopt.cli.prune import app as prune_app
from tlopt.cli.prune import run_second_stage
from tlopt.cli.report import app as report_app
from tlopt.cli.service import app as service_app
from tlopt.errors import SpecError, TloptError
from tlopt.system.atomic import write_atomically
from tlopt.system.files import file_in_place_of_folder
from tlopt.system.words import counted

if TYPE_CHECKING:
    from tlopt.app.handle import Session
    from tlopt.confirmation.verdict import Verdict


class _Commands(TyperGroup):
    """Commands whose help fills the terminal: Typer keeps the line ends of a docstring's second paragraph."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            paragraphs = inspect.cleandoc(command.help).split("\n\n")
            command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)
        return command


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done; 1 an error, which the message names; 2 wrong usage;"
    " 3 predict could not read some files; 130 Ctrl-C.",
)
app.add_typer(service_app)
app.add_typer(export_app)
app.add_typer(report_app)
app.add_typer(fit_app)
app.add_typer(cost_app)
app.add_typer(curves_app)
app.add_typer(prune_app)
app.add_typer(next_app)
app.add_typer(cache_app, name="cache")
out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)
_SOME_UNREADABLE = 3  # exit status of `predict`
# Not programming errors: no permission to write, or a full disk.
# of errors without a file's name; ENOENT is that of a machine without a usable temporary folder
_DISK_ERRORS = (
    *(errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOENT),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"tlopt {version('tlopt')}")
        raise typer.Exit


@app.callback()
def tlopt(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Search how much of a pretrained image network to keep, and how to train it, for your own images."""


@app.command()
def init(
    folder: Annotated[
        str, typer.Argument(help='Image folder, table of labels, "torchvision:NAME" or "digits".')
    ],
    backbone: Annotated[str | None, typer.Option(help="The network; tlopt blocks lists them.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of the search.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Largest number of epochs per trial.")] = None,
    resolution: Annotated[int | None, typer.Option(min=8, help="Pixels per side.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1, help="Time for search and confirmation.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study and its file.")] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be decoded.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A key of data, such as group_column=patient. Repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: NAME.toml.")] = None,
) -> None:
    """Look at the images and the machine, and write a commented study file.

    Also writes tlopt.schema.json beside it, for editors that complete and check the file.
    """
    from tlopt import spec
    from tlopt.propose.proposal import ProposalRequest, propose
    from tlopt.spec.schema import FILE_NAME, schema_text
    from tlopt.training.timing import detect_machine

    request = ProposalRequest(
        backbone=backbone,
        trials=trials,
        epochs=epochs,
        resolution=resolution,
        minutes=minutes,
        name=name,
        skip_unreadable=skip_unreadable,
        data=dict(map(_key_and_value, data or [])),
    )
    if output is not None:
        _check_absent(output)
    proposal = propose(folder, request, detect_machine(), progress=True)
    path = output or Path(f"{spec.loads(proposal.text, 'the proposal').name}.toml")
    _check_absent(path)
    write_atomically(path, f"#:schema ./{FILE_NAME}\n{proposal.text}")
    write_atomically(path.with_name(FILE_NAME), schema_text())
    for note in proposal.notes:
        out.print(f"- {note}", markup=False, soft_wrap=True)
    file = shlex.quote(str(path))
    out.print(f"wrote {path}; next: tlopt check {file}, then tlopt run {file}", markup=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the study file, for editors that complete and check it."""
    from tlopt.spec.schema import schema_text

    sys.stdout.write(schema_text())


@app.command()
def check(target: Target, storage: Storage = None) -> None:
    """Read a study's file, images and weights, and print what it would do and how long it takes.

    The exit status is 1 if the file no longer matches the stored study of its name, or if no network of a
    new study keeps its constraints, as for run.
    """
    from tlopt.app import estimate, handle, workflow

    opened = handle.open_session(target, storage_url=storage, create=False)
    workspace = workflow.prepare(opened, progress=True)
    for line in workflow.check_lines(opened, workspace):
        out.print(line, markup=False, soft_wrap=True)
    workflow.refuse_vain_limits(opened, workspace)
    for line in estimate.duration_lines(opened.study, workspace):
        out.print(line, markup=False, soft_wrap=True)
    workflow.refuse_changed(opened, workspace)


@app.command()
def blocks(
    backbone: Annotated[str | None, typer.Argument(help="Its name; default: list all backbones.")] = None,
) -> None:
    """List the blocks of a backbone, in which depths are counted, or all backbones."""
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
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
) -> None:
    """Search with local workers, confirm the best points over seeds, and export the best one.

    With a table prune in the file, it then removes channels from that network and exports the smallest, too.
    Continues where it stopped; a finished study is shown, not run again.
    """
    from tlopt.app import deliver, handle, progress, tables, workflow
    from tlopt.app.compact import stage

    opened = handle.open_session(target, storage_url=storage, runs=runs, checkpoints=checkpoints)
    if opened.study.is_grid:
        _run_grid(opened, workers, exports=output is not None or onnx)
        return
    study, folder = opened.study, output or deliver.default_folder(opened)
    compact = stage.compact_folder(folder)
    verdict = deliver.known_verdict(opened, folder)
    if verdict is not None and not onnx and not stage.is_left(opened, verdict, compact):
        out.print(f"{study.name} is finished and exported to {folder}", markup=False)
        tables.show_verdict(verdict, out)
        _show_next(opened, verdict, folder)
        return
    deliver.check_targets(folder, overwrite=True, with_report=True)
    if study.prune.goals:
        deliver.check_targets(compact, overwrite=True)
    with _stoppable():
        workspace = workflow.prepare(opened, progress=True)
        if onnx:
            deliver.check_onnx(workspace)
        for line in workflow.check_lines(opened, workspace):
            out.print(line, markup=False, soft_wrap=True)
        last = progress.show_progress(workflow.search(opened, workspace, n_workers=workers), out)
        tables.show_search(last, out)
        last = progress.show_progress(workflow.confirm(opened, workspace, n_workers=workers), out)
        verdict = workflow.judge(opened, workspace)
        tables.show_verdict(verdict, out)
        for line in tables.cost_lines(last):
            out.print(line, markup=False, soft_wrap=True)
        deliver.export(opened, workspace, verdict, folder, overwrite=True, onnx=onnx)
        if study.prune.goals:
            run_second_stage(opened, workspace, verdict, compact, workers, onnx=onnx)
        report = deliver.write_report(opened, deliver.report_beside(folder), overwrite=False)
    out.print(f"exported to {folder}; report: {report}", markup=False, soft_wrap=True)
    _show_next(opened, verdict, folder)


def _show_next(opened: "Session", verdict: "Verdict", folder: Path) -> None:
    """Print what can be done with an export, and how to export the other points of a front."""
    from tlopt.app import deliver

    out.print(f"next: tlopt predict {shlex.quote(str(folder))} IMAGES", markup=False, soft_wrap=True)
    to = deliver.front_folder(opened)
    if verdict.front and not to.exists():
        runs = "" if opened.runs.absolute() == RUNS.absolute() else f" --runs {shlex.quote(str(opened.runs))}"
        what = f"exports the {counted(len(verdict.front), 'confirmed point')} of the front to {to}"
        line = f"next: {opened.command('export')} --pareto{runs}  {what}"
        out.print(line, markup=False, soft_wrap=True)


def _run_grid(opened: "Session", workers: int, *, exports: bool) -> None:
    """Run every trial of a grid, and print its curves."""
    from tlopt.app import progress, tables, workflow
    from tlopt.app.grids import curves

    if exports:
        raise SpecError(
            f"{opened.study.name} is a grid, and run does not export one: leave --output and --onnx out;"
            f" then {opened.command('confirm')} and {opened.command('export')}"
        )
    with _stoppable():
        workspace = workflow.prepare(opened, progress=True)
        for line in workflow.check_lines(opened, workspace):
            out.print(line, markup=False, soft_wrap=True)
        last = progress.show_progress(workflow.search(opened, workspace, n_workers=workers), out)
    out.print(f"grid: {tables.outcomes_line(last.trials)}", markup=False)
    out.print(curves.shown(curves.read_curves(opened)))
    for verb, what in (("curves", "draws them"), ("confirm", tables.confirm_words(workspace.data.n_test))):
        out.print(f"next: {opened.command(verb)}  {what}", markup=False, soft_wrap=True)


@app.command()
def confirm(
    target: Target,
    workers: NWorkers = 0,
    storage: Storage = None,
    runs: Runs = RUNS,
    checkpoints: Checkpoints = None,
) -> None:
    """Train the best points and the defaults over seeds, choose by validation, then read test once."""
    from tlopt.app import handle, progress, tables, workflow

    opened = handle.open_session(
        target, storage_url=storage, runs=runs, checkpoints=checkpoints, create=False
    )
    opened.optuna_study()  # raises before images are read
    with _stoppable():
        workspace = workflow.prepare(opened, progress=True)
        progress.show_progress(workflow.confirm(opened, workspace, n_workers=workers), out)
        tables.show_verdict(workflow.judge(opened, workspace), out)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="An export's config.toml, or its folder.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the trained export.")],
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing export.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
) -> None:
    """Train an exported config on training and validation images together, and export the network."""
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
    """Classify images with an export, as CSV with the label and the probability of each class.

    A file that cannot be read has a row with the reason. The exit status is 3 if some files could not be
    read, and 1 if none could.
    """
    from tlopt.app import deliver

    n_read, n_unreadable = deliver.predict_csv(folder, images, output, device=device)
    if n_unreadable:
        err.print(f"{counted(n_unreadable, 'file')} could not be read: see the column error")
        raise typer.Exit(_SOME_UNREADABLE if n_read else 1)


@app.command()
def dashboard(
    storage: Storage = None,
    runs: Runs = RUNS,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's needs a login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    edit: Annotated[
        bool, typer.Option("--edit/--read-only", help="Allow changes of studies and notes.")
    ] = False,
    login_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="TLOPT_DASHBOARD_LOGIN_FILE",
            help="Lines user:password. Passwords are sent unencrypted: put TLS in front.",
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
    """Run the command line; a `TloptError` or a disk error becomes a message and status 1."""
    # Optuna logs every trial and study, which the tables show already
    logging.disable(logging.INFO)
    try:
        app()
    except TloptError as error:
        err.print("[bold red]error:[/] ", end="")
        err.print(str(error), markup=False)
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        err.print("[bold red]error:[/] ", end="")
        err.print(f"{where}{error.strerror or error}{_cure(error)}", markup=False)
        sys.exit(1)


def _cure(error: OSError) -> str:
    """What to do about a file in the place of a folder; "" for other errors."""
    in_the_way = isinstance(error, NotADirectoryError | FileExistsError)
    if not in_the_way or not isinstance(error.filename, str):
        return ""
    found = file_in_place_of_folder(Path(error.filename))
    return f"; {found} is a file where a folder is needed: move it or choose another place" if found else ""


def _key_and_value(text: str) -> tuple[str, object]:
    """The key and value of KEY=VALUE; a value that is not valid TOML is a string."""
    key, separator, value = text.partition("=")
    if not separator:
        raise SpecError(f"--data {text}: expected KEY=VALUE, such as group_column=patient")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _check_absent(path: Path) -> None:
    """Raise if the path exists or its folder does not, before anything is measured."""
    if os.path.lexists(path):
        raise SpecError(f"{path} exists; remove it, or name another file with --output")
    if not path.absolute().parent.is_dir():
        raise SpecError(f"{path}: the folder {path.parent} does not exist; create it first")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM unwind the stack like Ctrl-C, so that local workers stop; print how to continue."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        again = shlex.join(["tlopt", *sys.argv[1:]])
        err.print("stopped; trials under way are saved. Continue with the same command:", markup=False)
        err.print(f"  {again}", markup=False)
        raise
