"""Live progress of long steps: a bar on a terminal, a line now and then elsewhere."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tlopt.analysis.format import describe, value_words
from tlopt.app.local_run import Snapshot
from tlopt.storage.attributes import best_first

if TYPE_CHECKING:
    from tlopt.training.loop import Epoch

SECONDS_BETWEEN_LINES = 10.0  # of progress where there is no terminal


def follow(snapshots: Iterable[Snapshot], console: Console) -> Snapshot:
    """Show `snapshots` as they come; returns the last. A bar on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        return _follow_lines(snapshots, console)
    progress = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(),
        TextColumn("{task.fields[count]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    task = progress.add_task("", total=1.0, count="")
    last = None
    with Live(progress, console=console, refresh_per_second=4, transient=False) as live:
        for last in snapshots:
            progress.update(
                task,
                description=last.title,
                completed=_share(last),
                count=f"{last.n_finished}/{last.n_planned}",
            )
            live.update(Group(progress, *_status_lines(last)))
    assert last is not None, "there is always a last snapshot"
    return last


def _follow_lines(snapshots: Iterable[Snapshot], console: Console) -> Snapshot:
    shown_seconds, shown_line, last = -SECONDS_BETWEEN_LINES, "", None
    for last in snapshots:
        best = _best_line(last)
        line = f"{last.title}: {last.n_finished}/{last.n_planned} trials" + (f"; {best}" if best else "")
        due = last.seconds - shown_seconds >= SECONDS_BETWEEN_LINES or last.n_finished >= last.n_planned
        if due and line != shown_line:
            shown_seconds, shown_line = last.seconds, line
            console.print(f"{line} ({last.seconds:.0f} s)", soft_wrap=True, markup=False)
    assert last is not None, "there is always a last snapshot"
    return last


def _share(snapshot: Snapshot) -> float:
    """How much of the budget is spent, epochs of running trials counted in part; in [0, 1]."""
    epochs = snapshot.study.budget.epochs
    running = [trial for trial in snapshot.trials if trial.outcome == "running"]
    partial = sum(0 if trial.last_epoch is None else (trial.last_epoch + 1) / epochs for trial in running)
    return min(1.0, (snapshot.n_finished + partial) / max(1, snapshot.n_planned))


def _status_lines(snapshot: Snapshot) -> Iterator[Text]:
    best = _best_line(snapshot)
    if best:
        yield Text("  " + best, overflow="ellipsis", no_wrap=True)
    for trial in snapshot.trials:
        if trial.outcome == "running":
            epoch = "starting" if trial.last_epoch is None else f"epoch {trial.last_epoch + 1}"
            what = trial.label or (describe(trial.point) if trial.point else "")
            yield Text(
                f"  trial {trial.number}: {epoch}  {what}", style="dim", overflow="ellipsis", no_wrap=True
            )


def _best_line(snapshot: Snapshot) -> str:
    best = next(iter(best_first(snapshot.trials, snapshot.study.direction)), None)
    if best is None or best.value is None:
        return ""
    what = best.label or (describe(best.point) if best.point else "")
    return f"best so far: {value_words(best.value, snapshot.study.objective)} (trial {best.number}: {what})"


def follow_training(epochs: Iterable["Epoch"], console: Console) -> None:
    """Print a line for each epoch of a training run without validation."""
    for epoch in epochs:
        console.print(
            f"epoch {epoch.index + 1}: training loss {epoch.train_loss:.4f},"
            f" accuracy {100 * epoch.train_accuracy:.1f} %, {epoch.seconds:.1f} s"
        )
