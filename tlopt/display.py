"""What the commands show: tables and live progress, never wider than the terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

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
from rich.table import Table
from rich.text import Text

from tlopt.api import Snapshot
from tlopt.point import Point
from tlopt.results.verdict import PLAIN_LABEL, PROBE_LABEL, Spread, Verdict
from tlopt.search.records import TrialRecord

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
    shown, last = -SECONDS_BETWEEN_LINES, None
    for last in snapshots:
        if last.seconds - shown >= SECONDS_BETWEEN_LINES or last.n_finished >= last.n_planned:
            shown = last.seconds
            best = _best_line(last)
            console.print(
                f"{last.title}: {last.n_finished}/{last.n_planned} trials, {last.seconds:.0f} s"
                + (f"; {best}" if best else ""),
                highlight=False,
            )
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
    best = best_trial(snapshot.trials, snapshot.study.direction)
    if best is None or best.value is None:
        return ""
    what = best.label or (describe(best.point) if best.point else "")
    return f"best so far: {show_value(best.value, snapshot.study.objective)} (trial {best.number}: {what})"


def best_trial(trials: Sequence[TrialRecord], direction: str) -> TrialRecord | None:
    """The complete trial with the best value."""
    complete = [trial for trial in trials if trial.outcome == "complete" and trial.value is not None]
    sign = 1 if direction == "minimize" else -1
    return min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)


def show_value(value: float, objective: str) -> str:
    """Fractions as per cent, log-loss as it is."""
    return f"{value:.4f}" if objective == "log_loss" else f"{100 * value:.1f} %"


def describe(point: dict[str, object] | Point) -> str:
    """A point in one short line: depths, rates, pulls."""
    values = point.as_dict() if isinstance(point, Point) else point
    parts = [f"keep {values['transfer_depth']}", f"freeze {values['freeze_depth']}", f"lr {values['lr']:.2g}"]
    if values["lr_ratio"] != 1:
        parts.append(f"×{values['lr_ratio']:.2g}")
    if values["l2_sp"]:
        parts.append(f"L2-SP {values['l2_sp']:.2g}")
    if values["l2"]:
        parts.append(f"L2 {values['l2']:.2g}")
    return " ".join(parts)


def trials_table(trials: Sequence[TrialRecord], *, objective: str, direction: str, n: int) -> Table:
    """The `n` best complete trials, best first."""
    sign = 1 if direction == "minimize" else -1
    complete = [trial for trial in trials if trial.outcome == "complete" and trial.value is not None]
    table = Table(title=f"best trials by validation {objective.replace('_', ' ')}", title_justify="left")
    for name, justify in (("trial", "right"), ("val", "right"), ("epochs", "right"), ("point", "left")):
        table.add_column(name, justify=justify, no_wrap=name != "point")  # type: ignore[arg-type]
    for trial in sorted(complete, key=lambda trial: sign * (trial.value or 0.0))[:n]:
        point = describe(trial.point) if trial.point else ""
        table.add_row(
            str(trial.number),
            show_value(trial.value or 0.0, objective),
            str((trial.last_epoch or 0) + 1),
            f"{trial.label}: {point}" if trial.label else point,
        )
    return table


def outcomes_line(trials: Sequence[TrialRecord]) -> str:
    """How many trials came to what, most frequent first."""
    counts = Counter(trial.outcome for trial in trials if trial.outcome != "withdrawn")
    return ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in counts.most_common())


def verdict_table(verdict: Verdict) -> Table:
    """Every candidate of a confirmation: validation and, where it was read, test."""
    table = Table(title=f"confirmed over {len(verdict.chosen.seeds)} seeds", title_justify="left")
    table.add_column("candidate", no_wrap=True)
    table.add_column("validation", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    table.add_column("point")
    for row in verdict.rows:
        chosen = row is verdict.chosen
        table.add_row(
            row.label + (" ←" if chosen else ""),
            show_spread(row.spread(verdict.objective), verdict.objective),
            show_spread(row.spread(verdict.objective, split="test"), verdict.objective),
            describe(row.point),
            style="bold" if chosen else "",
        )
    return table


def show_spread(spread: Spread | None, objective: str) -> str:
    """Mean ± standard deviation; an em dash where nothing was measured."""
    if spread is None:
        return "—"
    if objective == "log_loss":
        return f"{spread.mean:.4f} ± {spread.std:.4f}"
    return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f} %"


def gain_lines(verdict: Verdict) -> Iterator[str]:
    """What the chosen point gains over each default on test, or on validation where there is no test."""
    for label in (PLAIN_LABEL, PROBE_LABEL):
        if verdict.chosen.label == label:
            yield f"the best point is {label} itself: no gain over it"
            continue
        split = "test" if verdict.chosen.test else "val"
        gain = verdict.gain(label, split=split)
        if gain is None:
            continue
        unit = "" if verdict.objective == "log_loss" else " points"
        scale = 1 if verdict.objective == "log_loss" else 100
        clear = "" if gain.std < abs(gain.mean) else "; within the spread of the seeds"
        where = "test" if split == "test" else "validation (there is no test split)"
        yield (
            f"gain over {label} on {where}: {scale * gain.mean:+.2f} ± {scale * gain.std:.2f}{unit}"
            f" over {gain.n} seeds{clear}"
        )
