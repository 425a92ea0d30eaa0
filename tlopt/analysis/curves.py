"""Curves of a grid: the objective on validation against one key, for each value of the other keys.

Everything is read from the database; test images are never used. If the grid has recipes, there is a curve
for each. A recipe of several points has the value of its best one, chosen for each seed by the mean over the
other seeds, so that a choice among many points gains nothing by chance.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from tlopt.analysis.shape import Array, Shape, shape_of
from tlopt.errors import NotReady, SpecError
from tlopt.spec import Study
from tlopt.spec.algorithms import GridSampler
from tlopt.spec.dimensions import Fixed, Scalar
from tlopt.spec.objectives import is_fraction
from tlopt.spec.search_keys import RULES, Depth, Word
from tlopt.spec.trial_spec import curve_epochs
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord

EPOCH = "epoch"
RECIPE = "recipe"
_OWN_WORDS: dict[str, Callable[[Any], str]] = {
    "train_images": lambda n: f"{n} images",
    "label_noise": lambda share: f"{100 * share:g} % false labels",
    "freeze_depth": lambda n: f"{n} frozen",
    "transfer_depth": lambda n: f"{n} kept",
    EPOCH: lambda n: f"epoch {n}",
}
TITLES = {
    "train_images": "training images",
    "label_noise": "share of false labels",
    "freeze_depth": "frozen blocks",
    "transfer_depth": "blocks that start from pretrained weights",
    EPOCH: "epoch",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """One curve: the places at which it was measured, ascending, and its values (places, seeds)."""

    keys: Mapping[str, Scalar]  # values of the other keys that vary; the recipe is one of them
    places: tuple[Scalar, ...]  # a single "" if nothing but the recipe varies
    values: Array  # NaN where a run has no value
    train: tuple[
        float, ...
    ]  # mean training accuracy at each place, on labels as trained with; NaN if unknown
    shape: Shape

    @property
    def name(self) -> str:
        """As in "48 images, lr 0.01"; "" for the only curve."""
        return ", ".join(value_name(key, value) for key, value in self.keys.items())


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """All curves of a grid over one key."""

    study: Study
    over: str  # key, `EPOCH`, or "" if nothing but the recipe varies
    curves: tuple[Curve, ...]
    n_val: int  # validation images of a split; 0 if unknown
    n_splits: int  # that seeds take turns at
    n_ended: int  # trials
    n_planned: int
    without_value: Mapping[str, int]  # ended trials without a value, by outcome
    tuned: tuple[str, ...]  # recipes of several points

    @property
    def step(self) -> float:
        """The difference that one validation image makes."""
        return step_of(self.study, self.n_val)

    @property
    def has_recipes(self) -> bool:
        """Whether there is a curve for each recipe."""
        return RECIPE in self.curves[0].keys


def value_name(key: str, value: Scalar) -> str:
    """A value of a key in words, such as "48 images"."""
    if key == RECIPE:
        return str(value)
    return _OWN_WORDS[key](value) if key in _OWN_WORDS else f"{key} {value}"


def key_title(key: str) -> str:
    """A key as the title of an axis."""
    return TITLES.get(key, key)


def step_of(study: Study, n_val: int) -> float:
    """The difference that one of `n_val` validation images makes; 0 for a log-loss."""
    return 1 / n_val if n_val and is_fraction(study.objective) else 0.0


def curves_of(study: Study, opened: optuna.Study, *, over: str = "") -> Curves:
    """The curves of a grid so far.

    Args:
        over: a key with several numbers in this grid, or "epoch"; default: a depth if one varies, else the
            first key with several numbers.

    Raises:
        SpecError: the study is not a grid, or `over` does not vary in it.
        NotReady: no trial is complete yet.
    """
    if not isinstance(study.sampler, GridSampler):
        raise SpecError(
            f'{study.name} is not a grid: curves need sampler.kind = "grid", so that every point has the same'
            " seeds"
        )
    ended = [run for run in map(_Run.of, attributes.trials_of(opened)) if run is not None]
    complete = [run for run in ended if run.record.has_value]
    if not complete:
        raise NotReady(f"{study.name} has no complete trial yet; first: tlopt run or tlopt worker")
    images = opened.user_attrs.get(attributes.IMAGES, {})
    complete = [run.with_all_images(int(images.get("n_train", 0))) for run in complete]
    n_val, varied = int(images.get("n_val", 0)), _varied(study, complete)
    axis = _axis(study, varied, over)
    if study.sampler.recipes:
        groups = _recipe_groups(study, complete, axis)
    else:
        groups = _groups(complete, [key for key in varied if key != axis], axis)
    curves = (_curve(study, keys, cells, train, n_val) for keys, cells, train in groups)
    return Curves(
        study=study,
        over=axis,
        curves=tuple(curve for curve in curves if curve is not None),
        n_val=n_val,
        n_splits=int(images.get("n_splits", 1)),
        n_ended=len(ended),
        n_planned=study.budget.trials_max,
        without_value=Counter(run.record.outcome.words for run in ended if not run.record.has_value),
        tuned=_tuned(complete),
    )


Cells = dict[Scalar, dict[str, dict[int, float]]]  # by place, point and seed
Train = dict[Scalar, list[float]]  # training accuracies by place
Group = tuple[dict[str, Scalar], Cells, Train]  # of one curve, with the values of the other keys


@dataclass(frozen=True, kw_only=True)
class _Run:
    """An ended trial of a grid, with its point and its values by epoch, from 1."""

    record: TrialRecord
    point: Mapping[str, Scalar]
    epochs: Mapping[int, float]

    @classmethod
    def of(cls, trial: optuna.trial.FrozenTrial) -> "_Run | None":
        """The run of an ended trial that a worker has run; None for others."""
        record = TrialRecord.from_frozen(trial)
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and record.ran_here
        if not ended or record.point is None or record.replicate is None:
            return None
        epochs = {step + 1: value for step, value in trial.intermediate_values.items()}
        return cls(record=record, point=record.point, epochs=epochs)

    def with_all_images(self, n_train: int) -> "_Run":
        """The run with the number of training images for 0, which means all."""
        if self.point["train_images"] or not n_train:
            return self
        return _Run(record=self.record, point={**self.point, "train_images": n_train}, epochs=self.epochs)

    @property
    def seed(self) -> int:
        """The number of its seed, from 0."""
        assert self.record.replicate is not None, "a run of a grid has one"
        return self.record.replicate

    @property
    def name(self) -> str:
        """Equal for runs of the same point."""
        return repr(sorted(self.point.items()))


def _varied(study: Study, runs: Sequence[_Run]) -> list[str]:
    """The keys with several values among the points, without those that recipes set; depths first."""
    assert isinstance(study.sampler, GridSampler), "checked above"
    of_recipes = {key for recipe in study.sampler.recipes.values() for key in recipe}
    dimensions = {"backbone": study.model.backbone, **study.search}
    searched = [name for name, dimension in dimensions.items() if not isinstance(dimension, Fixed)]
    several = [name for name in searched if len({run.point[name] for run in runs}) > 1]
    free = [name for name in several if name not in of_recipes]
    order = ["freeze_depth", *(name for name in RULES if isinstance(RULES[name], Depth)), *RULES, "backbone"]
    return sorted(free, key=order.index)


def _axis(study: Study, varied: Sequence[str], over: str) -> str:
    """The key of the horizontal axis.

    Raises:
        SpecError: `over` is not possible; says what is.
    """
    numbers = [key for key in varied if key in RULES and not isinstance(RULES[key], Word)]
    assert isinstance(study.sampler, GridSampler), "checked above"
    allowed = numbers if study.sampler.recipes else [*numbers, EPOCH]
    if over and over not in allowed:
        raise SpecError(
            f"--over {over}: {study.name} has curves over {', '.join(allowed) or 'nothing but its recipes'}"
        )
    return over or next(iter(allowed), "")


def _groups(runs: Sequence[_Run], others: Sequence[str], axis: str) -> list[Group]:
    """Runs by the values of the other keys, then by place."""
    groups: dict[tuple[Scalar, ...], list[_Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.point[key] for key in others), []).append(run)
    ordered = sorted(groups.items(), key=lambda item: [sort_key(value) for value in item[0]])
    return [
        (dict(zip(others, values, strict=True)), _cells(members, axis, name=""), _train(members, axis))
        for values, members in ordered
    ]


def _recipe_groups(study: Study, runs: Sequence[_Run], axis: str) -> list[Group]:
    """Runs by recipe, then by place and point; of several points no training accuracy is of interest."""
    assert isinstance(study.sampler, GridSampler), "checked above"
    members = {name: [run for run in runs if name in run.record.recipes] for name in study.sampler.recipes}
    return [({RECIPE: name}, _cells(of, axis), {}) for name, of in members.items() if of]


def _cells(runs: Sequence[_Run], axis: str, name: str | None = None) -> Cells:
    """Values by place, point and seed.

    Args:
        name: of all points together; None: each has its own.
    """
    cells: Cells = {}
    for run in runs:
        for place, value in _values(run, axis).items():
            cells.setdefault(place, {}).setdefault(run.name if name is None else name, {})[run.seed] = value
    return cells


def _train(runs: Sequence[_Run], axis: str) -> Train:
    """Training accuracies by place: over epochs at each, else at the last."""
    found: Train = {}
    for run in runs:
        known = run.record.train_accuracies
        if axis == EPOCH:
            places: list[tuple[Scalar, float]] = list(known.items())
        else:
            places = [(run.point[axis] if axis else "", known[max(known)])] if known else []
        for place, value in places:
            found.setdefault(place, []).append(value)
    return found


def _values(run: _Run, axis: str) -> dict[Scalar, float]:
    """The run's value at its place; over epochs, at the epochs 1, 2, 4, ... and the last."""
    assert run.record.value is not None, "a complete trial has a value"
    if axis == EPOCH:
        return {epoch: run.epochs[epoch] for epoch in curve_epochs(max(run.epochs)) if epoch in run.epochs}
    return {run.point[axis] if axis else "": run.record.value}


