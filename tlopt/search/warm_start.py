"""Warm starts: trials or points that a new study takes over from an earlier one, or from an export.

If values mean the same in both studies (images, split, objective and every setting except the ranges), trials
are carried over: they are added as finished trials, which inform the sampler and the pruner and do not count
against the budget. Otherwise only the best points are enqueued, to be trained again as ordinary trials.

The selection is made once, when the study is created, and stored with it. Each trial is then added in a
transaction that first checks whether it exists, so any number of workers may do so at any time.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial

from tlopt.errors import Refused
from tlopt.model.facts import BackboneFacts
from tlopt.search.defaults import nearest
from tlopt.search.space import (
    Params,
    encode_point,
    fitting_value,
    resolve,
    search_space,
    without_idle_keys,
)
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.differences import differences, incomparable
from tlopt.spec.dimensions import Choice, Dimension, Fixed, as_toml, bounds
from tlopt.spec.objectives import excess_words
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.spec.search_keys import LINEAR_KEYS, RULES, Depth
from tlopt.storage import attributes, optuna_private, studies
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, TrialRecord, best_first
from tlopt.system.words import counted

# If there are more, the best half and the newest: the time of a Gaussian process grows with their cube, TPE
# treats at most 25 as good, and each costs a round trip to the database before the first trial starts.
CARRIED_MAX = 100
# Points trained again take at most a quarter of the budget, because they explore nothing new.
ENQUEUED_MAX = 5
ENQUEUED_SHARE = 0.25

# Pruned trials are carried over with their reports: without them the sampler would explore regions again that
# the earlier study gave up. The same holds for diverged ones. Trials that ran out of memory, timed out or
# crashed are not, because their causes depend on a machine or a limit that may have changed.
_CARRIED_OUTCOMES = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.CARRIED)


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier study as stored in its database."""

    study: Study
    trials: Sequence[FrozenTrial]
    began: float | None  # start by the database's clock; identifies the study if its name is reused
    semantics: int
    fingerprints: Mapping[str, str]  # as `Workspace.fingerprints`

    def origin(self, trial: FrozenTrial) -> dict[str, Any]:
        """The study in which `trial` was run, and its number there."""
        own = {"study": self.study.name, "trial": trial.number, "began": self.began}
        return dict(trial.user_attrs[attributes.ORIGIN]) if attributes.is_carried(trial) else own


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """The trials and points that a study takes over, as stored with it."""

    source: str  # the study file's warm_start
    began: float | None  # start of the earlier study
    carried: tuple[int, ...]  # numbers of its trials that are carried over
    enqueued: tuple[dict[str, Any], ...]  # {"origin", "params"} of points that are trained again
    summary: str  # one sentence

    def as_attribute(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "from": self.source,
            "began": self.began,
            "carried": list(self.carried),
            "enqueued": list(self.enqueued),
            "summary": self.summary,
        }

    @classmethod
    def from_attribute(cls, stored: Mapping[str, Any]) -> Self:
        """The record that `as_attribute` wrote."""
        return cls(
            source=stored["from"],
            began=stored["began"],
            carried=tuple(stored["carried"]),
            enqueued=tuple(stored["enqueued"]),
            summary=attributes.summary_of(stored),
        )


@dataclass(frozen=True)
class _LeftOut:
    """The reason why a trial is not taken over."""

    key: str  # key of the study file that excludes it, or its outcome
    why: str


def from_study(
    earlier: Earlier,
    study: Study,
    facts: BackboneFacts,
    *,
    fingerprints: Mapping[str, str],
    semantics: int,
    initial_points: Sequence[Params],
) -> WarmStart:
    """The warm start of `study` from `earlier`; running trials are not taken over.

    Args:
        fingerprints: those of the new study, see `Workspace.fingerprints`.
        semantics: semantics version of this tlopt.
        initial_points: initial points of the new study; they are not enqueued a second time.
    """
    study = without_idle_keys(study, facts)
    settings = [*incomparable(earlier.study, study), *_other_facts(earlier, study, fingerprints)]
    if earlier.semantics != semantics:
        settings.append(f"'{earlier.study.name}' was begun by another version of tlopt")
    trials = [trial for trial in earlier.trials if trial.state.is_finished()]
    comparable = [trial for trial in trials if _lasts_alike(trial, study, facts)]
    if not settings and not comparable:
        settings.append("its trials have other epochs or another resolution")
    if settings:
        return _points_of(earlier, study, facts, settings, initial_points)
    return _values_of(earlier, trials, study, facts)


