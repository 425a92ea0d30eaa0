"""Confirmation: the best points and the defaults over the same seeds, as a plain study `NAME.confirm`.

This module covers candidates, runs and results in the database. `held_out` reads the test images, once, after
the choice.

A confirmation belongs to one search, as `companion` says: a candidate's number refers to a trial of that one
only.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tlopt.confirmation.companion import has_start_of
from tlopt.confirmation.evidence import ODDS_MIN, PREFERRED_DEFAULT, odds_min
from tlopt.confirmation.verdict import Confirmed, Verdict, ranked
from tlopt.errors import NotReady, Refused
from tlopt.model.facts import BackboneFacts
from tlopt.search.defaults import begun_labels, defaults
from tlopt.search.front import front_trials, most_of
from tlopt.search.plan import confirm_seed, ended_runs, run_values
from tlopt.search.race import KEPT, LINEAR, PARTLY, PLAIN, PROBE, Candidate, Race
from tlopt.search.user_params import point_of_params
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, LINEAR_LABEL, PARTLY_LABEL, PROBE_LABEL
from tlopt.spec.objectives import minimised
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.storage import attributes
from tlopt.storage.attributes import (
    CANDIDATES,
    COMBINED,
    HALVES,
    ODDS,
    PREFERRED,
    SEARCH,
    TEST,
    TEST_READINGS,
    TrialRecord,
    best_first,
)
from tlopt.system.words import counted

_logger = logging.getLogger(__name__)


def find_candidates(
    study: Study,
    optuna_study: optuna.Study,
    facts: BackboneFacts,
    *,
    late: str = "",
    is_feasible: Callable[[Point], bool] = lambda _: True,
) -> tuple[Candidate, ...]:
    """The defaults and the best distinct points of the search, `confirm.points` of them.

    Complete trials are ranked by their value, then by validation log-loss. Trials that tlopt did not run are
    included if their parameters are a point of the search. Points of infeasible trials are excluded, and so
    are infeasible defaults.

    Args:
        late: why no further trial starts, and the cure; for the error message if no trial is complete.
        is_feasible: whether the network of a point keeps the study's constraints.

    Raises:
        NotReady: no trial is complete yet.
        StorageError: a later version wrote one of the points.
    """
    trials = attributes.trials_of(optuna_study, (TrialState.COMPLETE, TrialState.PRUNED))
    records = [_with_point(trial, study, facts) for trial in trials]
    complete = _in_order(records, study)
    if not complete:
        raise NotReady(_why_none(study, optuna_study, late))
    infeasible = [record.point for record in records if record.outcome == Outcome.INFEASIBLE]
    labels = begun_labels(study, optuna_study.user_attrs.get(attributes.DEFAULTS))
    known = [
        row
        for row in defaults(study, facts, labels)
        if asdict(row.point) not in infeasible and is_feasible(row.point)
    ]
    # PLAIN is plain fine-tuning, or training from scratch
    numbers = {PARTLY_LABEL: PARTLY, KEPT_LABEL: KEPT, LINEAR_LABEL: LINEAR, PROBE_LABEL: PROBE}
    chosen = [Candidate(numbers.get(row.label, PLAIN), row.label, row.point) for row in known]
    for record in complete:
        point = Point.stored(record.point, f"trial {record.number} of {study.name}")
        is_new = all(point != other.point for other in chosen)
        feasible = record.point not in infeasible and (record.ran_here or is_feasible(point))
        if is_new and feasible and len(chosen) < len(known) + study.confirm.points:
            named = record.label if record.is_carried else f"trial {record.number}"
            chosen.append(Candidate(record.number, named, point, record.value))
    return tuple(chosen)


def _in_order(records: Sequence[TrialRecord], study: Study) -> list[TrialRecord]:
    """Complete trials to confirm: by value, or with several objectives those that span the front."""
    if not study.objectives:
        return best_first(records, study.direction)
    front = front_trials(records, study)
    return [
        front[i]
        for i in most_of([minimised(trial.values, study.direction) for trial in front], study.confirm.points)
    ]


def belongs(confirmation: optuna.Study, search: optuna.Study) -> bool:
    """Whether `confirmation` belongs to `search`, and not to an earlier search of the same name.

    It must store the search's start time, or none (earlier versions), and the search must have each of its
    candidates as the trial of that number with the same point, if tlopt ran that trial.
    """
    if not has_start_of(confirmation, search):
        return False
    trials = {trial.number: trial for trial in attributes.trials_of(search)}
    rows: list[dict[str, Any]] = confirmation.user_attrs.get(CANDIDATES, [])
    return all(_is_in(trials, row, search.study_name) for row in rows if row["number"] >= 0)


def is_begun(confirmation: optuna.Study) -> bool:
    """Whether `confirmation` has candidates or already belongs to a search."""
    return bool(confirmation.user_attrs.get(CANDIDATES)) or SEARCH in confirmation.user_attrs


def _is_in(trials: Mapping[int, FrozenTrial], row: Mapping[str, Any], study: str) -> bool:
    """Whether a candidate's trial exists and, if tlopt ran it, has its point.

    Points are compared as completed ones, because earlier versions stored fewer keys.

    Raises:
        StorageError: one of the points is damaged.
    """
    trial = trials.get(row["number"])
    if trial is None:
        return False
    if not attributes.ran_here(trial):
        return True
    searched, confirmed = trial.user_attrs.get(attributes.POINT), row["point"]
    if searched == confirmed or not isinstance(searched, dict):  # None, or set by other software
        return bool(searched == confirmed)
    owner = f"trial {trial.number} of {study}"
    return Point.stored(searched, owner) == Point.stored(confirmed, f"the confirmation of {owner}")


def _with_point(trial: FrozenTrial, study: Study, facts: BackboneFacts) -> TrialRecord:
    """The trial's record; for a trial that tlopt did not run, with the point of its parameters, if any."""
    record = TrialRecord.from_frozen(trial)
    if record.ran_here or record.is_carried or trial.state != TrialState.COMPLETE:
        return record
    try:
        point = point_of_params(trial.params, study, facts)
    except Refused as error:
        _logger.warning(
            "trial %d of %s was not run by tlopt and is left out: %s", trial.number, study.name, error
        )
        return record
    outcome = Outcome.INFEASIBLE if record.violations else Outcome.COMPLETE
    return replace(record, outcome=outcome, point=asdict(point))


