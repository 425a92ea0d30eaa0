"""Attributes that tlopt adds to Optuna's studies and trials, and the record of a trial.

They are user attributes with the prefix `tlopt:`, so a study stays a plain Optuna study.

====================  ======  ==============================================================================
attribute             of      holds
====================  ======  ==============================================================================
tlopt:file            study   the study file's text
tlopt:digest          study   `Study.digest`, which determines the meaning of a trial
tlopt:semantics       study   `spec.SEMANTICS_VERSION` at the study's creation
tlopt:format          study   `FORMAT_VERSION` of these attributes; 1 if missing
tlopt:began           study   time of creation by the database's clock, seconds since 1970
tlopt:threads         study   CPU threads per worker, on which last bits depend
tlopt:numerics        study   precision and layout measured as fastest, by backbone
tlopt:images          study   {"class_names", at most `CLASS_NAMES_MAX`, "n_classes", "n_train", "n_val",
                              "n_splits", "n_test"}; "n_confirm_splits" if the confirmation has its own
tlopt:defaults        study   [{"label"}] of the defaults; missing up to 0.2, see `defaults.begun_labels`
tlopt:control         study   {"state", "reason"}: the last command to its workers, see `commands`
tlopt:warm_start      study   {"from", "began", "carried", "enqueued", "summary"}, see `search.warm_start`
tlopt:fit             study   {"summary", "fits"}: how backbones suit its images, see `insight.record.Fit`
tlopt:exports         study   [{"folder", "host", "kind", "label", "created"}], see `exports.listed`
tlopt:data            study   fingerprint of the images, equal for all workers
tlopt:weights         study   digest of the pretrained weights, equal for all workers
tlopt:search          study   of a confirmation: `tlopt:began` of the confirmed search
tlopt:candidates      study   of a confirmation: [{"number", "label", "point"}]
tlopt:odds            study   of a confirmation, see `confirmation.evidence.odds_min`; missing up to 0.2
tlopt:preferred       study   of a confirmation: label of the preferred default, see `confirmation.evidence`
tlopt:test            study   of a confirmation: test metrics by candidate number, one row per seed
tlopt:combined        study   of a confirmation: test metrics of its soups and ensembles, by their members
tlopt:test_readings   study   of a confirmation: number of times the test split was read
tlopt:prunings        study   of prunings: those that are planned, see `confirmation.prunings`
tlopt:label           trial   name of an initial point or candidate, such as "linear probe"
tlopt:point           trial   `Point.as_dict()`, written before the first epoch
tlopt:study           trial   `tlopt:began` of the study that ran it or carried it over; none in 0.1.0
tlopt:costs           trial   with several objectives: its inference costs among them, in order
tlopt:values          trial   with several objectives, of which Optuna takes no reports: the metric by epoch
tlopt:recipes         trial   names of the recipes of a grid that its point belongs to
tlopt:origin          trial   {"study", "trial", "began"} of the earlier trial whose point this one has; of an
                              export its folder, None and None
tlopt:carried         trial   {"point", "metrics", "inference_cost"} of a trial that an earlier study ran,
                              instead of `tlopt:point` and `tlopt:result`
tlopt:worker          trial   {"worker": name, "device": name} of the last holder
tlopt:promotion       trial   {"paused": n} of a trial that waits after n epochs, see `search.promotion`; then
                              {"passed": n} once it goes on, or {"ended": n} once it is pruned there
tlopt:notes           trial   notes on its course: resumed, requeued, a checkpoint unreadable
tlopt:result          trial   {"outcome", "best_epoch", "best_value", "metrics", "train_loss", "seconds",
                              "processor_seconds", "cause"}, written with the final state; of a grid also
                              "train_accuracies", by epoch from 1, see `trial_spec.curve_epochs`; and
                              "inference_cost", by name as in `objectives.COST_TITLES`
====================  ======  ==============================================================================
"""

import copy
import json
import reprlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import fmean, median_low
from typing import Any, Literal, Self