def from_point(
    folder: str, point: Point, study: Study, facts: BackboneFacts, *, initial_points: Sequence[Params]
) -> WarmStart:
    """The warm start of `study` from an export, whose point is trained again.

    Raises:
        Refused: the point lies outside the study's ranges; the message says where.
    """
    study = without_idle_keys(study, facts)
    adapted = _adapted(point, study, facts)
    if left_out := _obstacle(adapted, study, facts):
        raise Refused(f"the point of {folder} is no point of this search: {left_out.why}")
    params = encode_point(adapted, study, facts)
    assert params is not None, "nothing is in its way"
    origin = {"study": folder, "trial": None, "began": None}
    tried = params in list(initial_points)
    summary = f"the point of the export {folder} is trained again" + (
        ", as an initial point of every search" if tried else ""
    )
    enqueued = () if tried else ({"origin": origin, "params": params},)
    return WarmStart(source=folder, began=None, carried=(), enqueued=enqueued, summary=summary)


def n_missing(opened: optuna.Study, warm: WarmStart) -> int:
    """Number of trials of `warm` that are not in the study yet."""
    return max(0, len(warm.carried) + len(warm.enqueued) - len(_origins(opened)))


def carry_over(
    opened: optuna.Study, warm: WarmStart, earlier: Earlier, study: Study, facts: BackboneFacts
) -> None:
    """Add the carried trials that `opened` lacks, in the order of their numbers."""
    study = without_idle_keys(study, facts)
    existing, began = _origins(opened), opened.user_attrs[attributes.BEGAN]
    for trial in earlier.trials:
        origin = earlier.origin(trial)
        if trial.number in warm.carried and origin not in existing:
            carried = _carried(trial, origin, study, facts)
            carried.set_user_attr(attributes.STUDY, began)
            _add_once(opened, origin, partial(opened.add_trial, carried))


def enqueue(opened: optuna.Study, warm: WarmStart) -> None:
    """Enqueue the points to be trained again that `opened` lacks."""
    existing = _origins(opened)
    for origin, params in ((row["origin"], row["params"]) for row in warm.enqueued):
        if origin not in existing:
            note = f"the point of {attributes.origin_words(origin)}, by warm_start"
            attrs = {attributes.ORIGIN: origin, attributes.NOTES: [note]}
            _add_once(opened, origin, partial(opened.enqueue_trial, params, user_attrs=attrs))


def _origins(opened: optuna.Study) -> list[dict[str, Any]]:
    trials = opened.get_trials(deepcopy=False)
    return [trial.user_attrs[attributes.ORIGIN] for trial in trials if attributes.ORIGIN in trial.user_attrs]


def _add_once(opened: optuna.Study, origin: dict[str, Any], add: Callable[[], None]) -> None:
    service = studies.service_of(optuna_private.storage_of(opened))
    service.add_once(optuna_private.study_id(opened), attributes.ORIGIN, origin, add)


def _carried(trial: FrozenTrial, origin: dict[str, Any], study: Study, facts: BackboneFacts) -> FrozenTrial:
    """A copy of `trial` for the new study."""
    record = TrialRecord.from_frozen(trial)
    assert record.point is not None, "it was chosen by its point"
    params = encode_point(Point.stored(record.point, attributes.origin_words(origin)), study, facts)
    broken = any(value > 0 for value in trial.constraints.values())
    return optuna.create_trial(
        state=trial.state,
        value=trial.value,
        params=params,
        distributions={name: space for name, space in search_space(study).items() if name in (params or {})},
        intermediate_values=trial.intermediate_values,
        constraints={OUTCOME_CONSTRAINT: 1.0 if broken else -1.0},
        user_attrs={
            attributes.ORIGIN: origin,
            attributes.CARRIED: {
                "point": record.point,
                "metrics": record.metrics,
                **({"inference_cost": record.inference_cost} if record.inference_cost else {}),
            },
        },
    )


# Selection of trials and points


