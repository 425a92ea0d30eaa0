"""A study at one moment, for people and programs: search, confirmation, workers, pace, cost."""

import json
import math
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tlopt.analysis.cost import Cost
from tlopt.analysis.network_stages import network_stages
from tlopt.analysis.time_left import TimeLeft, time_left
from tlopt.confirmation import candidates
from tlopt.confirmation.prunings import stored_prunings
from tlopt.confirmation.verdict import Confirmed, Verdict
from tlopt.confirmation.verdict_json import as_dict
from tlopt.errors import NotReady
from tlopt.search.defaults import begun_labels
from tlopt.search.enough import Enough, find_end, n_planned
from tlopt.search.front import front_trials
from tlopt.search.race import n_point_runs
from tlopt.spec import Study
from tlopt.spec.objectives import cost, measured
from tlopt.spec.outcome import Outcome
from tlopt.spec.trial_spec import PlannedPruning
from tlopt.storage import attributes, commands, studies
from tlopt.storage import workers as worker_rows
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.storage.schema import epoch_seconds

GONE_SECONDS = 900.0  # since the last heartbeat, after which a worker is not shown; longer than most outages
SILENT_SECONDS = 30.0  # since the last heartbeat, after which a worker is shown as silent

Stage = Literal["search", "confirm", "prune"]


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """One worker in the status table."""

    name: str  # host:process
    device: str
    study: str  # that it works on, or ""
    trial: int | None
    epoch: int  # current epoch, from 0
    epochs: int
    step: int
    steps: int  # per epoch; 0 before the epoch begins
    silent_seconds: float  # since its last heartbeat
    seconds: float = 0.0  # of work on the trial so far; 0 if not known


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study at one moment."""

    study: Study
    command: commands.Command
    trials: tuple[TrialRecord, ...]  # of the search
    workers: tuple[WorkerRow, ...]  # of search and confirmation
    runs: tuple[TrialRecord, ...] = ()  # of the confirmation
    verdict: Verdict | None = None  # None before the confirmation has begun
    prunings: tuple[TrialRecord, ...] = ()  # of the second stage
    planned_prunings: tuple[PlannedPruning, ...] = ()
    n_splits: int = 1  # on which each trial of the search trains
    n_defaults: int = 2  # default candidates of the confirmation
    hours_left: float | None = None  # in which trials may still start; None: no limit
    exports: tuple[dict[str, Any], ...] = ()  # as `attributes.EXPORTS`
    warm_start: dict[str, Any] | None = None  # as `attributes.WARM_START`; None without one
    stage: Stage = "search"  # shown by `progress`
    doing: str = ""  # work before the first trial, such as "measuring ..."

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """Number of trials by outcome, most frequent first."""
        return dict(Counter(trial.outcome for trial in self.trials).most_common())

    @property
    def n_finished(self) -> int:
        """Number of complete and pruned trials of the search."""
        return sum(1 for trial in self.trials if trial.counts)

    @property
    def n_planned(self) -> int:
        """Number of trials of the search to finish; with `trials = "enough"` the most there can be."""
        return n_planned(self.study, self.trials)

    @property
    def enough(self) -> Enough | None:
        """The decision of `trials = "enough"` that ended the search; None before, and for a number."""
        is_number = isinstance(self.study.budget.trials, int)
        return None if is_number else find_end(self.trials, self.study.direction)

    @property
    def n_runs(self) -> int:
        """Number of runs in the confirmation; the largest possible number before it has begun.

        0 before that of a grid, which `run` does not confirm.
        """
        if self.verdict is not None:
            return self.verdict.n_expected
        if self.study.is_grid:
            return 0
        confirm = self.study.confirm
        n_points = n_point_runs(confirm.points, confirm.seeds)
        if self.study.objectives:  # no point of a front is dropped
            n_points = confirm.points * confirm.seeds
        return n_points + self.n_defaults * confirm.seeds

    @property
    def n_prunings(self) -> int:
        """Number of planned prunings; 0 before they have begun."""
        return len(self.planned_prunings)

    @property
    def n_runs_finished(self) -> int:
        """Number of finished runs of the confirmation."""
        return 0 if self.verdict is None else self.verdict.n_finished

    @property
    def progress(self) -> tuple[int, int]:
        """Finished and planned trials, or runs, of the stage."""
        match self.stage:
            case "search":
                return self.n_finished, self.n_planned
            case "confirm":
                return self.n_runs_finished, self.n_runs
            case "prune":
                return sum(1 for each in self.prunings if each.counts), self.n_prunings

    @property
    def stage_trials(self) -> tuple[TrialRecord, ...]:
        """The trials, runs or prunings of the stage."""
        return {"search": self.trials, "confirm": self.runs, "prune": self.prunings}[self.stage]

    @property
    def search_cost(self) -> Cost:
        """The cost of the search's finished trials so far."""
        return Cost.of((t for t in self.trials if t.state.is_finished()), n_splits=self.n_splits)

    @property
    def confirm_cost(self) -> Cost:
        """The cost of the confirmation's finished runs so far."""
        return Cost.of(run for run in self.runs if run.state.is_finished())

    @property
    def prune_cost(self) -> Cost:
        """The cost of the finished prunings so far."""
        return Cost.of(each for each in self.prunings if each.state.is_finished())

    @property
    def hours_are_over(self) -> bool:
        """Whether budget.hours ended the search before its trials were finished."""
        left = self.n_planned - self.n_finished
        return left > 0 and self.hours_left is not None and self.hours_left <= 0

    @property
    def left(self) -> TimeLeft | None:
        """The time to the end of the last stage; None without an active worker or a finished trial."""
        return time_left(self)

    @property
    def best(self) -> TrialRecord | None:
        """The complete and feasible trial with the best value, possibly carried over.

        It is Optuna's best trial, too, unless there is a `best_added`.
        """
        return next(iter(best_first(self.trials, self.study.direction)), None)

    @property
    def best_added(self) -> TrialRecord | None:
        """The best complete trial that others added, if its value is better than that of `best`."""
        added = [t for t in self.trials if t.outcome == Outcome.ADDED and t.state == TrialState.COMPLETE]

        def cost_of(trial: TrialRecord) -> float:
            return math.inf if trial.value is None else cost(trial.value, self.study.direction)

        top = min(added, key=cost_of, default=None)
        return top if top is not None and (self.best is None or cost_of(top) < cost_of(self.best)) else None

    @property
    def chosen(self) -> Confirmed | None:
        """The candidate that the confirmation has chosen; None before it is finished."""
        verdict = self.verdict
        done = verdict is not None and verdict.finished and verdict.chosen.val
        return verdict.chosen if verdict is not None and done else None

    @property
    def chosen_trial(self) -> int | None:
        """The number of the chosen point's trial; None before the choice, or without a trial."""
        chosen = self.chosen
        if chosen is None:
            return None
        labelled = (trial.number for trial in self.trials if trial.label == chosen.label)
        return chosen.number if chosen.number >= 0 else next(labelled, None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with all trials; see `measured` for their digits."""
        best, left = self.best, self.left
        values = {
            "study": self.study.name,
            "digest": self.study.digest,
            "objective": self.study.objective,
            "state": self.command.state,
            "reason": self.command.reason,
            "trials_planned": self.n_planned,
            "trials_finished": self.n_finished,
            "outcomes": self.outcomes,
            "best": None
            if best is None
            else {"trial": best.number, "value": best.value, "point": best.point},
            "chosen": self._chosen(),
            **self._front(),
            "confirmation": self._confirmation(),
            **self._prunings(),
            **self._networks(),
            "exports": list(self.exports),
            "warm_start": self._warm_start(),
            "spent_hours": self.search_cost.seconds / 3600,
            "cost": {"search": self.search_cost.as_dict(), "confirmation": self.confirm_cost.as_dict()}
            | ({"prunings": self.prune_cost.as_dict()} if self.prunings else {}),
            "left_seconds": None if left is None else left.seconds,
            "hours_left": self.hours_left,
            "workers": [asdict(worker) for worker in self.workers],
            "trials": [_plain(trial) for trial in self.trials],
        }
        return dict(measured(values))

    def _front(self) -> dict[str, Any]:
        if not self.study.objectives:
            return {}
        front = [trial.number for trial in front_trials(self.trials, self.study)]
        return {"objectives": list(self.study.objectives), "front": front}

    def _warm_start(self) -> dict[str, Any] | None:
        if self.warm_start is None:
            return None
        summary = attributes.summary_of(self.warm_start)
        return {**self.warm_start, "summary": summary, "said": summary}  # "said": its name in 0.2.0

    def _chosen(self) -> dict[str, Any] | None:
        chosen = self.chosen
        if chosen is None:
            return None
        return {
            "label": chosen.label,
            "trial": self.chosen_trial,
            "point": asdict(chosen.point),
            **{split: _mean(chosen, self.study.objective, split) for split in ("val", "test")},
        }

    def _confirmation(self) -> dict[str, Any] | None:
        verdict = self.verdict
        if verdict is None:
            return None
        counts = {"runs_planned": verdict.n_expected, "runs_finished": verdict.n_finished}
        return {**counts, "finished": verdict.finished, **as_dict(verdict)}

    def _networks(self) -> dict[str, Any]:
        stages = network_stages(self)
        return {"networks": [stage.as_dict() for stage in stages]} if stages else {}

    def _prunings(self) -> dict[str, Any]:
        if not self.n_prunings:
            return {}
        rows = [
            {
                "trial": each.number,
                "goal": each.label,
                "outcome": each.outcome,
                "value": each.value,
                "epochs": 0 if each.last_epoch is None else each.last_epoch + 1,
                "cause": each.cause,
                "inference_cost": each.inference_cost,
            }
            for each in self.prunings
        ]
        return {"prunings": {"planned": self.n_prunings, "trials": rows}}


def take_snapshot(
    study: Study,
    store: BaseStorage,
    *,
    confirmation: optuna.Study | None = None,
    prunings: optuna.Study | None = None,
    stage: Stage = "search",
) -> Snapshot:
    """The current state of a study in the database.

    Args:
        confirmation: its confirmation, if there is one.
        prunings: the study of its prunings, if there is one.
        stage: the stage whose progress is shown.

    Raises:
        NotReady: the study has not been started.
    """
    opened = studies.open_existing(store, study.name)
    service = studies.service_of(store)
    present = service.query(lambda executor: worker_rows.list_workers(executor, service.engine))
    now = service.query(lambda executor: epoch_seconds(executor, service.engine))
    attrs = opened.user_attrs
    names = {each.study_name for each in (opened, confirmation, prunings) if each is not None}
    began, hours = attrs.get(attributes.BEGAN), study.budget.hours
    return Snapshot(
        study=study,
        command=commands.command_of(opened),
        trials=attributes.records_of(opened),
        workers=tuple(
            _worker(row) for row in present if names & set(row.studies) and row.silent_seconds < GONE_SECONDS
        ),
        runs=() if confirmation is None else attributes.records_of(confirmation),
        verdict=_verdict(study, opened, confirmation),
        prunings=() if prunings is None else attributes.records_of(prunings),
        planned_prunings=() if prunings is None else stored_prunings(prunings),
        n_splits=1 if study.is_grid else n_splits(opened),
        n_defaults=len(begun_labels(study, attrs.get(attributes.DEFAULTS))),
        hours_left=hours - (now - began) / 3600 if hours and began is not None else None,
        exports=tuple(attrs.get(attributes.EXPORTS, ())),
        warm_start=attrs.get(attributes.WARM_START),
        stage=stage,
    )


def n_images(search: optuna.Study) -> dict[str, int]:
    """Images by split, "val" and "test", as the first worker found them; empty for early studies."""
    found = search.user_attrs.get(attributes.IMAGES, {})
    return {split: int(found[f"n_{split}"]) for split in ("val", "test") if f"n_{split}" in found}


def n_splits(search: optuna.Study) -> int:
    """Splits into training and validation images that each trial of the search trains on."""
    return int(search.user_attrs.get(attributes.IMAGES, {}).get("n_splits", 1))


def n_confirm_splits(search: optuna.Study) -> int:
    """Splits that the seeds of its confirmation take in turn."""
    own = int(search.user_attrs.get(attributes.IMAGES, {}).get("n_confirm_splits", 0))
    return own or n_splits(search)


def _verdict(study: Study, search: optuna.Study, confirmation: optuna.Study | None) -> Verdict | None:
    if confirmation is None:
        return None
    with suppress(NotReady):  # it has no candidates yet
        return candidates.read_verdict(
            study, confirmation, n_images=n_images(search), n_splits=n_confirm_splits(search)
        )
    return None


def _mean(row: Confirmed, objective: str, split: str) -> float | None:
    spread = row.spread(objective, split=split)
    return None if spread is None else spread.mean


def _worker(row: worker_rows.WorkerStatus) -> WorkerRow:
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
        seconds=doing.get("seconds", 0.0),
    )


def _plain(trial: TrialRecord) -> dict[str, Any]:
    values = vars(trial) | {"state": trial.state.name.lower()}
    for name in ("started", "finished"):
        moment = getattr(trial, name)
        values[name] = None if moment is None else moment.isoformat(timespec="seconds")
    return values