def add_candidates(
    confirmation: optuna.Study, candidates: Sequence[Candidate], study: Study, *, odds: float
) -> None:
    """Store `candidates` after those that the confirmation of `study` has.

    Args:
        odds: at which a new confirmation chooses a searched point over the strongest default, and another
            default over the preferred one.
    """
    known = [_to_json(candidate) for candidate in _read_candidates(confirmation)]
    if candidates and not known:
        confirmation.set_user_attr(HALVES, not study.objectives)  # a cheap point need not be the best one
        confirmation.set_user_attr(ODDS, odds)
        confirmation.set_user_attr(PREFERRED, PREFERRED_DEFAULT)
    numbers = {row["number"] for row in known}
    new = [_to_json(candidate) for candidate in candidates if candidate.number not in numbers]
    if new:
        confirmation.set_user_attr(CANDIDATES, known + new)


def stored_candidates(confirmation: optuna.Study) -> tuple[Candidate, ...]:
    """The candidates of a confirmation.

    Raises:
        NotReady: it has not been begun.
    """
    candidates = _read_candidates(confirmation)
    if not candidates:
        raise NotReady(f"{confirmation.study_name} has no candidates yet; first: tlopt confirm")
    return candidates


def stored_race(study: Study, confirmation: optuna.Study) -> Race:
    """The order of a confirmation's runs.

    Raises:
        NotReady: it has not been begun.
    """
    return Race(
        candidates=stored_candidates(confirmation),
        seeds=study.confirm.seeds,
        direction=study.direction,
        halves=bool(confirmation.user_attrs.get(HALVES)),
    )


def read_verdict(
    study: Study,
    confirmation: optuna.Study,
    *,
    n_images: Mapping[str, int] | None = None,
    n_splits: int = 1,
) -> Verdict:
    """The results of a confirmation so far.

    Args:
        n_images: number of images by split, "val" and "test", where known.
        n_splits: number of splits into training and validation images.

    Raises:
        NotReady: it has no candidates yet.
    """
    race = stored_race(study, confirmation)
    runs = ended_runs(attributes.trials_of(confirmation))
    values = run_values(runs)
    test, dropped = confirmation.user_attrs.get(TEST, {}), race.dropped(values)
    rows = [_confirmed(each, study, runs, test, dropped=each.number in dropped) for each in race.candidates]
    verdict = Verdict(
        study=study.name,
        objective=study.objective,
        direction=study.direction,
        rows=ranked(rows, study.objective, study.direction, study.cost_names),
        n_expected=race.n_planned(values),
        n_finished=len(runs),
        test_readings=confirmation.user_attrs.get(TEST_READINGS, 0),
        n_images=dict(n_images or {}),
        n_splits=n_splits,
        odds_min=_odds_of(confirmation, study, (n_images or {}).get("val", 0), n_splits),
        preferred=confirmation.user_attrs.get(PREFERRED, ""),
        cost_objectives=study.cost_objectives,
        cost_limits=study.constraints.limits,
    )
    return verdict.settled() if verdict.finished else verdict


def _odds_of(confirmation: optuna.Study, study: Study, n_val: int, n_splits: int) -> float:
    """The odds that the confirmation began with; those of shared splits if seeds share some by now.

    With a split for each seed it began with lower odds than there are otherwise; `confirm.seeds` may have
    been raised beyond the splits since.
    """
    odds = float(confirmation.user_attrs.get(ODDS, 0.0))
    if 0 < odds < ODDS_MIN and study.confirm.seeds > n_splits:
        return odds_min(n_splits * n_val, others=False)
    return odds