from optuna import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from tlopt.spec.objectives import cost, excess_size
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import completed
from tlopt.system.loose_values import list_in, numbers_by_epoch_in, numbers_in, table_in

PREFIX = "tlopt:"

STUDY_FILE = PREFIX + "file"
DIGEST = PREFIX + "digest"
SEMANTICS = PREFIX + "semantics"
RECORD_FORMAT = PREFIX + "format"
BEGAN = PREFIX + "began"
THREADS = PREFIX + "threads"
NUMERICS = PREFIX + "numerics"
IMAGES = PREFIX + "images"
DEFAULTS = PREFIX + "defaults"
CONTROL = PREFIX + "control"
WARM_START = PREFIX + "warm_start"
FIT = PREFIX + "fit"
EXPORTS = PREFIX + "exports"
FINGERPRINTS = ("data", "weights")  # must be equal for all workers; see `fingerprint_key`

SEARCH = PREFIX + "search"
CANDIDATES = PREFIX + "candidates"
HALVES = PREFIX + "halves"  # whether the confirmation drops candidates between its rounds
ODDS = PREFIX + "odds"  # at which it chooses a searched point over the strongest default; see `evidence`
PREFERRED = PREFIX + "preferred"  # default that it chooses unless another point is better at these odds
TEST = PREFIX + "test"
COMBINED = PREFIX + "combined"
TEST_READINGS = PREFIX + "test_readings"
PRUNINGS = PREFIX + "prunings"

FORMAT_VERSION = 2
CLASS_NAMES_MAX = 1000  # further ones are not stored

LABEL = PREFIX + "label"
POINT = PREFIX + "point"
STUDY = PREFIX + "study"
RECIPES = PREFIX + "recipes"
WORKER = PREFIX + "worker"
TRIAL_RESULT = PREFIX + "result"
PROMOTION = PREFIX + "promotion"
NOTES = PREFIX + "notes"
COSTS = PREFIX + "costs"
VALUES = PREFIX + "values"
ORIGIN = PREFIX + "origin"
CARRIED = PREFIX + "carried"
OUTCOME_CONSTRAINT = "outcome"  # an Optuna constraint: above 0 if infeasible
RAN_HERE = (POINT, TRIAL_RESULT)  # set once a worker has started the trial

# Outcomes of trials without a stored one; unfinished trials have none, whatever was stored.
_UNFINISHED = {TrialState.RUNNING: Outcome.RUNNING, TrialState.WAITING: Outcome.WAITING}
_FINISHED = {
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED,
    TrialState.FAIL: Outcome.FAILED,
}

# Of a study's attributes, as every version writes them; `set_user_attr` takes any value from anybody.
_TYPES: dict[str, tuple[type, ...]] = {
    STUDY_FILE: (str,),
    DIGEST: (str,),
    SEMANTICS: (int,),
    RECORD_FORMAT: (int,),
    BEGAN: (float, int, type(None)),
    THREADS: (int,),
    NUMERICS: (dict,),
    IMAGES: (dict,),
    DEFAULTS: (list,),
    CONTROL: (dict,),
    WARM_START: (dict, type(None)),
    FIT: (dict,),
    EXPORTS: (list,),
    SEARCH: (float, int, type(None)),
    CANDIDATES: (list,),
    ODDS: (float, int),
    PREFERRED: (str,),
    TEST: (dict,),
    COMBINED: (dict,),
    TEST_READINGS: (int,),
    PRUNINGS: (list,),
}


def damaged(study_attributes: Mapping[str, Any]) -> list[str]:
    """The attributes of a study that tlopt cannot have written, as in "tlopt:exports = 5"."""
    return [
        f"{key} = {reprlib.repr(study_attributes[key])}"
        for key, types in _TYPES.items()
        if key in study_attributes and not _is_one_of(types, study_attributes[key])
    ]


def _is_one_of(types: tuple[type, ...], value: Any) -> bool:
    records = value if isinstance(value, list) else []
    return type(value) in types and all(isinstance(record, dict) for record in records)