def _values_of(
    earlier: Earlier, trials: Sequence[FrozenTrial], study: Study, facts: BackboneFacts
) -> WarmStart:
    left_out: list[_LeftOut] = []
    fitting: list[TrialRecord] = []
    for record in map(TrialRecord.from_frozen, trials):
        obstacle = _why_unfit(record, earlier, study, facts)
        if obstacle is None:
            fitting.append(record)
        else:
            left_out.append(obstacle)
    kept = _best_and_newest(fitting, study.direction)
    left_out += [_LeftOut("", f"beyond the {CARRIED_MAX} best and newest")] * (len(fitting) - len(kept))
    summary = f"{counted(len(kept), 'trial')} of '{earlier.study.name}' carried over"
    if left_out:
        summary += f", {len(left_out)} left out: {_reasons(left_out)}"
    return WarmStart(
        source=earlier.study.name,
        began=earlier.began,
        carried=tuple(kept),
        enqueued=(),
        summary=summary + _under_way(earlier),
    )


def _points_of(
    earlier: Earlier,
    study: Study,
    facts: BackboneFacts,
    settings: Sequence[str],
    initial_points: Sequence[Params],
) -> WarmStart:
    records = [TrialRecord.from_frozen(trial) for trial in earlier.trials]
    by_number = {trial.number: trial for trial in earlier.trials}
    n_max = min(ENQUEUED_MAX, max(1, int(ENQUEUED_SHARE * study.budget.trials_max)))
    known, enqueued, left_out = list(initial_points), list[dict[str, Any]](), list[_LeftOut]()
    for record in best_first(records, earlier.study.direction):
        if len(enqueued) == n_max:
            break
        point = _adapted(_point_of(record, earlier), study, facts)
        obstacle = _obstacle(point, study, facts)
        params = None if obstacle else encode_point(point, study, facts)
        if obstacle:
            left_out.append(obstacle)
        elif params is not None and params not in known:
            known.append(params)
            enqueued.append({"origin": earlier.origin(by_number[record.number]), "params": params})
    summary = f"values of '{earlier.study.name}' are not carried over ({'; '.join(settings)})"
    best = "its best point is" if len(enqueued) == 1 else f"its {len(enqueued)} best points are"
    summary += f"; {best} trained again" if enqueued else "; none of its points is new to this search"
    if left_out:
        summary += f"; {len(left_out)} left out: {_reasons(left_out)}"
    return WarmStart(
        source=earlier.study.name,
        began=earlier.began,
        carried=(),
        enqueued=tuple(enqueued),
        summary=summary + _under_way(earlier),
    )


