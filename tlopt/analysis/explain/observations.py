"""The trials of a search as an array: positions of the keys in their ranges, and values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from tlopt.plots.series import Array, evenly
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Choice, Fixed, Int, Log, Scalar, Uniform
from tlopt.spec.objectives import cost
from tlopt.storage.attributes import TrialRecord, last_values, violations

TRIALS_MAX = 500  # used at most: the best fifth of them, and others evenly spaced
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

Searched = Int | Uniform | Log | Choice | PerOptimizer


@dataclass(frozen=True)
class Key:
    """A searched key of [search], or the backbone. Positions in its range are in [0, 1]."""

    name: str
    dimension: Searched

    @property
    def parameter(self) -> str:
        """The name of its parameter in Optuna."""
        return f"{self.name}_position" if isinstance(self.dimension, PerOptimizer) else self.name

    def position(self, drawn: Scalar) -> float:
        """The position of a parameter's value, not beyond the ends."""
        match self.dimension:
            case Int(low, high):
                found = (float(drawn) - low) / (high - low)
            case Uniform() | Log():
                found = dimensions.position(self.dimension, float(drawn))
            case Choice(options):
                found = options.index(drawn) / (len(options) - 1)
            case PerOptimizer():
                found = float(drawn)
            case _:
                assert_never(self.dimension)
        return min(max(found, 0.0), 1.0)

    def value(self, position: float) -> Scalar:
        """The value at a position, or the nearest; the position itself where the optimizer decides."""
        match self.dimension:
            case Int(low, high):
                return low + round(position * (high - low))
            case Uniform() | Log():
                return dimensions.at(self.dimension, position)
            case Choice(options):
                return options[round(position * (len(options) - 1))]
            case PerOptimizer():
                return position
            case _:
                assert_never(self.dimension)


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """N trials of networks, complete ones first, the best at the top; K keys.

    A pruned trial counts with its last value, at best the median of the complete ones; one that could not be
    trained, or breaks a constraint, as the worst.
    """

    keys: tuple[Key, ...]
    numbers: tuple[int, ...]  # N, of the trials
    positions: Array  # (N, K), in [0, 1]; of depths as far as they have an effect
    goodness: Array  # (N,): the objective, negative if it is minimised
    n_complete: int

    def column(self, name: str) -> Array:
        """The positions (N,) of a key."""
        return self.positions[:, self.index(name)]

    def index(self, name: str) -> int:
        """The column of a key."""
        return [key.name for key in self.keys].index(name)


def observe(study: Study, trials: Sequence[FrozenTrial]) -> Observations:
    """The complete and pruned trials of networks, carried ones included, whose values lie in the ranges."""
    ended = [t for t in trials if t.state in _ENDED and TrialRecord.from_frozen(t).is_network]
    keys = _keys(study, ended)
    used = [t for t in ended if all(_is_in_range(t.params.get(key.parameter), key) for key in keys)]
    complete = np.array([t.state == TrialState.COMPLETE and not violations(t) for t in used], dtype=bool)
    goodness = _goodness(used, complete, study.direction)
    order = np.lexsort((-goodness, ~complete))
    order = order[evenly(len(order), TRIALS_MAX, keep=range(TRIALS_MAX // 5))]
    rows = [[key.position(_effective(key.parameter, used[i], study)) for key in keys] for i in order]
    return Observations(
        keys=keys,
        numbers=tuple(used[i].number for i in order),
        positions=np.array(rows, dtype=np.float64).reshape(len(order), len(keys)),
        goodness=goodness[order],
        n_complete=int(complete[order].sum()),
    )


def _keys(study: Study, ended: Sequence[FrozenTrial]) -> tuple[Key, ...]:
    """The searched keys that trials have: those without effect on the networks are not drawn."""
    drawn = {name for trial in ended for name in trial.params}
    found = [
        Key(name, dimension)
        for name, dimension in {"backbone": study.model.backbone, **study.search}.items()
        if name != "classifier" and not isinstance(dimension, Fixed)
    ]
    return tuple(key for key in found if key.parameter in drawn)


def _is_in_range(drawn: Any, key: Key) -> bool:
    """Whether the search could have drawn the value; users add trials with any."""
    match key.dimension:
        case _ if drawn is None:
            return False
        case Choice(options):
            return drawn in options
        case PerOptimizer():
            return bool(0 <= drawn <= 1)
        case Log(_, high):
            return bool(key.dimension.drawn_low <= drawn <= high)
        case Int(low, high) | Uniform(low, high):
            return bool(low <= drawn <= high)


def _goodness(trials: Sequence[FrozenTrial], complete: Array, direction: str) -> Array:
    def one(trial: FrozenTrial) -> float:
        broken, values = any(value > 0 for value in trial.constraints.values()), last_values(trial)
        return np.nan if broken or not values else -cost(values[0], direction)

    given = np.array([one(trial) for trial in trials], dtype=np.float64)
    if not np.isfinite(given).any():
        return np.zeros(len(given))
    middle = np.median(given[complete]) if complete.any() else np.inf
    given = np.where(complete, given, np.minimum(given, middle))
    return np.where(np.isnan(given), np.nanmin(given), given)


def _effective(name: str, trial: FrozenTrial, study: Study) -> Any:
    """The drawn value, for a depth at most transfer_depth; norm_depth within the frozen blocks is the lowest.

    No depth exceeds backbone_depth. Blocks and fractions are not compared with each other.
    """
    drawn: Any = trial.params[name]
    if name not in ("transfer_depth", "freeze_depth", "anchor_depth", "norm_depth"):
        return drawn
    capped = drawn
    for cap in ("backbone_depth", "transfer_depth"):
        depth = _depth(cap, trial, study, default=1.0)
        capped = min(capped, depth) if type(capped) is type(depth) else capped
    frozen = _depth("freeze_depth", trial, study, default=0)
    idle = name == "norm_depth" and type(frozen) is type(capped) and capped <= frozen
    return type(capped)(0) if idle else capped


def _depth(name: str, trial: FrozenTrial, study: Study, *, default: float) -> Any:
    dimension = study.search.get(name, Fixed(default))
    return dimension.value if isinstance(dimension, Fixed) else trial.params[name]
