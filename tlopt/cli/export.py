"""`tlopt export`: the confirmed best point as a folder, the best points as configs, all trials as a table."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from tlopt.cli.options import RUNS, Runs, Storage, Target
from tlopt.errors import NotReady, SpecError
from tlopt.system.words import counted

if TYPE_CHECKING:
    from tlopt.analysis.ranking import Format
    from tlopt.app.handle import Session
    from tlopt.confirmation.combined import Kind

Soup = Annotated[
    bool,
    typer.Option("--soup", help="One network instead: the mean of confirmed runs' weights, by validation."),
]
Ensemble = Annotated[
    bool,
    typer.Option("--ensemble", help="Several networks instead, as one: the mean of their probabilities."),
]
Points = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Combine runs of the N best confirmed points; 0: all in a soup, the chosen one in an ensemble.",
    ),
]

Compact = Annotated[
    bool,
    typer.Option("--compact", help="The smallest network of the second stage, the prunings of prune."),
]

app = typer.Typer()
out = Console(highlight=False)


@app.command()
def export(
    target: Target,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Default: exports/NAME; exports/NAME-front, -soup, -ensemble or -compact for these; with"
            " --config, --top or --pareto of one objective standard output."
        ),
    ] = None,
    storage: Storage = None,
    runs: Runs = RUNS,
    config: Annotated[bool, typer.Option("--config", help="Only the config of the best point.")] = False,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Configs of the N best points.")] = 0,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto",
            help="Configs of the points that no other point beats in both value and cost; with several"
            " objectives an export of each confirmed point of the front.",
        ),
    ] = False,
    form: Annotated[
        Literal["toml", "json", "yaml"], typer.Option("--format", help="Format of configs.")
    ] = "toml",
    all_trials: Annotated[
        Path | None,
        typer.Option(
            "--all", metavar="FILE", help="All trials, .csv or .parquet; -: CSV to standard output."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing export or file.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
    soup: Soup = False,
    ensemble: Ensemble = False,
    points: Points = 0,
    compact: Compact = False,
) -> None:
    """Export the confirmed best point: config, weights, preprocessing, class names, results, model card."""
    from tlopt.app import handle

    opened = handle.open_session(target, storage_url=storage, runs=runs, create=False)
    if pareto and opened.study.objectives and (config or top or soup or ensemble):
        raise SpecError(
            "--pareto exports a network for each confirmed point where a study has several objectives: leave"
            " out --config, --top, --soup and --ensemble"
        )
    if all_trials is not None:
        _all(opened, all_trials, overwrite=overwrite)
    elif config or top or (pareto and not opened.study.objectives):
        _configs(opened, folder, form, top=top, front=pareto, overwrite=overwrite)
    elif compact and not (soup or ensemble or points or pareto):
        _compact(opened, folder, overwrite=overwrite, onnx=onnx)
    elif soup or ensemble or points or compact:
        if soup == ensemble or compact:
            raise typer.BadParameter("choose one of --soup, --ensemble and --compact, without --pareto")
        _combined(opened, folder, "soup" if soup else "ensemble", points, overwrite=overwrite, onnx=onnx)
    else:
        _networks(opened, folder, front=pareto, overwrite=overwrite, onnx=onnx)


def _networks(opened: "Session", folder: Path | None, *, front: bool, overwrite: bool, onnx: bool) -> None:
    from tlopt.app import deliver, workflow

    opened.confirmation()  # raises before images are read
    to = folder or (deliver.front_folder(opened) if front else deliver.default_folder(opened))
    if not front:
        deliver.check_targets(to, overwrite=overwrite)
    workspace = workflow.prepare(opened, progress=True)
    verdict = workflow.judge(opened, workspace)
    if front:
        written = deliver.export_front(opened, workspace, verdict, to, overwrite=overwrite, onnx=onnx)
    else:
        written = [deliver.export(opened, workspace, verdict, to, overwrite=overwrite, onnx=onnx)]
    for each in written:
        out.print(f"exported to {each}", markup=False)


def _configs(
    opened: "Session", folder: Path | None, form: "Format", *, top: int, front: bool, overwrite: bool
) -> None:
    from tlopt.analysis import ranking
    from tlopt.app import deliver

    rows = deliver.best_points(opened)
    if front:
        rows = ranking.pareto(opened.study, rows)
    if top or not front:
        rows = rows[: top or 1]
    if not rows:
        raise NotReady(f"study {opened.study.name} has no complete trial yet")
    if folder is None:
        sys.stdout.write(ranking.configs_text(opened.study, rows, form, several=front or top > 1))
        return
    for path in ranking.write_files(opened.study, rows, form, folder, overwrite=overwrite):
        out.print(str(path), markup=False, soft_wrap=True)


def _combined(
    opened: "Session", folder: Path | None, kind: "Kind", n_points: int, *, overwrite: bool, onnx: bool
) -> None:
    from tlopt.app import deliver, workflow
    from tlopt.app.compact import combine
    from tlopt.exports.combine import Combination

    opened.confirmation()  # raises before images are read
    to = folder or combine.combined_folder(opened, kind)
    deliver.check_targets(to, overwrite=overwrite)
    workspace = workflow.prepare(opened, progress=True)
    wanted = Combination(kind, n_points)
    combined = combine.export_combined(opened, workspace, to, wanted, overwrite=overwrite, onnx=onnx)
    out.print(combine.summary(combined, opened.study.objective), markup=False, soft_wrap=True)
    out.print(f"exported to {to}", markup=False)


def _compact(opened: "Session", folder: Path | None, *, overwrite: bool, onnx: bool) -> None:
    from tlopt.app import deliver, tables, workflow
    from tlopt.app.compact import stage

    opened.prunings()  # raises before images are read
    to = folder or stage.compact_folder(deliver.default_folder(opened))
    deliver.check_targets(to, overwrite=overwrite)
    workspace = workflow.prepare(opened, progress=True)
    verdict = workflow.judge(opened, workspace)
    stage.export_smallest(opened, workspace, verdict, to, overwrite=overwrite, onnx=onnx)
    tables.show_stages(opened.snapshot(), out)
    out.print(f"exported to {to}", markup=False)


def _all(opened: "Session", path: Path, *, overwrite: bool) -> None:
    from tlopt.analysis import table as trials_table
    from tlopt.analysis.snapshot import take_snapshot

    table = trials_table.rows(take_snapshot(opened.study, opened.store).trials)
    if str(path) == "-":
        trials_table.write_csv(table, sys.stdout)
        return
    trials_table.write(table, path, overwrite=overwrite)
    out.print(f"{counted(len(table), 'trial')} written to {path}", markup=False, soft_wrap=True)