def _tuned(runs: Sequence[_Run]) -> tuple[str, ...]:
    """The recipes with several points that differ in more than the keys outside of recipes."""
    points: dict[str, Counter[tuple[Scalar, ...]]] = {}
    for run in runs:
        for recipe in run.record.recipes:
            place = (run.point["train_images"], run.point["label_noise"], run.seed)
            points.setdefault(recipe, Counter())[place] += 1
    return tuple(recipe for recipe, counts in points.items() if max(counts.values()) > 1)


def _curve(study: Study, keys: dict[str, Scalar], cells: Cells, train: Train, n_val: int) -> Curve | None:
    """The curve of one group; None if no place has a value."""
    seeds = sorted({seed for points in cells.values() for runs in points.values() for seed in runs})
    places = sorted(cells, key=sort_key)
    rows = [chosen_on_others(_matrix(cells[place], seeds), study.direction) for place in places]
    kept = [index for index, row in enumerate(rows) if np.isfinite(row).any()]
    if not kept:
        return None
    values = np.stack([rows[index] for index in kept])
    shape = shape_of(values, higher_is_better=study.direction == "maximize", step=step_of(study, n_val))
    at = tuple(places[index] for index in kept)
    return Curve(
        keys=keys,
        places=at,
        values=values,
        train=tuple(fmean(train[place]) if place in train else math.nan for place in at),
        shape=shape,
    )


def _matrix(points: Mapping[str, Mapping[int, float]], seeds: Sequence[int]) -> Array:
    """Values (points, seeds)."""
    return np.array([[runs.get(seed, np.nan) for seed in seeds] for runs in points.values()])


def chosen_on_others(values: Array, direction: str) -> Array:
    """For each seed, the value (seeds,) of the point that is best by its mean over the other seeds.

    Args:
        values: (points, seeds); of a single point they are returned as they are. NaN for a seed on whose
            others no point has a value.
    """
    if len(values) == 1:
        return np.asarray(values[0], dtype=np.float64)
    better = values if direction == "maximize" else -values
    chosen = np.full(values.shape[1], np.nan)
    for seed in range(values.shape[1]):
        others = np.delete(better, seed, axis=1)
        known = np.isfinite(others)
        sums, n = np.where(known, others, 0.0).sum(axis=1), known.sum(axis=1)
        means = np.where(n > 0, sums / np.maximum(n, 1), -np.inf)
        if n.any():
            chosen[seed] = values[int(np.argmax(means)), seed]
    return chosen


def sort_key(value: Scalar) -> tuple[int, float, str]:
    """A sort key for values of one key: numbers ascending, then strings."""
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")