def summary_of(record: Mapping[str, Any] | None) -> str:
    """The summary in `tlopt:warm_start` or `tlopt:fit`, which 0.2.0 stored as "said"; "" for None."""
    if record is None:
        return ""
    return str(record.get("summary") or record.get("said", ""))


def fingerprint_key(name: str) -> str:
    """The attribute of a fingerprint that must be equal for all workers."""
    return PREFIX + name


@dataclass(frozen=True, kw_only=True)
class SharedChoices:
    """Choices made by the first worker for all; stored once, and not compared afterwards.

    Attributes:
        threads: CPU threads per worker.
        numerics: precision and layout by backbone.
        images: counts and class names; see `tlopt:images` above.
        defaults: labels of the defaults.
        warm_start: see `tlopt:warm_start` above; None without a warm start.
    """

    threads: int
    numerics: Mapping[str, str]
    images: Mapping[str, Any]
    defaults: Sequence[str]
    warm_start: Mapping[str, Any] | None = None

    def as_attributes(self) -> dict[str, Any]:
        """Values by attribute."""
        found: dict[str, Any] = {
            THREADS: self.threads,
            NUMERICS: dict(self.numerics),
            IMAGES: dict(self.images),
            DEFAULTS: [{"label": label} for label in self.defaults],
        }
        return found if self.warm_start is None else found | {WARM_START: dict(self.warm_start)}


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial for people and reports; unknown values are None, "" or empty."""

    number: int
    state: TrialState
    value: float | None  # objective after the last epoch; last report of a pruned trial
    point: dict[str, Any] | None  # every key of `Point`, also of points stored before it was added
    label: str
    replicate: int | None  # in a confirmation, from 0; determines seed and split
    pruning: int | None  # of the second stage: index in `PRUNINGS`
    outcome: Outcome
    cause: str
    violations: dict[str, float]  # broken constraints by name: how far above 0, where they hold
    best_epoch: int | None  # from 0
    best_value: float | None
    metrics: dict[str, float]
    train_loss: float | None
    seconds: float | None  # of work, over all holders
    processor_seconds: float | None  # None in records of earlier versions
    notes: tuple[str, ...]
    worker: str
    device: str
    last_epoch: int | None  # last reported epoch, from 0
    started: datetime | None  # local time by the worker's clock
    finished: datetime | None
    ran_here: bool  # whether a tlopt worker has run it; users may add trials
    train_accuracies: dict[int, float] = field(default_factory=dict)  # of a grid, by epoch from 1
    recipes: tuple[str, ...] = ()  # of a grid, that its point belongs to
    origin: dict[str, Any] | None = None  # earlier trial whose point it has; see `tlopt:origin` above
    inference_cost: dict[str, float] = field(default_factory=dict)  # by name; empty if not known
    values: tuple[float, ...] = ()  # one for each objective, `value` first; the last reported if pruned

    @property
    def counts(self) -> bool:
        """True if the trial counts toward the budget: complete, or pruned for any reason."""
        return self.ran_here and self.state in (TrialState.COMPLETE, TrialState.PRUNED)

    @property
    def is_carried(self) -> bool:
        """Whether an earlier study ran the trial."""
        return self.outcome == Outcome.CARRIED

    @property
    def is_network(self) -> bool:
        """Whether its point is known and is that of a network, which uses every key."""
        return (self.point or {}).get("classifier") == "network"

    @property
    def has_value(self) -> bool:
        """Whether it was trained to its end, here or in an earlier study."""
        return self.outcome == Outcome.COMPLETE or (self.is_carried and self.state == TrialState.COMPLETE)

    @classmethod
    def from_frozen(cls, trial: FrozenTrial) -> Self:
        """Build the record of a trial; the value is that of its first objective."""
        attributes = trial.user_attrs
        result, holder = table_in(attributes, TRIAL_RESULT), table_in(attributes, WORKER)
        carried = table_in(attributes, CARRIED)
        point = table_in(attributes, POINT) or table_in(carried, "point")
        origin = table_in(attributes, ORIGIN) or None
        broken = violations(trial)
        return cls(
            number=trial.number,
            state=trial.state,
            value=next(iter(last_values(trial)), None),
            point=completed(point) if point else None,
            label=attributes.get(LABEL, "") or (origin_words(origin) if carried and origin else ""),
            replicate=trial.params.get("replicate"),
            pruning=trial.params.get("pruning"),
            outcome=_outcome(trial, result.get("outcome")),
            cause=result.get("cause") or violation_words(broken),
            violations=broken,
            best_epoch=result.get("best_epoch"),
            best_value=result.get("best_value"),
            metrics=table_in(result, "metrics") or table_in(carried, "metrics"),
            train_loss=result.get("train_loss"),
            seconds=result.get("seconds"),
            processor_seconds=result.get("processor_seconds"),
            notes=notes_of(trial),
            worker=holder.get("worker", ""),
            device=holder.get("device", ""),
            last_epoch=max(curve_of(trial), default=None),
            started=trial.datetime_start,
            finished=trial.datetime_complete,
            ran_here=ran_here(trial),
            train_accuracies=numbers_by_epoch_in(result, "train_accuracies"),
            recipes=tuple(map(str, list_in(attributes, RECIPES))),
            origin=origin,
            values=tuple(last_values(trial)),
            inference_cost=numbers_in(result, "inference_cost") or numbers_in(carried, "inference_cost"),
        )


def trials_of(opened: Study, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
    """The trials of a study by number; those that do not belong to it are stripped of tlopt's attributes.

    Users may add trials of another study (`study.add_trials(other.trials)`). Those ran
    elsewhere, perhaps with other images or ranges, so they are treated like any others that users add.
    """
    return as_own(opened.get_trials(deepcopy=False, states=states), opened.user_attrs.get(BEGAN))


def as_own(trials: Iterable[FrozenTrial], began: float | None) -> list[FrozenTrial]:
    """`trials_of` for trials and the attribute `tlopt:began` that have been read already."""
    return [trial if trial.user_attrs.get(STUDY, began) == began else _plain(trial) for trial in trials]


def _plain(trial: FrozenTrial) -> FrozenTrial:
    """A copy of `trial` without the attributes of tlopt."""
    trial = copy.copy(trial)
    trial.user_attrs = {key: value for key, value in trial.user_attrs.items() if not key.startswith(PREFIX)}
    return trial


def records_of(opened: Study) -> tuple[TrialRecord, ...]:
    """The records of a study's trials by number."""
    return tuple(map(TrialRecord.from_frozen, trials_of(opened)))


