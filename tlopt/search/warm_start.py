"""A warm start: what a new study takes over from the trials of an earlier one, or from an export.

Where a value means the same in both studies (images, split, objective and every setting but the ranges), the
trials are carried over: added as finished ones, which inform the sampler and the pruner and use up no budget.
Where it does not, their best points alone are: enqueued, to be trained again as ordinary trials.

What is taken over is decided once, by whoever makes the study, and stored with it. Each trial is then added
in a transaction that looks whether it is there, so that workers may all do so at once, or after one another.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial

from tlopt.errors import Refused
from tlopt.model.facts import Limits
from tlopt.search.defaults import nearest
from tlopt.search.space import (
    Params,
    depth_value,
    encode_point,
    norm_value,
    resolve,
    search_space,
    without_idle_keys,
)
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.differences import differences, incomparable
from tlopt.spec.dimensions import Choice, Dimension, Fixed, bounds, written
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.spec.search_keys import LINEAR_KEYS, NORM_KEYS, RULES, Depth
from tlopt.storage import attributes, optuna_private, studies
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, TrialRecord, best_first
from tlopt.system.words import counted

# Of more trials than this the best half and the newest: a Gaussian process takes time with their cube, TPE
# takes at most 25 as good ones, and each is one round trip to the database before the first trial starts.
CARRIED_MAX = 100
# Points to train again: a quarter of the budget at most, for they search nothing.
ENQUEUED_MAX = 5
ENQUEUED_SHARE = 0.25

# Pruned trials are carried over, with their reports: without them the sampler would take the regions that the
# earlier study gave up for untried ones. Diverged ones say the same of their point. Out of memory, timed out
# and crashed ones say something of a machine or a limit, which may be another now.
_CARRIED_OUTCOMES = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.CARRIED)


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier study as its database has it."""

    study: Study
    trials: Sequence[FrozenTrial]
    began: float | None  # by the database's clock: tells it from another study that gets its name
    semantics: int
    facts: Mapping[str, str]  # as `Workspace.facts`

    def origin(self, trial: FrozenTrial) -> dict[str, Any]:
        """The study and the number under which `trial` was run."""
        own = {"study": self.study.name, "trial": trial.number, "began": self.began}
        return dict(trial.user_attrs[attributes.ORIGIN]) if attributes.is_carried(trial) else own


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """The trials and points that a study takes over, as stored with it."""

    source: str  # the study file's warm_start
    began: float | None  # of the earlier study
    carried: tuple[int, ...]  # numbers of its trials that are carried over
    enqueued: tuple[dict[str, Any], ...]  # {"origin", "params"} of points that are trained again
    said: str  # all of it in one sentence

    def as_attribute(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "from": self.source,
            "began": self.began,
            "carried": list(self.carried),
            "enqueued": list(self.enqueued),
            "said": self.said,
        }

    @classmethod
    def from_attribute(cls, stored: Mapping[str, Any]) -> Self:
        """The record that `as_attribute` wrote."""
        return cls(
            source=stored["from"],
            began=stored["began"],
            carried=tuple(stored["carried"]),
            enqueued=tuple(stored["enqueued"]),
            said=stored["said"],
        )


@dataclass(frozen=True)
class _LeftOut:
    """The reason why a trial is not taken over."""

    key: str  # that it fails by
    why: str


def from_study(
    earlier: Earlier,
    study: Study,
    limits: Limits,
    *,
    facts: Mapping[str, str],
    semantics: int,
    initial_points: Sequence[Params],
) -> WarmStart:
    """The warm start of `study` from `earlier`; trials that are still running stay there.

    Args:
        facts: of the new study, see `Workspace.facts`.
        semantics: of this version of tlopt.
        initial_points: of the new study; none of them is enqueued beside itself.
    """
    study = without_idle_keys(study, limits)
    settings = [*incomparable(earlier.study, study), *_other_facts(earlier, study, facts)]
    if earlier.semantics != semantics:
        settings.append(f"'{earlier.study.name}' was begun by another version of tlopt")
    trials = [trial for trial in earlier.trials if trial.state.is_finished()]
    comparable = [trial for trial in trials if _lasts_alike(trial, study, limits)]
    if not settings and not comparable:
        settings.append("its trials have other epochs or another resolution")
    if settings:
        return _points_of(earlier, study, limits, settings, initial_points)
    return _values_of(earlier, trials, study, limits)


