"""Curves of grids: the objective on validation against one key, for each value of the other keys.

Everything is read from the database; test images are never used. If the grid has recipes, there is a curve
for each. A recipe of several points has the value of its best one, chosen for each seed by the mean over the
other seeds, so that a choice among many points gains nothing by chance. Several grids are drawn as one, the
study being a further key where the others do not tell them apart.
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
from tlopt.spec.algorithms import GridSampler, Recipe
from tlopt.spec.dimensions import Fixed, Scalar
from tlopt.spec.model_names import split_width
from tlopt.spec.objectives import is_fraction
from tlopt.spec.search_keys import RULES, Depth, Word
from tlopt.spec.trial_spec import curve_epochs
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.system.words import joined

EPOCH = "epoch"
RECIPE = "recipe"
STUDY = "study"
WIDTH = "width"  # the factor in a backbone's name
FITS = 0.99  # training accuracy from which a network is said to interpolate its training images
_OWN_WORDS: dict[str, Callable[[Any], str]] = {
    "train_images": lambda n: f"{n} images",
    "label_noise": lambda share: f"{100 * share:g} % false labels",
    "freeze_depth": lambda n: f"{n} frozen",
    "transfer_depth": lambda n: f"{n} kept",
    WIDTH: lambda factor: f"width {factor:g}",
    "backbone_depth": lambda n: f"{n} used" if n else "all used",
    EPOCH: lambda n: f"epoch {n}",
}
TITLES = {
    "train_images": "training images",
    "label_noise": "share of false labels",
    "freeze_depth": "frozen blocks",
    "transfer_depth": "blocks that start from pretrained weights",
    WIDTH: "width, in the library's channels",
    "backbone_depth": "blocks of the backbone that are used",
    EPOCH: "epoch",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """One curve: the places at which it was measured, ascending, and its values (places, seeds)."""

    keys: Mapping[str, Scalar]  # values of the other keys that vary; the recipe is one of them
    places: tuple[Scalar, ...]  # a single "" if nothing but the recipe varies
    points: tuple[Mapping[str, Scalar], ...]  # the first run's at each place
    n_labels: tuple[int, ...]  # training images times classes at each place; 0 if unknown
    values: Array  # NaN where a run has no value
    choices: tuple[Array, ...]  # the points' values (points, seeds) from which those of each place are chosen
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
    """All curves of a grid, or of several, over one key."""

    study: Study  # the first one
    names: tuple[str, ...]  # of all studies
    over: str  # key, `EPOCH`, or "" if nothing but the recipe varies
    curves: tuple[Curve, ...]
    n_classes: int  # 0 if unknown
    n_val: int  # validation images of a split; 0 if unknown
    n_splits: int  # that seeds take turns at
    n_ended: int  # trials
    n_planned: int
    without_value: Mapping[str, int]  # ended trials without a value, by outcome
    tuned: tuple[str, ...]  # recipes of several points

    @property
    def title(self) -> str:
        """The names of the studies."""
        return joined(self.names, 6)

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
    if key in (RECIPE, STUDY):
        return str(value)
    return _OWN_WORDS[key](value) if key in _OWN_WORDS else f"{key} {value}"


def key_title(key: str) -> str:
    """A key as the title of an axis."""
    return TITLES.get(key, key)


def step_of(study: Study, n_val: int) -> float:
    """The difference that one of `n_val` validation images makes; 0 for a log-loss."""
    return 1 / n_val if n_val and is_fraction(study.objective) else 0.0


def curves_of(*grids: tuple[Study, optuna.Study], over: str = "") -> Curves:
    """The curves of one grid or several so far.

    Args:
        over: a key with several numbers in them, or "epoch"; default: a depth if one varies, else the first
            key with several numbers.

    Raises:
        SpecError: a study is not a grid, `over` does not vary, or the grids cannot be drawn as one.
        NotReady: a grid has no complete trial yet.
    """
    _check_comparable([study for study, _ in grids])
    studies, found = [study for study, _ in grids], [_grid_runs(*grid) for grid in grids]
    complete = [run for runs in found for run in runs if run.record.has_value]
    varied = _varied(studies, complete)
    axis = _axis(studies, varied, over)
    images = [opened.user_attrs.get(attributes.IMAGES, {}) for _, opened in grids]
    n_val = min(int(each.get("n_val", 0)) for each in images)
    if _recipes(studies[0]):
        groups = _recipe_groups(studies[0], complete, axis)
    else:
        groups = _groups(complete, [key for key in varied if key != axis], axis)
    seeds = sorted({run.seed for run in complete})  # of all curves, which are compared seed by seed
    curves = (_curve(studies[0], group, seeds, axis, n_val) for group in groups)
    ended = [run for runs in found for run in runs]
    return Curves(
        study=studies[0],
        names=tuple(study.name for study in studies),
        over=axis,
        curves=tuple(curve for curve in curves if curve is not None),
        n_classes=int(images[0].get("n_classes", 0)),
        n_val=n_val,
        n_splits=max(int(each.get("n_splits", 1)) for each in images),
        n_ended=len(ended),
        n_planned=sum(study.budget.trials_max for study in studies),
        without_value=Counter(run.record.outcome.words for run in ended if not run.record.has_value),
        tuned=_tuned(complete),
    )


def _check_comparable(studies: Sequence[Study]) -> None:
    for study in studies:
        if not study.is_grid:
            raise SpecError(
                f'{study.name} is not a grid: curves need sampler.kind = "grid", so that every point has the'
                " same seeds"
            )
        if len(studies) > 1 and _recipes(study):
            raise SpecError(f"{study.name} has recipes, which are compared within one grid: draw it alone")
        if study.objective != studies[0].objective:
            raise SpecError(
                f"{study.name} has the objective {study.objective} and {studies[0].name}"
                f" {studies[0].objective}: draw them one by one"
            )
    if twice := [name for name, n in Counter(study.name for study in studies).items() if n > 1]:
        raise SpecError(f"{twice[0]} is named twice")


def _recipes(study: Study) -> Mapping[str, Recipe]:
    assert isinstance(study.sampler, GridSampler), "checked above"
    return study.sampler.recipes


def _grid_runs(study: Study, opened: optuna.Study) -> "list[_Run]":
    """The ended runs of a grid, of which one at least has a value."""
    images = opened.user_attrs.get(attributes.IMAGES, {})
    n_train, n_classes = int(images.get("n_train", 0)), int(images.get("n_classes", 0))
    found = (_Run.of(trial, study.name, n_train, n_classes) for trial in attributes.trials_of(opened))
    runs = [run for run in found if run is not None]
    if not any(run.record.has_value for run in runs):
        raise NotReady(f"{study.name} has no complete trial yet; first: tlopt run or tlopt worker")
    return runs


Cells = dict[Scalar, dict[str, dict[int, float]]]  # by place, point and seed
Group = tuple[dict[str, Scalar], "list[_Run]", Cells]  # of one curve, with the values of the other keys


@dataclass(frozen=True, kw_only=True)
class _Run:
    """An ended trial of a grid, with its point and its values by epoch, from 1."""

    record: TrialRecord
    point: Mapping[str, Scalar]  # with the name of the study and the width
    epochs: Mapping[int, float]
    n_labels: int  # training images times classes; 0 if unknown

    @classmethod
    def of(cls, trial: optuna.trial.FrozenTrial, study: str, n_train: int, n_classes: int) -> "_Run | None":
        """The run of an ended trial that a worker has run; None for others.

        Args:
            n_train: number of all training images, which a point has as 0.
        """
        record = TrialRecord.from_frozen(trial)
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and record.ran_here
        if not ended or record.point is None or record.replicate is None:
            return None
        n_images = int(record.point["train_images"]) or n_train
        width = split_width(str(record.point["backbone"]))[1]
        return cls(
            record=record,
            point={
                **_with_all_blocks(record.point, trial.params),
                "train_images": n_images,
                STUDY: study,
                WIDTH: width,
            },
            epochs={step + 1: value for step, value in attributes.curve_of(trial).items()},
            n_labels=n_images * n_classes,
        )

    @property
    def seed(self) -> int:
        """The number of its seed, from 0."""
        assert self.record.replicate is not None, "a run of a grid has one"
        return self.record.replicate

    @property
    def name(self) -> str:
        """Equal for runs of the same point."""
        return repr(sorted(self.point.items()))


def _with_all_blocks(point: Mapping[str, Scalar], params: Mapping[str, Any]) -> Mapping[str, Scalar]:
    """The point with the number of the backbone's blocks for 0, which means all, if it is known.

    It was drawn as such, or all blocks start from pretrained weights, as they do by default.
    """
    if point["backbone_depth"] or "backbone_depth" not in params:
        return point
    drawn = params["backbone_depth"]
    known = point["transfer_depth"] if "transfer_depth" not in params else 0
    return {**point, "backbone_depth": drawn if isinstance(drawn, int) else known}


def _varied(studies: Sequence[Study], runs: Sequence[_Run]) -> list[str]:
    """The keys with several values among the points, without those that recipes set.

    Depths come first, then the study, where the other keys do not tell the studies apart, and the network:
    its width if nothing else of it varies.
    """
    of_recipes = {key for recipe in _recipes(studies[0]).values() for key in recipe}
    searched = {
        name
        for study in studies
        for name, dimension in {"backbone": study.model.backbone, **study.search}.items()
        if not isinstance(dimension, Fixed) and name not in of_recipes
    }
    if len(studies) > 1:
        searched.add("backbone")
    if "backbone" in searched:
        searched.add(WIDTH)
    several = {name for name in searched if len({run.point[name] for run in runs}) > 1}
    if WIDTH in several:
        names = {split_width(str(run.point["backbone"]))[0] for run in runs}
        several.discard("backbone" if len(names) == 1 else WIDTH)
    order = ["freeze_depth", *(name for name in RULES if isinstance(RULES[name], Depth))]
    order += [STUDY, WIDTH, "backbone", *RULES]
    owners: dict[tuple[Scalar, ...], set[Scalar]] = {}
    for run in runs:
        owners.setdefault(tuple(run.point[key] for key in sorted(several)), set()).add(run.point[STUDY])
    return sorted(
        several | ({STUDY} if any(len(of) > 1 for of in owners.values()) else set()), key=order.index
    )


def _axis(studies: Sequence[Study], varied: Sequence[str], over: str) -> str:
    """The key of the horizontal axis.

    Raises:
        SpecError: `over` is not possible; says what is.
    """
    numbers = [key for key in varied if key == WIDTH or (key in RULES and not isinstance(RULES[key], Word))]
    allowed = numbers if _recipes(studies[0]) else [*numbers, EPOCH]
    if over and over not in allowed:
        names = joined([study.name for study in studies], 6)
        raise SpecError(
            f"--over {over}: {names} {'has' if len(studies) == 1 else 'have'} curves over"
            f" {', '.join(allowed) or 'nothing but recipes'}"
        )
    return over or next(iter(allowed), "")


def _groups(runs: Sequence[_Run], others: Sequence[str], axis: str) -> list[Group]:
    """Runs by the values of the other keys, then by place; studies as they were named."""
    named = list(dict.fromkeys(run.point[STUDY] for run in runs))

    def in_order(values: tuple[Scalar, ...]) -> list[tuple[int, float, str]]:
        pairs = zip(others, values, strict=True)
        return [sort_key(named.index(value) if key == STUDY else value) for key, value in pairs]

    groups: dict[tuple[Scalar, ...], list[_Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.point[key] for key in others), []).append(run)
    ordered = sorted(groups.items(), key=lambda item: in_order(item[0]))
    return [
        (dict(zip(others, values, strict=True)), members, _cells(members, axis, name=""))
        for values, members in ordered
    ]


def _recipe_groups(study: Study, runs: Sequence[_Run], axis: str) -> list[Group]:
    """Runs by recipe, then by place and point."""
    members = {name: [run for run in runs if name in run.record.recipes] for name in _recipes(study)}
    return [({RECIPE: name}, of, _cells(of, axis)) for name, of in members.items() if of]


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


def _train(runs: Sequence[_Run], axis: str) -> dict[Scalar, list[float]]:
    """Training accuracies by place: over epochs at each, else at the last."""
    found: dict[Scalar, list[float]] = {}
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


def _curve(study: Study, group: Group, seeds: Sequence[int], axis: str, n_val: int) -> Curve | None:
    """The curve of one group; None if no place has a value."""
    keys, runs, cells = group
    places = sorted(cells, key=sort_key)
    choices = [_matrix(cells[place], seeds) for place in places]
    rows = [chosen_on_others(each, study.direction) for each in choices]
    kept = [index for index, row in enumerate(rows) if np.isfinite(row).any()]
    if not kept:
        return None
    values = np.stack([rows[index] for index in kept])
    at = tuple(places[index] for index in kept)
    # of several points in a recipe no training accuracy is of interest
    train = {} if RECIPE in keys else _train(runs, axis)
    first = {place: run for run in reversed(runs) for place in _values(run, axis)}
    return Curve(
        keys=keys,
        places=at,
        points=tuple(first[place].point for place in at),
        n_labels=tuple(first[place].n_labels for place in at),
        values=values,
        choices=tuple(choices[index] for index in kept),
        train=tuple(fmean(train[place]) if place in train else math.nan for place in at),
        shape=shape_of(values, higher_is_better=study.direction == "maximize", step=step_of(study, n_val)),
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
