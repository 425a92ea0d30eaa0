"""Points with known accuracies, from three recorded experiments: truth for simulated searches.

- `benchmarks/defaults/curves`: five sets, 32 or 33 points each, judged once on 95 to 162 other images;
- `benchmarks/recipes`: six sets, 36 to 38 recipes each (first seed), judged once on 300 test images;
- `benchmarks/peers`: three sets, 42 to 49 points that searches held as their best, judged by three seeds on
  400 test images; they are better than what a search finds on average.

An accuracy of few images is spread more than the truth: each pool is drawn together around its mean, by the
share of the variance that is noise.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defaults.replay import Floats, read

OWN_SHARE = 0.6  # of the binomial variance: a point's own part, the rest is common to all on the same images
CURVES = Path(__file__).parents[1] / "defaults" / "curves"
RECIPES = Path(__file__).parents[1] / "recipes" / "results.jsonl"
PEERS = Path(__file__).parents[1] / "peers" / "first" / "referee.jsonl"
FURTHER = RECIPES.with_name("further.jsonl")
RECIPE_DEFAULTS = ("probe", "train, body 1e-3", "kept")
PARTLY_FROZEN = "last fifth fresh, others frozen"  # the recipe of a search's first further point
CHANCE_MAX = 0.35  # recipes at or below have failed; a search would prune them


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Points of one set of images; the defaults come first."""

    name: str
    true: Floats  # (points,), accuracy in [0, 1]
    n_defaults: int


def pools() -> list[Pool]:
    """All recorded pools."""
    return [*_curves(), *_recipes(), *peers_pools()]


def without_noise(measured: Floats, n_images: int) -> Floats:
    """`measured` accuracies (points,) on `n_images`, drawn together to the spread of the true ones."""
    noise = OWN_SHARE * float(np.mean(measured * (1 - measured))) / n_images
    kept = max(0.0, 1 - noise / float(measured.var(ddof=1)))
    drawn: Floats = measured.mean() + np.sqrt(kept) * (measured - measured.mean())
    return drawn


def own_shares() -> list[float]:
    """Own part of the binomial variance in 5 sets of curves and 12 sets and seeds of recipes.

    The variance over points of the difference between accuracies on validation and on other images, divided
    by the sum of both binomial variances: what all points have in common drops out.
    """
    shares = []
    for file in sorted(CURVES.glob("*.json")):
        recording, images = read(file), json.loads(file.read_text())["images"]
        shares.append(_own_share(recording.curves[:, -1], recording.judge, images["val"], images["judge"]))
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    for row in _rows(RECIPES):
        if (score := _last(row))["test_accuracy"] > CHANCE_MAX:
            found[row["data"], row["seed"]].append(score)
    for scores in found.values():
        val, test = (np.array([score[f"{split}_accuracy"] for score in scores]) for split in ("val", "test"))
        shares.append(_own_share(val, test, 48, 300))
    return shares


def _own_share(val: Floats, other: Floats, n_val: int, n_other: int) -> float:
    both = (n_val * val + n_other * other) / (n_val + n_other)
    binomial = float(np.mean(both * (1 - both))) * (1 / n_val + 1 / n_other)
    return float((val - other).var(ddof=1)) / binomial


def _curves() -> Iterator[Pool]:
    for file in sorted(CURVES.glob("*.json")):
        recording = read(file)
        n_judge = json.loads(file.read_text())["images"]["judge"]
        true = without_noise(recording.judge, n_judge)
        yield Pool(name=f"curves, {recording.name}", true=true, n_defaults=2)


def _recipes() -> Iterator[Pool]:
    return recipe_pools(_rows(RECIPES), RECIPE_DEFAULTS)