def from_point(
    folder: str, point: Point, study: Study, limits: Limits, *, initial_points: Sequence[Params]
) -> WarmStart:
    """The warm start of `study` from an export: its point, to be trained again.

    Raises:
        Refused: the point lies outside of the study's ranges; says where.
    """
    study = without_idle_keys(study, limits)
    adapted = _adapted(point, study, limits)
    if left_out := _obstacle(adapted, study, limits):
        raise Refused(f"the point of {folder} is no point of this search: {left_out.why}")
    params = encode_point(adapted, study, limits)
    assert params is not None, "nothing is in its way"
    origin = {"study": folder, "trial": None, "began": None}
    tried = params in list(initial_points)
    said = f"the point of the export {folder} is trained again" + (
        ", as an initial point of every search" if tried else ""
    )
    enqueued = () if tried else ({"origin": origin, "params": params},)
    return WarmStart(source=folder, began=None, carried=(), enqueued=enqueued, said=said)


def n_missing(opened: optuna.Study, warm: WarmStart) -> int:
    """Number of trials of `warm` that are not in the study yet."""
    return max(0, len(warm.carried) + len(warm.enqueued) - len(_origins(opened)))


def carry_over(opened: optuna.Study, warm: WarmStart, earlier: Earlier, study: Study, limits: Limits) -> None:
    """Add to `opened` the carried trials that it has not yet, in the order of their numbers."""
    study = without_idle_keys(study, limits)
    there = _origins(opened)
    for trial in earlier.trials:
        origin = earlier.origin(trial)
        if trial.number in warm.carried and origin not in there:
            carried = _carried(trial, origin, study, limits)
            _add_once(opened, origin, partial(opened.add_trial, carried))


def enqueue(opened: optuna.Study, warm: WarmStart) -> None:
    """Enqueue the points to be trained again that the study has not yet."""
    there = _origins(opened)
    for origin, params in ((row["origin"], row["params"]) for row in warm.enqueued):
        if origin not in there:
            note = f"the point of {attributes.origin_words(origin)}, by warm_start"
            attrs = {attributes.ORIGIN: origin, attributes.NOTES: [note]}
            _add_once(opened, origin, partial(opened.enqueue_trial, params, user_attrs=attrs))


def _origins(opened: optuna.Study) -> list[dict[str, Any]]:
    trials = opened.get_trials(deepcopy=False)
    return [trial.user_attrs[attributes.ORIGIN] for trial in trials if attributes.ORIGIN in trial.user_attrs]


def _add_once(opened: optuna.Study, origin: dict[str, Any], add: Callable[[], None]) -> None:
    service = studies.service_of(optuna_private.storage_of(opened))
    service.add_once(optuna_private.study_id(opened), attributes.ORIGIN, origin, add)


def _carried(trial: FrozenTrial, origin: dict[str, Any], study: Study, limits: Limits) -> FrozenTrial:
    """`trial` as the new study has it."""
    record = TrialRecord.from_frozen(trial)
    assert record.point is not None, "it was chosen by its point"
    params = encode_point(Point.stored(record.point, attributes.origin_words(origin)), study, limits)
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
            attributes.CARRIED: {"point": record.point, "metrics": record.metrics},
        },
    )


# What is taken over


