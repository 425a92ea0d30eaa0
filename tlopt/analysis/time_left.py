"""The time to the end of a study: of its search, its confirmation and its prunings."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlopt.search.race import PLAIN
from tlopt.spec.outcome import Outcome
from tlopt.spec.study import PRUNE_SUFFIX
from tlopt.storage.attributes import TrialRecord

if TYPE_CHECKING:
    from tlopt.analysis.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class TimeLeft:
    """Estimated seconds to the end, at the pace so far and with the current workers."""

    search: float
    confirm: float
    prune: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds to the end of the last stage."""
        return self.search + self.confirm + self.prune


def time_left(snapshot: "Snapshot") -> TimeLeft | None:
    """The time to the end of the last stage; None without an active worker or a finished trial.

    Seconds are those that passed while workers trained, so that other load of the machine is in them. A
    pruning of a network is assumed to take the time per epoch of those that are under way or have ended;
    before, that of the confirmed runs, see `_seconds_per_epoch`. A pruning is one worker's.
    """
    n_working = sum(1 for worker in snapshot.workers if worker.trial is not None)
    n_trials = 0 if snapshot.hours_are_over else max(0, snapshot.n_planned - snapshot.n_finished)
    n_runs = max(0, snapshot.n_runs - snapshot.n_runs_finished)
    epochs = [n for n in open_pruning_epochs(snapshot) if n]
    if not (n_trials or n_runs or epochs):
        return TimeLeft(search=0.0, confirm=0.0)
    trial, run, epoch = _trial_seconds(snapshot), _run_seconds(snapshot), _seconds_per_epoch(snapshot)
    missing = (n_trials and trial is None) or (n_runs and run is None) or (epochs and epoch is None)
    if not n_working or missing:
        return None
    return TimeLeft(
        search=n_trials * (trial or 0.0) / n_working,
        confirm=n_runs * (run or 0.0) / n_working,
        prune=max(sum(epochs) / n_working, max(epochs, default=0)) * (epoch or 0.0),
    )


def open_pruning_epochs(snapshot: "Snapshot") -> list[int]:
    """The epochs left of each pruning that is planned, or that `[prune]` asks for; 0 if it has ended."""
    if snapshot.verdict is not None and snapshot.verdict.finished and not _can_be_pruned(snapshot):
        return []
    chosen, prune = snapshot.chosen, snapshot.study.prune
    epochs = prune.epochs or (snapshot.study.budget.epochs if chosen is None else chosen.point.epochs)
    whole = [(each.goal.words, each.goal.n_trainings * each.epochs) for each in snapshot.planned_prunings]
    known = {words for words, _ in whole}
    whole += [(goal.words, goal.n_trainings * epochs) for goal in prune.goals if goal.words not in known]
    begun = [each for each in snapshot.prunings if each.counts or not each.state.is_finished()]
    return [_epochs_left(words, n, begun) for words, n in whole]


def _epochs_left(words: str, n_epochs: int, begun: list[TrialRecord]) -> int:
    """Epochs left of the pruning `words`, whose trial is taken out of those `begun`, if it is among them."""
    trial = next((each for each in begun if each.label == words), None)
    if trial is None:
        return n_epochs
    begun.remove(trial)
    return 0 if trial.counts else max(0, n_epochs - _n_epochs(trial))


def _can_be_pruned(snapshot: "Snapshot") -> bool:
    return snapshot.chosen is not None and not snapshot.chosen.point.is_linear


def _n_epochs(trial: TrialRecord) -> int:
    return 0 if trial.last_epoch is None else trial.last_epoch + 1


def _trial_seconds(snapshot: "Snapshot") -> float | None:
    """Mean seconds of a trial of the search."""
    return _mean([trial.seconds for trial in snapshot.trials if trial.counts and trial.seconds])


def _run_seconds(snapshot: "Snapshot") -> float | None:
    """Mean seconds of a run of the confirmation: one split, never pruned."""
    runs = [run.seconds for run in snapshot.runs if run.counts and run.seconds]
    if len(runs) < snapshot.study.confirm.points + snapshot.n_defaults:  # they differ, frozen ones by far
        runs += [seconds / snapshot.n_splits for seconds in _complete(snapshot)]
    return _mean(runs)


def _complete(snapshot: "Snapshot") -> list[float]:
    return [t.seconds for t in snapshot.trials if t.outcome == Outcome.COMPLETE and t.seconds]


def _seconds_per_epoch(snapshot: "Snapshot") -> float | None:
    """Mean seconds of an epoch of a pruning.

    That of the epochs of prunings so far, if there are some. Before, that of plain fine-tuning in the
    confirmation, which trains every block as prunings do, times the share of the chosen network in its
    multiply-adds; or of the complete trials.
    """
    pruned = _per_epoch(snapshot.prunings, _under_way(snapshot))
    complete = _per_epoch([t for t in snapshot.trials if t.outcome == Outcome.COMPLETE])
    if pruned is not None:
        return pruned
    if (plain := _plain_seconds_per_epoch(snapshot)) is not None:
        return plain
    return None if complete is None else complete / snapshot.n_splits


def _plain_seconds_per_epoch(snapshot: "Snapshot") -> float | None:
    rows = () if snapshot.verdict is None else snapshot.verdict.rows
    plain, chosen = next((row for row in rows if row.number == PLAIN), None), snapshot.chosen
    measured = _per_epoch([run for run in snapshot.runs if plain is not None and run.label == plain.label])
    if measured is None or plain is None or chosen is None:
        return measured
    costs = [row.inference_cost.get("multiply_adds", 0.0) for row in (chosen, plain)]
    return measured * costs[0] / costs[1] if all(costs) else measured


def _under_way(snapshot: "Snapshot") -> list[tuple[float, float]]:
    """Seconds and epochs so far of each pruning that a worker has, after its first epoch."""
    prunings = snapshot.study.name + PRUNE_SUFFIX
    return [
        (worker.seconds, worker.epoch + worker.step / (worker.steps or 1))
        for worker in snapshot.workers
        if worker.study == prunings and worker.seconds and worker.epoch
    ]


def _per_epoch(trials: Iterable[TrialRecord], under_way: Sequence[tuple[float, float]] = ()) -> float | None:
    """Seconds per epoch of the ended trials among `trials`, and of those under way."""
    ended = [(trial.seconds, _n_epochs(trial)) for trial in trials if trial.counts and trial.seconds]
    n_epochs = sum(n for _, n in (*ended, *under_way))
    return sum(seconds for seconds, _ in (*ended, *under_way)) / n_epochs if n_epochs else None


def _mean(seconds: list[float]) -> float | None:
    return statistics.mean(seconds) if seconds else None