def notes_of(trial: FrozenTrial | Trial) -> tuple[str, ...]:
    """The notes on a trial's course."""
    return tuple(map(str, list_in(trial.user_attrs, NOTES)))


def paused_at(trial: FrozenTrial) -> int:
    """Number of epochs after which the trial has paused, while it waits there; else 0."""
    return promotion_of(trial, "paused") if trial.state == TrialState.WAITING else 0


def promotion_of(trial: FrozenTrial | Trial, key: Literal["paused", "passed", "ended"]) -> int:
    """Number of epochs that `tlopt:promotion` has under `key`; else 0."""
    found = table_in(trial.user_attrs, PROMOTION).get(key)
    return found if type(found) is int else 0


def network_epochs(trial: FrozenTrial | Trial) -> int:
    """Number of epochs of the network that the trial trains; 0 of a linear classifier or without a point."""
    point = completed(table_in(trial.user_attrs, POINT))
    return int(point.get("epochs", 0)) if point["classifier"] == "network" else 0


def curve_of(trial: FrozenTrial | Trial) -> dict[int, float]:
    """The metric by epoch, from 0, as far as reported; in `tlopt:values` with several objectives."""
    if isinstance(trial, FrozenTrial) and trial.intermediate_values:
        return trial.intermediate_values
    return dict(enumerate(value for value in list_in(trial.user_attrs, VALUES) if type(value) is float))


