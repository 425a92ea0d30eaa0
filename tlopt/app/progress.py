"""Live progress of long steps: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tlopt.analysis.format import best_sentence, describe, left_words
from tlopt.analysis.snapshot import Snapshot
from tlopt.data.threads import SECONDS_BETWEEN_LINES
from tlopt.spec.objectives import percent_words, value_words
from tlopt.spec.outcome import Outcome
from tlopt.system.words import counted

if TYPE_CHECKING:
    from tlopt.training.loop import Epoch


def show_progress(snapshots: Iterable[Snapshot], console: Console) -> Snapshot:
    """Show `snapshots` as they come; returns the last. A bar on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        return _follow_lines(snapshots, console)
    progress = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(),
        TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip
    task = progress.add_task("", total=1.0, count="")
    last = None
    with Live(progress, console=console, refresh_per_second=4, transient=False) as live:
        for last in snapshots:
            done, planned = last.progress
            progress.update(task, description=last.stage, completed=_share(last), count=f"{done}/{planned}")
            live.update(Group(progress, *_status_lines(last)))
    assert last is not None, "there is always a last snapshot"
    return last


def _follow_lines(snapshots: Iterable[Snapshot], console: Console) -> Snapshot:
    began = time.monotonic()
    shown_seconds, shown_line, doing, last = -SECONDS_BETWEEN_LINES, "", "", None
    for last in snapshots:
        if last.doing and last.doing != doing:
            doing = last.doing
            console.print(f"{last.stage}: {doing}", soft_wrap=True, markup=False)
        if last.doing:
            continue
        done, planned = last.progress
        best, left, seconds = best_sentence(last), left_words(last), time.monotonic() - began
        n_paused = sum(trial.outcome == Outcome.PAUSED for trial in last.stage_trials)
        line = f"{last.stage}: {done}/{counted(planned, _unit(last))}"
        line += (f", {n_paused} paused" if n_paused else "") + (f"; {best}" if best else "")
        due = seconds - shown_seconds >= SECONDS_BETWEEN_LINES or done >= planned
        if due and line != shown_line:
            shown_seconds, shown_line = seconds, line
            rest = f"; {left}" if left and done < planned else ""
            console.print(f"{line} ({seconds:.0f} s{rest})", soft_wrap=True, markup=False)
    assert last is not None, "there is always a last snapshot"
    return last


def _unit(snapshot: Snapshot) -> str:
    return {"search": "trial", "confirm": "run", "prune": "pruning"}[snapshot.stage]


def _share(snapshot: Snapshot) -> float:
    """The share of the stage's budget that is spent, epochs of running trials counted in part; in [0, 1]."""
    study = snapshot.study
    epochs = study.budget.epochs
    if snapshot.stage == "prune":
        epochs = study.prune.rounds * (study.prune.epochs or epochs)
    running = [trial for trial in snapshot.stage_trials if trial.outcome == Outcome.RUNNING]
    partial = sum(0 if trial.last_epoch is None else (trial.last_epoch + 1) / epochs for trial in running)
    done, planned = snapshot.progress
    return min(1.0, (done + partial) / max(1, planned))


def _status_lines(snapshot: Snapshot) -> Iterator[Text]:
    for line in (snapshot.doing, best_sentence(snapshot), left_words(snapshot)):
        if line:
            yield Text("  " + line, overflow="ellipsis", no_wrap=True)
    for trial in snapshot.stage_trials:
        if trial.outcome == Outcome.RUNNING:
            epoch = (
                "starting" if trial.last_epoch is None else f"{counted(trial.last_epoch + 1, 'epoch')} done"
            )
            what = trial.label or (describe(trial.point) if trial.point else "")
            name = f"trial {trial.number}: {epoch}  {what}"
            if trial.replicate is not None:  # its number could be taken for one of the search's trials
                name = f"{what}, seed {trial.replicate + 1}: {epoch}"
            yield Text(f"  {name}", style="dim", overflow="ellipsis", no_wrap=True)


def follow_training(epochs: Iterable["Epoch"], console: Console) -> None:
    """Print a line for each epoch of a training run without validation."""
    for epoch in epochs:
        console.print(epoch_line(epoch), soft_wrap=True)


def epoch_line(epoch: "Epoch") -> str:
    """What the training images say about an epoch."""
    return (
        f"epoch {epoch.index + 1}: training loss {value_words(epoch.train_loss, 'log_loss')},"
        f" training accuracy {percent_words(epoch.train_accuracy)}, {epoch.seconds:.1f} s"
    )
