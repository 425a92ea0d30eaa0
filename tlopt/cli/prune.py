"""`tlopt prune`, and the prunings of `tlopt run`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from tlopt.cli.options import Device
from tlopt.errors import NotReady
from tlopt.spec.objectives import percent_words

if TYPE_CHECKING:
    from tlopt.app.handle import Session
    from tlopt.compact.prune import PruningRound
    from tlopt.confirmation.verdict import Verdict
    from tlopt.spec.trial_spec import PruneGoal
    from tlopt.training.loop import Epoch
    from tlopt.trial.workspace import Workspace

app = typer.Typer()
out = Console(highlight=False)


@app.command()
def prune(
    export: Annotated[Path, typer.Argument(help="Folder of an export of a trained network.")],
    folder: Annotated[Path | None, typer.Argument(help="Default: EXPORT-compact.")] = None,
    parameters: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the parameters to keep, as in 0.33.")
    ] = None,
    multiply_adds: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the multiply-adds to keep, as in 0.4.")
    ] = None,
    criterion: Annotated[
        Literal["l1", "batch_norm", "taylor", "history"],
        typer.Option(help="What decides which channels go."),
    ] = "taylor",
    scope: Annotated[
        Literal["global", "uniform"],
        typer.Option(help="Compare channels of all layers, or remove the same share of each."),
    ] = "uniform",
    rounds: Annotated[int, typer.Option(min=1, help="Removals, each followed by training.")] = 4,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each round; default: those of the export's config.")
    ] = None,
    loss_max: Annotated[
        float, typer.Option(min=0, max=100, metavar="POINTS", help="Of validation accuracy that may be lost.")
    ] = 2.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export there.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too.")] = False,
    device: Device = "auto",
) -> None:
    """Remove channels from an exported network, train it on in between, and export what is left.

    Ends before validation accuracy falls too far, and exports the smallest network before that. Reads the
    study's images at their old path. If it was stopped or killed, the same command goes on where it was.
    """
    from tlopt.app.compact.prune import PruneRequest, goal_of
    from tlopt.app.compact.prune import prune as prune_export

    goal = goal_of(
        parameters=parameters,
        multiply_adds=multiply_adds,
        criterion=criterion,
        scope=scope,
        n_rounds=rounds,
        loss_max=loss_max,
        named=lambda argument: f"--{argument.replace('_', '-')}",
    )
    request = PruneRequest(
        folder=export, to=folder, epochs=epochs, device=device, overwrite=overwrite, onnx=onnx
    )
    _show(prune_export(request, goal), goal)
    out.print(f"exported to {request.target}", markup=False, soft_wrap=True)


def _show(events: "Iterator[Epoch | PruningRound]", goal: "PruneGoal") -> None:
    """Print a line for each epoch and round, and say it if the goal was not reached."""
    from tlopt.app.progress import epoch_line
    from tlopt.compact.prune import PruningRound

    seen: list[PruningRound] = []
    for event in events:
        if isinstance(event, PruningRound):
            seen.append(event)
            out.print(_line(event, seen[0], goal), markup=False, soft_wrap=True)
        else:
            out.print(f"  {epoch_line(event)}", soft_wrap=True)
    kept = [each for each in seen if each.within][-1]
    if kept.index < goal.n_rounds:
        out.print(f"the goal was not reached: the network of round {kept.index} was kept", soft_wrap=True)


def _line(found: "PruningRound", before: "PruningRound", goal: "PruneGoal") -> str:
    accuracy = f"validation accuracy {percent_words(found.val.accuracy)}"
    cost = found.cost
    if found is before:
        return f"before: {cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds, {accuracy}"
    return (
        f"round {found.index} of {goal.n_rounds}: {cost.parameters:,}"
        f" parameters ({percent_words(cost.parameters / before.cost.parameters)}), {cost.multiply_adds:,}"
        f" multiply-adds ({percent_words(cost.multiply_adds / before.cost.multiply_adds)}), {accuracy}"
    )


def run_second_stage(
    opened: "Session", workspace: "Workspace", verdict: "Verdict", folder: Path, workers: int, *, onnx: bool
) -> None:
    """Prune the chosen network with local workers, and export the smallest, or say why there is none."""
    from tlopt.app import progress, tables, workflow
    from tlopt.app.compact import stage

    if why := stage.why_not(verdict):
        out.print(f"second stage: {why}", markup=False, soft_wrap=True)
        return
    events = stage.prune_chosen(opened, workspace, verdict, n_workers=workers)
    progress.show_progress(events, out)
    workflow.renew_note(opened, workspace)
    try:
        written = stage.export_smallest(opened, workspace, verdict, folder, overwrite=True, onnx=onnx)
    except NotReady as error:  # none stayed within the bound
        out.print(f"second stage: {error}", markup=False, soft_wrap=True)
        return
    tables.show_stages(opened.snapshot(), out)
    out.print(f"smallest network exported to {written}", markup=False, soft_wrap=True)
