"""The Python API: the commands as functions of paths, with typed results.

Training runs in worker processes, so these functions work in a notebook. Optuna's log of every trial is
silenced while one runs.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from rich.console import Console

from tlopt import spec
from tlopt.analysis.curves import Curves
from tlopt.analysis.snapshot import Snapshot
from tlopt.app import deliver, workflow
from tlopt.app import progress as progress_lines
from tlopt.app.arguments import type_checked
from tlopt.app.compact.combine import export_combined
from tlopt.app.compact.stage import export_smallest, prune_chosen, why_not
from tlopt.app.grids import curves
from tlopt.app.handle import open_session
from tlopt.app.next_study import NextStudy, propose_next
from tlopt.app.view import StudyView
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import SpecError
from tlopt.spec.trial_spec import Criterion, Scope
from tlopt.storage.attributes import TrialRecord, records_of

if TYPE_CHECKING:
    from tlopt.app.compact.cost import Costs
    from tlopt.exports.model import Classifier
    from tlopt.exports.predict import Prediction
    from tlopt.propose.proposal import Proposal
    from tlopt.training.loop import Epoch

__all__ = [
    "check",
    "confirm",
    "cost",
    "export",
    "follow_up",
    "init",
    "load",
    "load_model",
    "open_study",
    "predict",
    "prune",
    "report",
    "run",
    "run_grid",
    "train",
    "trials",
]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log of every trial and study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


load = type_checked(spec.load)


@type_checked
def init(
    source: str | Path,
    *,
    backbone: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    resolution: int | None = None,
    minutes: float | None = None,
    name: str | None = None,
    skip_unreadable: bool = False,
    data: Mapping[str, object] | None = None,
) -> "Proposal":
    """A study file for the images in `source` that fits them, this machine and the time; writes nothing.

    Write its `text` to a file for `run`. Reading images and measuring takes seconds to a minute.

    Args:
        source: a folder, a table of files and labels, "torchvision:NAME" or "digits".
        minutes: of the whole study; half an hour on a CPU by default.
        skip_unreadable: leave out images that cannot be decoded, instead of refusing.
        data: other keys of `[data]`, such as {"group_pattern": "^(\\d+)_"}.
    """
    from tlopt.propose.proposal import ProposalRequest, propose
    from tlopt.training.timing import detect_machine

    request = ProposalRequest(
        backbone=backbone,
        trials=trials,
        epochs=epochs,
        resolution=resolution,
        minutes=minutes,
        name=name,
        skip_unreadable=skip_unreadable,
        data=dict(data or {}),
    )
    return propose(str(source), request, detect_machine())


@type_checked
@_quiet()
def open_study(path: str | Path, *, storage: str | None = None, runs: str | Path = "runs") -> StudyView:
    """The study of the file `path`, or of that name in the database: trials, verdict, data frames.

    Arguments as for `run`. A notebook displays it as a table.

    Raises:
        NotReady: the study has not been begun.
    """
    session = open_session(path, storage_url=storage, runs=runs, create=False)
    session.optuna_study()
    return StudyView(session)


@type_checked
def load_model(folder: str | Path, *, device: str = "auto") -> "Classifier":
    """The network of an export as a `torch.nn.Module` in eval mode, with `transform` and `class_names`.

    Raises:
        NotReady: `folder` is not an export.
        DataError, WeightsError: a file in it is damaged.
    """
    return deliver.load_model(Path(folder), device=device)


@type_checked
@_quiet()
def check(path: str | Path, *, storage: str | None = None) -> list[str]:
    """Lines on what the study file `path` would do; reads its images and weights, and trains nothing."""
    session = open_session(path, storage_url=storage, create=False)
    return list(workflow.check_lines(session, workflow.prepare(session)))


@type_checked
@_quiet()
def run(
    path: str | Path,
    *,
    storage: str | None = None,
    n_workers: int = 0,
    runs: str | Path = "runs",
    progress: bool = False,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Verdict:
    """Search, confirm and judge the study file `path`; the verdict on its best point and the defaults.

    With a table `[prune]` the chosen network is pruned, too; `export` with `compact` writes the result. Goes
    on where it stopped; a finished study is read from its database.

    Args:
        storage: the database's URL; default as for the commands.
        n_workers: local workers; 0 is one for each GPU, or for each core up to four.
        runs: folder for logs, pictures and weights.
        progress: show a bar on a terminal, or a line now and then in a notebook.
        on_snapshot: called twice a second with the study as it is then; an exception in it ends the call,
            and the workers with it.

    Raises:
        SpecError: the study is a grid, which has no verdict until it is confirmed.
    """
    session = open_session(path, storage_url=storage, runs=runs)
    if session.study.is_grid:
        raise SpecError(
            f"{session.study.name} is a grid: run it with tlopt.run_grid, which returns its curves; then"
            " tlopt.confirm, if its best points are to be confirmed"
        )
    workspace = workflow.prepare(session, progress=progress)
    _go_through(workflow.search(session, workspace, n_workers=n_workers), progress, on_snapshot)
    _go_through(workflow.confirm(session, workspace, n_workers=n_workers), progress, on_snapshot)
    verdict = workflow.judge(session, workspace)
    if session.study.prune.goals and not why_not(verdict):
        prunings = prune_chosen(session, workspace, verdict, n_workers=n_workers)
        _go_through(prunings, progress, on_snapshot)
    return verdict


@type_checked
@_quiet()
def run_grid(
    path: str | Path,
    *,
    over: str = "",
    storage: str | None = None,
    n_workers: int = 0,
    runs: str | Path = "runs",
    progress: bool = False,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Curves:
    """Train every point of the grid `path` over every seed; its curves. Other arguments as for `run`.

    Goes on where it stopped. Like the command `run`, it does not confirm a grid and never reads test images.

    Args:
        over: the axis of the curves, a key with several numbers or "epoch"; default: a depth.

    Raises:
        SpecError: the study is not a grid, or `over` does not vary in it.
    """
    session = open_session(path, storage_url=storage, runs=runs)
    if not session.study.is_grid:
        raise SpecError(f"{session.study.name} is a search, not a grid: run it with tlopt.run")
    workspace = workflow.prepare(session, progress=progress)
    _go_through(workflow.search(session, workspace, n_workers=n_workers), progress, on_snapshot)
    return curves.read_curves(session, over=over)


@type_checked
@_quiet()
def confirm(
    path: str | Path,
    *,
    storage: str | None = None,
    n_workers: int = 0,
    runs: str | Path = "runs",
    progress: bool = False,
) -> Verdict:
    """Run the best points of a search again over seeds; the verdict. Arguments as for `run`."""
    session = open_session(path, storage_url=storage, runs=runs, create=False)
    workspace = workflow.prepare(session, progress=progress)
    _go_through(workflow.confirm(session, workspace, n_workers=n_workers), progress)
    return workflow.judge(session, workspace)


@type_checked
@_quiet()
def export(
    path: str | Path,
    folder: str | Path,
    *,
    storage: str | None = None,
    runs: str | Path = "runs",
    overwrite: bool = False,
    onnx: bool = False,
    soup: bool = False,
    ensemble: bool = False,
    points: int = 0,
    compact: bool = False,
) -> Path:
    """Write a confirmed study's best point to `folder`; returns it.

    Args:
        soup: write one network whose weights are the mean of those of confirmed runs instead.
        ensemble: write several confirmed runs as one network instead, by the mean of their probabilities.
        points: number of confirmed points, best first, whose runs are combined; 0: all in a soup, the chosen
            one in an ensemble.
        compact: write the smallest network of the second stage instead, that of `[prune]`.

    Raises:
        NotReady: the study is not confirmed, or with `compact` no pruning stayed within its bound.
    """
    if (soup and ensemble) or (compact and (soup or ensemble)):
        raise ValueError("tlopt.export: soup, ensemble and compact are exports of their own; choose one")
    if points and not (soup or ensemble):
        raise ValueError(
            "tlopt.export: points are those of a soup or an ensemble; ask for one, or leave it out"
        )
    deliver.check_targets(Path(folder), overwrite=overwrite)
    session = open_session(path, storage_url=storage, runs=runs, create=False)
    workspace = workflow.prepare(session)
    if soup or ensemble:
        from tlopt.exports.combine import Combination

        wanted = Combination("soup" if soup else "ensemble", points)
        export_combined(session, workspace, Path(folder), wanted, overwrite=overwrite, onnx=onnx)
        return Path(folder)
    verdict = workflow.judge(session, workspace)
    if compact:
        return export_smallest(session, workspace, verdict, Path(folder), overwrite=overwrite, onnx=onnx)
    return deliver.export(session, workspace, verdict, Path(folder), overwrite=overwrite, onnx=onnx)


@type_checked
@_quiet()
def report(
    path: str | Path,
    file: str | Path | None = None,
    *,
    storage: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report on a running or finished study as one HTML file; returns the file.

    Reads the database alone, and needs neither images nor weights.

    Args:
        file: default: exports/NAME.html, where the command `run` writes it, too.
        overwrite: replace a file that is no report of tlopt, instead of refusing; a report is renewed.
    """
    session = open_session(path, storage_url=storage, create=False)
    return deliver.write_report(session, None if file is None else Path(file), overwrite=overwrite)