def _values_of(earlier: Earlier, trials: Sequence[FrozenTrial], study: Study, limits: Limits) -> WarmStart:
    left_out: list[_LeftOut] = []
    fitting: list[TrialRecord] = []
    for record in map(TrialRecord.from_frozen, trials):
        obstacle = _why_unfit(record, earlier, study, limits)
        if obstacle is None:
            fitting.append(record)
        else:
            left_out.append(obstacle)
    kept = _best_and_newest(fitting, study.direction)
    left_out += [_LeftOut("", f"beyond the {CARRIED_MAX} best and newest")] * (len(fitting) - len(kept))
    said = f"{counted(len(kept), 'trial')} of '{earlier.study.name}' carried over"
    if left_out:
        said += f", {len(left_out)} left out: {_reasons(left_out)}"
    return WarmStart(
        source=earlier.study.name,
        began=earlier.began,
        carried=tuple(kept),
        enqueued=(),
        said=said + _under_way(earlier),
    )


def _points_of(
    earlier: Earlier,
    study: Study,
    limits: Limits,
    settings: Sequence[str],
    initial_points: Sequence[Params],
) -> WarmStart:
    records = [TrialRecord.from_frozen(trial) for trial in earlier.trials]
    by_number = {trial.number: trial for trial in earlier.trials}
    n_max = min(ENQUEUED_MAX, max(1, int(ENQUEUED_SHARE * study.budget.trials)))
    known, enqueued, left_out = list(initial_points), list[dict[str, Any]](), list[_LeftOut]()
    for record in best_first(records, earlier.study.direction):
        if len(enqueued) == n_max:
            break
        point = _adapted(_point_of(record, earlier), study, limits)
        obstacle = _obstacle(point, study, limits)
        params = None if obstacle else encode_point(point, study, limits)
        if obstacle:
            left_out.append(obstacle)
        elif params is not None and params not in known:
            known.append(params)
            enqueued.append({"origin": earlier.origin(by_number[record.number]), "params": params})
    said = f"values of '{earlier.study.name}' are not carried over ({'; '.join(settings)})"
    best = "its best point is" if len(enqueued) == 1 else f"its {len(enqueued)} best points are"
    said += f"; {best} trained again" if enqueued else "; none of its points is new to this search"
    if left_out:
        said += f"; {len(left_out)} left out: {_reasons(left_out)}"
    return WarmStart(
        source=earlier.study.name,
        began=earlier.began,
        carried=(),
        enqueued=tuple(enqueued),
        said=said + _under_way(earlier),
    )