def record_test(confirmation: optuna.Study, test: Mapping[int, list[dict[str, float]]]) -> None:
    """Store test metrics by candidate and seed, and increment the count of test readings."""
    kept = confirmation.user_attrs.get(TEST, {}) | {str(number): rows for number, rows in test.items()}
    confirmation.set_user_attr(TEST, kept)
    confirmation.set_user_attr(TEST_READINGS, confirmation.user_attrs.get(TEST_READINGS, 0) + 1)


def combined_test(confirmation: optuna.Study, name: str) -> dict[str, float] | None:
    """The test metrics of the soup or ensemble `name`; None if the test images were not read for it."""
    known: dict[str, dict[str, float]] = confirmation.user_attrs.get(COMBINED, {})
    return known.get(name)


def record_combined_test(confirmation: optuna.Study, name: str, metrics: Mapping[str, float]) -> None:
    """Store the test metrics of the soup or ensemble `name`, and increment the count of test readings."""
    known = confirmation.user_attrs.get(COMBINED, {}) | {name: dict(metrics)}
    confirmation.set_user_attr(COMBINED, known)
    confirmation.set_user_attr(TEST_READINGS, confirmation.user_attrs.get(TEST_READINGS, 0) + 1)


def wants_test(verdict: Verdict) -> tuple[Confirmed, ...]:
    """The chosen candidate and the defaults, without those that have test metrics already."""
    named = sorted((row for row in verdict.rows if row.number < 0), key=lambda row: row.number)
    wanted = [verdict.chosen, *named]
    rows = {row.number: row for row in wanted if len(row.test) < len(row.val)}
    return tuple(rows.values())


def _why_none(study: Study, optuna_study: optuna.Study, late: str) -> str:
    """The reason why there is nothing to confirm, and what to do."""
    ended = [trial for trial in attributes.records_of(optuna_study) if trial.counts]
    if not ended:
        first = f": {late}" if late else "; first: tlopt run or tlopt worker"
        return f"study {study.name} has no complete trial to confirm{first}"
    if study.constraints.limits and all(trial.outcome == Outcome.INFEASIBLE for trial in ended):
        nearest = min(ended, key=lambda trial: sum(trial.violations.values()))
        return (
            f"study {study.name} has no feasible trial to confirm: all {counted(len(ended), 'trial')} are"
            f" infeasible; the nearest, trial {nearest.number}: {nearest.cause}\n"
            "start a study under another name with a higher limit in [constraints], or with smaller networks:"
            " a lower resolution in [search], or another model.backbone"
        )
    outcomes = Counter(trial.outcome for trial in ended)
    counts = ", ".join(f"{n} {outcome.words}" for outcome, n in outcomes.most_common())
    causes = [trial.cause for trial in ended if trial.outcome != Outcome.PRUNED]
    beyond = Outcome.INFEASIBLE in outcomes
    return (
        f"study {study.name} has no complete trial to confirm: {counts}"
        + (f"; the first cause: {causes[0]}\n" if causes else "\n")
        + (late or "raise budget.trials to continue")
        + ", or start a study under another name with "
        + ("a higher limit in [constraints]" if beyond else "lower lr or batch_size")
    )


def _confirmed(
    candidate: Candidate,
    study: Study,
    runs: Mapping[tuple[int, int], TrialRecord],
    test: Mapping[str, list[dict[str, float]]],
    *,
    dropped: bool,
) -> Confirmed:
    replicates = range(study.confirm.seeds)
    ended = [runs[candidate.number, r] for r in replicates if (candidate.number, r) in runs]
    valued = all(record.outcome == Outcome.COMPLETE for record in ended)
    return Confirmed(
        number=candidate.number,
        label=candidate.label,
        point=candidate.point,
        seeds=tuple(
            confirm_seed(study, r) for r in replicates if not dropped or (candidate.number, r) in runs
        ),
        val=tuple(record.metrics for record in ended) if valued else (),
        test=tuple(test.get(str(candidate.number), ()))[: study.confirm.seeds],
        dropped=dropped,
        inference_cost=ended[0].inference_cost if ended else {},
    )


def _read_candidates(confirmation: optuna.Study) -> tuple[Candidate, ...]:
    rows: list[dict[str, Any]] = confirmation.user_attrs.get(CANDIDATES, [])
    name = confirmation.study_name
    return tuple(
        Candidate(
            row["number"],
            row["label"],
            Point.stored(row["point"], f"{row['label']} in {name}"),
            row.get("value"),
        )
        for row in rows
    )


def _to_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "number": candidate.number,
        "label": candidate.label,
        "point": candidate.point.as_dict(),
        "value": candidate.value,
    }