def _best_and_newest(records: Sequence[TrialRecord], direction: str) -> list[int]:
    """Numbers of the trials to carry over, ascending, at most `CARRIED_MAX`."""
    if len(records) <= CARRIED_MAX:
        return [record.number for record in records]
    best = [record.number for record in best_first(records, direction)][: CARRIED_MAX // 2]
    newest = sorted({record.number for record in records} - set(best))
    return sorted([*best, *newest[len(best) - CARRIED_MAX :]])


def _why_unfit(record: TrialRecord, earlier: Earlier, study: Study, facts: BackboneFacts) -> _LeftOut | None:
    if record.outcome == Outcome.ADDED or (record.point is None and record.outcome in _CARRIED_OUTCOMES):
        return _LeftOut("point", "not run by tlopt")
    if record.outcome not in _CARRIED_OUTCOMES:
        return _LeftOut(record.outcome, f"ended as {record.outcome.words}")
    limits, costs = study.constraints.limits, record.inference_cost
    if not limits.keys() <= costs.keys():
        return _LeftOut("constraints", "recorded without the costs that [constraints] limits")
    if excess_words(limits, costs):
        return _LeftOut("constraints", "beyond [constraints]")
    return _obstacle(_point_of(record, earlier), study, facts)


def _point_of(record: TrialRecord, earlier: Earlier) -> Point:
    return Point.stored(record.point, f"trial {record.number} of {earlier.study.name}")


def _other_facts(earlier: Earlier, study: Study, fingerprints: Mapping[str, str]) -> list[str]:
    """Differences in images, and in the pretrained weights of backbones that both studies have."""
    before, after = _by_backbone(earlier.study, earlier.fingerprints), _by_backbone(study, fingerprints)
    both = before.keys() & after.keys()
    return differences(
        {"images": earlier.fingerprints.get("data"), **{name: before[name] for name in both}},
        {"images": fingerprints["data"], **{name: after[name] for name in both}},
        owner=f"'{earlier.study.name}'",
    )


def _by_backbone(study: Study, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """The digest of each backbone's weights; `fingerprints` stores them in the order of the names."""
    digests = fingerprints.get("weights", "").split("+")
    names = sorted(study.model.backbones)
    return {f"weights of {name}": digest for name, digest in zip(names, digests, strict=False)}


# A point in the new search space


def _obstacle(point: Point, study: Study, facts: BackboneFacts) -> _LeftOut | None:
    """The reason why the search cannot draw the point, or None."""
    if point.backbone not in study.model.backbones:
        return _LeftOut("backbone", f"backbone {point.backbone} is not in this search")
    values = asdict(point)
    for name, dimension in study.search.items():
        if point.is_linear and name not in LINEAR_KEYS:
            continue
        one = getattr(dimension, point.optimizer) if isinstance(dimension, PerOptimizer) else dimension
        if not _has(one, name, point, facts):
            blocks = " blocks" if isinstance(RULES[name], Depth) else ""
            is_whole = name == "backbone_depth" and not point.is_shortened
            value = facts.n_blocks[point.backbone] if is_whole else values[name]
            return _LeftOut(name, f"{name} {_short(value)}{blocks} {_outside(one)}")
    given = {name: values[name] for name in study.search}
    resolved = asdict(resolve(given, point.backbone, study.budget.epochs, facts))
    for name, value in resolved.items():
        if value != values[name]:
            return _LeftOut(name, f"{name} {_short(values[name])} is {_short(value)} here")
    if encode_point(point, study, facts) is None:
        return _LeftOut("point", "no point of this search")
    return None


def _has(dimension: Dimension, name: str, point: Point, facts: BackboneFacts) -> bool:
    value = fitting_value(name, point, dimension, facts)
    return value is not None and dimensions.contains(dimension, value)


def _outside(dimension: Dimension) -> str:
    if isinstance(dimension, Fixed):
        return f"is {_short(dimension.value)} here"
    if isinstance(dimension, Choice):
        return f"is none of {', '.join(map(_short, dimension.options))}"
    *off, low, high = sorted(bounds(dimension))  # numbers, because it is a range
    return f"lies outside {low:g} to {high:g}" + (", or off" if off else "")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else as_toml(value)


def _lasts_alike(trial: FrozenTrial, study: Study, facts: BackboneFacts) -> bool:
    """Whether the new study has trials with the same epochs and resolution; True if unknown."""
    point = TrialRecord.from_frozen(trial).point
    if point is None or point["backbone"] not in facts.resolution:
        return True
    return all(
        dimensions.contains(dimension, point[name])
        for name, dimension in _effort(study, point["backbone"], facts).items()
    )


def _adapted(point: Point, study: Study, facts: BackboneFacts) -> Point:
    """`point` with the nearest epochs and resolution that the new study allows."""
    if point.backbone not in facts.resolution:
        return point
    effort = _effort(study, point.backbone, facts)
    return replace(
        point,
        epochs=1 if point.is_linear else int(nearest(point.epochs, effort["epochs"])),
        resolution=int(nearest(point.resolution, effort["resolution"])),
    )


def _effort(study: Study, backbone: str, facts: BackboneFacts) -> dict[str, Dimension]:
    found = {
        "epochs": study.search.get("epochs", Fixed(study.budget.epochs)),
        "resolution": study.search.get("resolution", Fixed(facts.resolution[backbone])),
    }
    return {name: dimension for name, dimension in found.items() if not isinstance(dimension, PerOptimizer)}


# Messages


def _reasons(left_out: Sequence[_LeftOut]) -> str:
    """The first reason for each key with its number of trials, most frequent first."""
    reasons: dict[str, str] = {}
    for each in left_out:
        reasons.setdefault(each.key, each.why)
    counts = Counter(each.key for each in left_out).most_common()
    return "; ".join(reasons[key] + (f" (one of {n} such)" if n > 1 else "") for key, n in counts)


def _under_way(earlier: Earlier) -> str:
    """The clause on unfinished trials, or ""."""
    n = sum(not trial.state.is_finished() for trial in earlier.trials)
    return f"; {counted(n, 'trial is', 'trials are')} still under way there" if n else ""