def _best_and_newest(records: Sequence[TrialRecord], direction: str) -> list[int]:
    """Numbers of the trials that are carried over, at most `CARRIED_MAX`, in order."""
    if len(records) <= CARRIED_MAX:
        return [record.number for record in records]
    best = [record.number for record in best_first(records, direction)][: CARRIED_MAX // 2]
    newest = sorted({record.number for record in records} - set(best))
    return sorted([*best, *newest[len(best) - CARRIED_MAX :]])


def _why_unfit(record: TrialRecord, earlier: Earlier, study: Study, limits: Limits) -> _LeftOut | None:
    if record.outcome == Outcome.ADDED or (record.point is None and record.outcome in _CARRIED_OUTCOMES):
        return _LeftOut("point", "not run by tlopt")
    if record.outcome not in _CARRIED_OUTCOMES:
        return _LeftOut(record.outcome, f"ended as {record.outcome.words}")
    return _obstacle(_point_of(record, earlier), study, limits)


def _point_of(record: TrialRecord, earlier: Earlier) -> Point:
    return Point.stored(record.point, f"trial {record.number} of {earlier.study.name}")


def _other_facts(earlier: Earlier, study: Study, facts: Mapping[str, str]) -> list[str]:
    """Images and pretrained weights that are not the same; weights of networks that both studies have."""
    before, here = _by_backbone(earlier.study, earlier.facts), _by_backbone(study, facts)
    both = before.keys() & here.keys()
    return differences(
        {"images": earlier.facts.get("data"), **{name: before[name] for name in both}},
        {"images": facts["data"], **{name: here[name] for name in both}},
        owner=f"'{earlier.study.name}'",
    )


def _by_backbone(study: Study, facts: Mapping[str, str]) -> dict[str, str]:
    """The digest of each backbone's weights, which a fact has in the order of their names."""
    digests = facts.get("weights", "").split("+")
    names = sorted(study.model.backbones)
    return {f"weights of {name}": digest for name, digest in zip(names, digests, strict=False)}


# One point in the new space


def _obstacle(point: Point, study: Study, limits: Limits) -> _LeftOut | None:
    """The reason why the search cannot draw the point; None where it can."""
    if point.backbone not in study.model.backbones:
        return _LeftOut("backbone", f"backbone {point.backbone} is not in this search")
    values = asdict(point)
    for name, dimension in study.search.items():
        if point.is_linear and name not in LINEAR_KEYS:
            continue
        one = getattr(dimension, point.optimizer) if isinstance(dimension, PerOptimizer) else dimension
        if not _has(one, name, point, limits):
            blocks = " blocks" if isinstance(RULES[name], Depth) else ""
            return _LeftOut(name, f"{name} {_short(values[name])}{blocks} {_outside(one)}")
    given = {name: values[name] for name in study.search}
    here = asdict(resolve(given, point.backbone, study.budget.epochs, limits))
    for name, value in here.items():
        if value != values[name]:
            return _LeftOut(name, f"{name} {_short(values[name])} is {_short(value)} here")
    if encode_point(point, study, limits) is None:
        return _LeftOut("point", "no point of this search")
    return None


def _has(dimension: Dimension, name: str, point: Point, limits: Limits) -> bool:
    value = getattr(point, name)
    if name in NORM_KEYS:
        value = norm_value(name, point, dimension, limits)
        return value is not None and dimensions.contains(dimension, value)
    if isinstance(RULES[name], Depth):
        return depth_value(value, dimension, limits.n_blocks[point.backbone]) is not None
    return dimensions.contains(dimension, value)


def _outside(dimension: Dimension) -> str:
    if isinstance(dimension, Fixed):
        return f"is {_short(dimension.value)} here"
    if isinstance(dimension, Choice):
        return f"is none of {', '.join(map(_short, dimension.options))}"
    *off, low, high = sorted(bounds(dimension))  # numbers, for it is a range
    return f"lies outside {low:g} to {high:g}" + (", or off" if off else "")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else written(value)


def _lasts_alike(trial: FrozenTrial, study: Study, limits: Limits) -> bool:
    """Whether the new study has trials of as many epochs and as many pixels; True where that is not known."""
    point = TrialRecord.from_frozen(trial).point
    if point is None or point["backbone"] not in limits.resolution:
        return True
    return all(
        dimensions.contains(dimension, point[name])
        for name, dimension in _effort(study, point["backbone"], limits).items()
    )


def _adapted(point: Point, study: Study, limits: Limits) -> Point:
    """`point` with the new study's epochs and resolution, where it does not have them itself."""
    if point.backbone not in limits.resolution:
        return point
    effort = _effort(study, point.backbone, limits)
    return replace(
        point,
        epochs=1 if point.is_linear else int(nearest(point.epochs, effort["epochs"])),
        resolution=int(nearest(point.resolution, effort["resolution"])),
    )


def _effort(study: Study, backbone: str, limits: Limits) -> dict[str, Dimension]:
    found = {
        "epochs": study.search.get("epochs", Fixed(study.budget.epochs)),
        "resolution": study.search.get("resolution", Fixed(limits.resolution[backbone])),
    }
    return {name: dimension for name, dimension in found.items() if not isinstance(dimension, PerOptimizer)}


# In words


def _reasons(left_out: Sequence[_LeftOut]) -> str:
    """The first reason for each key, and the number of trials it holds for, most frequent first."""
    said: dict[str, str] = {}
    for each in left_out:
        said.setdefault(each.key, each.why)
    counts = Counter(each.key for each in left_out).most_common()
    return "; ".join(said[key] + (f" (one of {n} such)" if n > 1 else "") for key, n in counts)


def _under_way(earlier: Earlier) -> str:
    """The clause on trials that have not ended; "" for none."""
    n = sum(not trial.state.is_finished() for trial in earlier.trials)
    return f"; {counted(n, 'trial is', 'trials are')} still under way there" if n else ""
