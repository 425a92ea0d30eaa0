"""A study at one moment, for people and programs: trials, workers, best, pace, spend."""

import json
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from optuna.storages import BaseStorage

from tlopt.spec import Study
from tlopt.storage import commands, studies
from tlopt.storage import workers as worker_rows
from tlopt.storage.attributes import TrialRecord, best_first

GONE_SECONDS = 900.0  # longer than most outages; its trial is another's by then, and it is shown no more
SILENT_SECONDS = 30.0  # a worker that has not beaten for so long is shown as silent


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """One worker as a person wants to see it."""

    name: str  # host:process
    device: str
    study: str  # that it is at, or ""
    trial: int | None
    epoch: int  # under way, from 0
    epochs: int
    step: int
    steps: int  # of the epoch; 0 where it has not begun
    silent_seconds: float  # since its last beat


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A study at one moment."""

    study: Study
    order: commands.Order
    trials: tuple[TrialRecord, ...]
    workers: tuple[WorkerRow, ...]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many trials came to what, most frequent first."""
        return dict(Counter(trial.outcome for trial in self.trials).most_common())

    @property
    def n_finished(self) -> int:
        """Complete and pruned trials."""
        return sum(1 for trial in self.trials if trial.counts)

    @property
    def spent_hours(self) -> float:
        """Of work in finished trials, over all workers."""
        return sum(trial.seconds or 0.0 for trial in self.trials) / 3600

    @property
    def left_seconds(self) -> float | None:
        """Until the budget is spent at the pace so far; None where there is no pace or no worker."""
        seconds = [trial.seconds for trial in self.trials if trial.counts and trial.seconds]
        n_working = sum(1 for worker in self.workers if worker.trial is not None)
        left = self.study.budget.trials - self.n_finished
        if not seconds or not n_working or left <= 0:
            return 0.0 if left <= 0 else None
        return left * statistics.mean(seconds) / n_working

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best value."""
        return next(iter(best_first(self.trials, self.study.direction)), None)

    def as_dict(self) -> dict[str, Any]:
        """For programs: plain values, the trials' records included."""
        best = self.best
        return {
            "study": self.study.name,
            "digest": self.study.digest,
            "objective": self.study.objective,
            "state": self.order.state,
            "reason": self.order.reason,
            "trials_planned": self.study.budget.trials,
            "trials_finished": self.n_finished,
            "outcomes": self.outcomes,
            "best": None
            if best is None
            else {"trial": best.number, "value": best.value, "point": best.point},
            "spent_hours": self.spent_hours,
            "left_seconds": self.left_seconds,
            "workers": [asdict(worker) for worker in self.workers],
            "trials": [_plain(trial) for trial in self.trials],
        }


def look(study: Study, store: BaseStorage, *, name: str | None = None) -> Overview:
    """What there is to see of a study now.

    Args:
        name: of the Optuna study; None: the search itself.

    Raises:
        NotReady: it was not begun.
    """
    opened = studies.open_existing(store, name or study.name)
    service = studies.service_of(store)
    present = service.ask(lambda executor: worker_rows.present(executor, service.engine))
    return Overview(
        study=study,
        order=commands.order_of(opened),
        trials=tuple(TrialRecord.from_frozen(trial) for trial in opened.get_trials(deepcopy=False)),
        workers=tuple(
            _worker(row)
            for row in present
            if opened.study_name in row.studies and row.silent_seconds < GONE_SECONDS
        ),
    )


def _worker(row: worker_rows.Presence) -> WorkerRow:
    doing = json.loads(row.doing) if row.doing else {}
    return WorkerRow(
        name=row.identity.name,
        device=row.device,
        study=doing.get("study", ""),
        trial=doing.get("trial"),
        epoch=doing.get("epoch", 0),
        epochs=doing.get("epochs", 0),
        step=doing.get("step", 0),
        steps=doing.get("steps", 0),
        silent_seconds=row.silent_seconds,
    )


def _plain(trial: TrialRecord) -> dict[str, Any]:
    values = vars(trial) | {"state": trial.state.name.lower()}
    for name in ("started", "finished"):
        moment = getattr(trial, name)
        values[name] = None if moment is None else moment.isoformat(timespec="seconds")
    return values