@type_checked
@_quiet()
def follow_up(path: str | Path, *, storage: str | None = None) -> NextStudy:
    """The study file of a follow-up search with the ranges that the trials suggest; writes nothing.

    Its `text` is "" where no range has to change. Write it to a file for `run`.

    Raises:
        NotReady: the study has not been begun, or its trials are too few to tell anything.
        StudyChanged: the file `path` no longer matches the stored study.
    """
    return propose_next(open_session(path, storage_url=storage, create=False))


@type_checked
@_quiet()
def trials(path: str | Path, *, storage: str | None = None) -> list[TrialRecord]:
    """Every trial of a study, by number."""
    return list(records_of(open_session(path, storage_url=storage, create=False).optuna_study()))


@type_checked
def train(
    config: str | Path, folder: str | Path, *, device: str = "auto", overwrite: bool = False
) -> list["Epoch"]:
    """Train an exported config on training and validation images and export it to `folder`; its epochs."""
    return list(deliver.train(Path(config), Path(folder), device=device, overwrite=overwrite))


@type_checked
def cost(
    network: str | Path,
    *others: str | Path,
    resolution: int | None = None,
    latency: bool = False,
    batch_size: int = 32,
    n_rounds: int = 15,
    device: str = "auto",
) -> "Costs":
    """Parameters, multiply-adds and bytes of exports and backbones, and on request their latency.

    Args:
        network: folder of an export, or name of a backbone.
        others: further ones; latencies are relative to the first.
        resolution: pixels per side for backbones; default: of their weights. Exports have their own.
        latency: measure the seconds for one image and for a batch, interleaved between networks.
        batch_size: images in that batch.
        n_rounds: number of measurements, of which the median is given.

    Raises:
        SpecError: a name is no supported backbone, or the resolution does not suit it.
        NotReady, DataError, WeightsError: a folder is no export, or is damaged.
    """
    from tlopt.app.compact.cost import LatencyRequest, costs_of

    if batch_size < 1 or n_rounds < 1:
        raise ValueError("tlopt.cost: batch_size and n_rounds are at least 1")
    wanted = LatencyRequest(batch_size=batch_size, n_rounds=n_rounds, device=device) if latency else None
    return costs_of([str(each) for each in (network, *others)], resolution=resolution, latency=wanted)