def recipe_pools(rows: Iterable[dict[str, Any]], defaults: Sequence[str]) -> Iterator[Pool]:
    """The recipes of each set of images with their first seed, `defaults` first."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["seed"] == 0 and (score := _last(row)["test_accuracy"]) > CHANCE_MAX:
            found[row["data"]][row["recipe"]] = score
    for name, scores in sorted(found.items()):
        order = [*defaults, *(recipe for recipe in scores if recipe not in defaults)]
        true = without_noise(np.array([scores[recipe] for recipe in order]), 300)
        yield Pool(name=f"recipes, {name}", true=true, n_defaults=len(defaults))


def recipes_with_partly_frozen() -> list[dict[str, Any]]:
    """All runs of recipes, those of the partly frozen network among them."""
    further = (row for row in _rows(FURTHER) if row["recipe"] == PARTLY_FROZEN)
    return [*_rows(RECIPES), *further]


def _last(row: dict[str, Any]) -> dict[str, float]:
    """The scores of the weights after the last step; a probe has a single entry."""
    scores: dict[str, dict[str, float]] = row["scores"]
    return scores.get("last") or next(iter(scores.values()))


def peers_pools(*, partly_frozen: bool = False) -> Iterator[Pool]:
    """The points that the peers' searches held as their best.

    Args:
        partly_frozen: The partly frozen network is the last default, and not one of the other points.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows(PEERS):
        found[row["data"]][row["point"]].append(row["accuracy"])
    for name, points in sorted(found.items()):
        known = [each for each in points if _is_default(json.loads(each))]
        if partly_frozen:
            known += [each for each in points if _is_partly_frozen(json.loads(each))]
        order = [*known, *(each for each in points if each not in known)]
        true = without_noise(np.array([np.mean(points[each]) for each in order]), 400)
        yield Pool(name=f"peers, {name}", true=true, n_defaults=len(known))


def _is_default(point: dict[str, Any]) -> bool:
    """Whether `point` is the linear probe or plain fine-tuning of 17 blocks."""
    probe = point["freeze_depth"] == 17 and point["lr"] == 0.01
    plain = point["freeze_depth"] == 0 and point["lr"] == 0.001
    return bool(point["transfer_depth"] == 17 and point["lr_ratio"] == 1 and (probe or plain))


def _is_partly_frozen(point: dict[str, Any]) -> bool:
    """Whether 14 of 17 blocks of `point` are kept and frozen and the others fresh, all else as usual."""
    depths = point["transfer_depth"] == point["freeze_depth"] == 14
    return bool(depths and point["lr_ratio"] == 1 and point["lr"] == 0.001)


def _rows(file: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Recipes of one set of images that were run with two seeds; the defaults come first."""

    name: str
    val: Floats  # (seeds, recipes), accuracy on the same `n_val` images
    test: Floats  # (seeds, recipes), on `n_test` others
    n_defaults: int
    n_val: int = 48
    n_test: int = 300


def twice_measured(
    rows: Iterable[dict[str, Any]] | None = None, defaults: Sequence[str] = RECIPE_DEFAULTS
) -> list[Measured]:
    """Validation and test accuracies of recipes with two seeds that have not failed, by set of images."""
    found: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(_rows(RECIPES) if rows is None else rows, key=lambda row: row["seed"]):
        found[row["data"]][row["recipe"]].append(_last(row))
    return [_measured(name, recipes, defaults) for name, recipes in sorted(found.items())]


def _measured(name: str, recipes: dict[str, list[dict[str, float]]], defaults: Sequence[str]) -> Measured:
    whole = [
        recipe
        for recipe, runs in recipes.items()
        if len(runs) == 2 and min(run["test_accuracy"] for run in runs) > CHANCE_MAX
    ]
    order = [*defaults, *(recipe for recipe in whole if recipe not in defaults)]

    def accuracies(split: str) -> Floats:
        return np.array([[run[f"{split}_accuracy"] for run in recipes[recipe]] for recipe in order]).T

    return Measured(name=name, val=accuracies("val"), test=accuracies("test"), n_defaults=len(defaults))