def last_values(trial: FrozenTrial) -> list[float]:
    """The values of a finished trial, metric first; of a pruned one the last reported; empty without any."""
    if trial.values is not None:
        return list(trial.values)
    curve = curve_of(trial) if trial.state == TrialState.PRUNED else {}
    return [curve[max(curve)], *map(float, list_in(trial.user_attrs, COSTS))] if curve else []


def _outcome(trial: FrozenTrial, written: str | None) -> Outcome:
    """The trial's outcome; its state decides if `written` is missing or unknown to this version."""
    if not trial.state.is_finished():
        return Outcome.PAUSED if paused_at(trial) else _UNFINISHED[trial.state]
    if trial.state == TrialState.COMPLETE and violations(trial):
        return Outcome.INFEASIBLE
    if written in set(Outcome):
        return Outcome(written)
    if trial.state != TrialState.FAIL and not ran_here(trial):
        return Outcome.CARRIED if is_carried(trial) else Outcome.ADDED
    return _FINISHED[trial.state]


def violations(trial: FrozenTrial) -> dict[str, float]:
    """The constraints that a trial breaks, by name, with how far each lies above 0; empty for a feasible one.

    `OUTCOME_CONSTRAINT` of a trial that is not complete says no more than its outcome, and is left out.
    """
    complete = trial.state == TrialState.COMPLETE
    return {
        name: value
        for name, value in trial.constraints.items()
        if value > 0 and (complete or name != OUTCOME_CONSTRAINT)
    }


def violation_words(broken: Mapping[str, float]) -> str:
    """The violations as text, as in "breaks flops by 0.31 and multiply_adds by 12 %"; "" for none."""
    said = " and ".join(f"{name} by {excess_size(name, value)}" for name, value in broken.items())
    return f"breaks {said}" if said else ""


def ran_here(trial: FrozenTrial) -> bool:
    """Return whether a tlopt worker has started the trial; False for trials that users add or ask for."""
    return any(key in trial.user_attrs for key in RAN_HERE)


def is_carried(trial: FrozenTrial) -> bool:
    """Whether an earlier study ran the trial, and this one has its value from there."""
    return CARRIED in trial.user_attrs and not ran_here(trial)


def origin_words(origin: Mapping[str, Any]) -> str:
    """The origin as text, as in "trial 12 of flowers5"."""
    of = origin["study"]
    return f"the export {of}" if origin["trial"] is None else f"trial {origin['trial']} of {of}"


def best_first(trials: Iterable[TrialRecord], direction: str) -> list[TrialRecord]:
    """The complete trials with a point among `trials`, best value first; validation log-loss breaks ties.

    Carried ones take part. Infeasible ones are left out, and so are trials that users added, which have
    no point and no comparable value. Each point of a grid is one record: see `over_replicates`.
    """

    def key(trial: TrialRecord) -> tuple[float, float]:
        assert trial.value is not None, "a complete trial has a value"
        return (cost(trial.value, direction), trial.metrics.get("log_loss", float("inf")))

    return sorted(
        over_replicates(trial for trial in trials if trial.has_value and trial.point is not None), key=key
    )


def over_replicates(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Complete trials, with those of one point of a grid as one record: means, under the first one's number.

    Points with fewer replicates than half of the points have are left out: their means tell too little.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        same = str(trial.number) if trial.replicate is None else json.dumps(trial.point, sort_keys=True)
        groups.setdefault(same, []).append(trial)
    usual = median_low(map(len, groups.values())) if groups else 0
    return [
        _mean_record(group) for group in groups.values() if group[0].replicate is None or len(group) >= usual
    ]


def _mean_record(trials: Sequence[TrialRecord]) -> TrialRecord:
    if len(trials) == 1:
        return trials[0]
    mean = fmean(trial.value for trial in trials if trial.value is not None)
    names = trials[0].metrics.keys() & set.intersection(*(set(trial.metrics) for trial in trials))
    return replace(
        trials[0],
        value=mean,
        values=(mean, *trials[0].values[1:]),
        metrics={name: fmean(trial.metrics[name] for trial in trials) for name in sorted(names)},
    )