@type_checked
def prune(
    export: str | Path,
    folder: str | Path | None = None,
    *,
    parameters: float | None = None,
    multiply_adds: float | None = None,
    criterion: Criterion = "taylor",
    scope: Scope = "uniform",
    n_rounds: int = 4,
    epochs: int | None = None,
    loss_max: float = 2.0,
    device: str = "auto",
    overwrite: bool = False,
    onnx: bool = False,
) -> Path:
    """Remove channels from an exported network, train it on in between, and export what is left.

    Returns the folder. If a call was stopped, one with the same arguments goes on where it was.

    Args:
        folder: of the result; default: EXPORT-compact.
        parameters: share of the parameters to keep, between 0 and 1; either this or `multiply_adds`.
        multiply_adds: share of the multiply-adds to keep.
        criterion: what decides which channels go.
        scope: take the same share of each layer, or compare all layers.
        n_rounds: number of removals, each followed by training.
        epochs: of each round; default: those of the export's config.
        loss_max: points of validation accuracy that may be lost, 0 to 100.

    Raises:
        NotReady: `export` is no export, or even the first round lost more accuracy than allowed.
        SpecError: an argument is out of its range, or the network cannot be pruned so.
        DataError: the images are not those of the export, something is at `folder`, or another process is
            pruning to it.
    """
    from tlopt.app.compact.prune import PruneRequest, goal_of
    from tlopt.app.compact.prune import prune as prune_export

    if epochs is not None and epochs < 1:
        raise ValueError(f"tlopt.prune: epochs is at least 1, not {epochs}")
    goal = goal_of(
        parameters=parameters,
        multiply_adds=multiply_adds,
        criterion=criterion,
        scope=scope,
        n_rounds=n_rounds,
        loss_max=loss_max,
        named=str,
    )
    request = PruneRequest(
        folder=Path(export),
        to=None if folder is None else Path(folder),
        epochs=epochs,
        device=device,
        overwrite=overwrite,
        onnx=onnx,
    )
    deque(prune_export(request, goal), maxlen=0)
    return request.target


@type_checked
def predict(
    folder: str | Path, images: Sequence[str | Path], *, device: str = "auto"
) -> Iterator["Prediction"]:
    """The predictions of the export in `folder` for image files, in order; folders stand for their images."""
    return deliver.predict(Path(folder), [Path(image) for image in images], device=device)


def _go_through(
    snapshots: Iterator[Snapshot], progress: bool, on_snapshot: Callable[[Snapshot], None] | None = None
) -> None:
    seen = snapshots if on_snapshot is None else _observed(snapshots, on_snapshot)
    if progress:
        progress_lines.show_progress(seen, Console(highlight=False))
    else:
        deque(seen, maxlen=0)


def _observed(snapshots: Iterator[Snapshot], on_snapshot: Callable[[Snapshot], None]) -> Iterator[Snapshot]:
    for snapshot in snapshots:
        on_snapshot(snapshot)
        yield snapshot
