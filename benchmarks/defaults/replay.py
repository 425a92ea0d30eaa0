"""Recorded learning curves, and pruners replayed on them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from tlopt.search.samplers import make_pruner
from tlopt.spec.algorithms import Pruner

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The points of one data set; arrays over points, accuracies in [0, 1]."""

    name: str
    n_val: int
    params: list[dict[str, Any]]
    curves: Floats  # (points, epochs): accuracy on val
    judge: Floats  # accuracy on other images, after the last epoch
    pooled: Floats  # accuracy on both together: the best estimate of a point's quality

    @property
    def slow(self) -> NDArray[np.bool_]:
        """Points with five fresh blocks or more, or a rate in the lowest third of the range."""
        rate = np.array([p["lr"] for p in self.params])
        fresh = np.array([17 - p["transfer_depth"] for p in self.params])
        return (fresh >= 5) | (rate < 5.8e-4)


def read(file: Path) -> Recording:
    """The recording in `file`; points that diverged are left out."""
    raw = json.loads(file.read_text())
    rows = [row for row in raw["points"] if row["judge"] is not None]
    n_val, n_judge = raw["images"]["val"], raw["images"]["judge"]
    curves = np.array([row["accuracy"] for row in rows])
    judge = np.array([row["judge"] for row in rows])
    return Recording(
        name=raw["data"],
        n_val=n_val,
        params=[row["params"] for row in rows],
        curves=curves,
        judge=judge,
        pooled=(n_val * curves[:, -1] + n_judge * judge) / (n_val + n_judge),
    )


@dataclass(frozen=True)
class Replay:
    """The decisions of one pruner on one order of the points; arrays in that order."""

    order: NDArray[np.int64]
    epochs: NDArray[np.int64]  # trained until the end or until pruned
    complete: NDArray[np.bool_]


def replay(curves: Floats, order: NDArray[np.int64], pruner: Pruner | BasePruner, name: str) -> Replay:
    """`pruner` on the points in `order`; the first two are the defaults, which the service never prunes.

    Args:
        pruner: of a study file, or one of Optuna's that study files do not have.
    """
    n_epochs = curves.shape[1]
    study = optuna.create_study(
        study_name=name,  # Hyperband's bracket depends on it
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruner if isinstance(pruner, BasePruner) else make_pruner(pruner, epochs_max=n_epochs),
    )
    spent = []
    for position, point in enumerate(order):
        trial = study.ask()
        epoch, pruned = 0, False
        for epoch, value in enumerate(curves[point]):
            trial.report(float(value), epoch)
            pruned = position >= 2 and epoch + 1 < n_epochs and trial.should_prune()
            if pruned:
                break
        study.tell(trial, None if pruned else float(value), TrialState.PRUNED if pruned else None)
        spent.append(epoch + 1)
    complete = [t.state == TrialState.COMPLETE for t in study.get_trials(deepcopy=False)]
    return Replay(order, np.array(spent), np.array(complete))


def replays(recording: Recording, pruner: Pruner | BasePruner, n_orders: int) -> list[Replay]:
    """One replay for each shuffled order; the defaults come first in all of them."""
    n = len(recording.curves)
    orders = [np.r_[:2, 2 + np.random.default_rng(i).permutation(n - 2)] for i in range(n_orders)]
    return [replay(recording.curves, order, pruner, f"order {i}") for i, order in enumerate(orders)]


def at_trials(recording: Recording, run: Replay, n_trials: int) -> dict[str, float]:
    """Measures after `n_trials` trials.

    `share` is the epochs spent, in % of those without pruning; `regret` the points of accuracy by which the
    best complete trial falls short of the best trial; `judge` the same two trials compared on the other
    images; `lost` 100 if the best trial was pruned, else 0.
    """
    final = recording.curves[run.order, -1][:n_trials]
    kept = np.flatnonzero(run.complete[:n_trials])
    picked, best = kept[final[kept].argmax()], final.argmax()
    judge = recording.judge[run.order]
    return {
        "share": 100 * float(run.epochs[:n_trials].sum() / (n_trials * recording.curves.shape[1])),
        "regret": 100 * float(final[best] - final[picked]),
        "lost": 100 * float(final[picked] < final[best]),
        "judge": 100 * float(judge[best] - judge[picked]),
    }


def at_epochs(recording: Recording, run: Replay, n_full: int) -> dict[str, float]:
    """Number of trials for the epochs of `n_full` full trials, and how much better their best is."""
    affordable = run.epochs.cumsum() <= n_full * recording.curves.shape[1]
    kept = np.flatnonzero(affordable & run.complete)
    final, judge = recording.curves[run.order, -1], recording.judge[run.order]
    picked, unpruned = kept[final[kept].argmax()], final[:n_full].argmax()
    return {
        "trials": float(affordable.sum()),
        "val": 100 * float(final[picked] - final[unpruned]),
        "judge": 100 * float(judge[picked] - judge[unpruned]),
    }


def good_pruned(recording: Recording, run: Replay) -> dict[str, float]:
    """Shares of good points (best quarter on all validation images) that were pruned, in %; nan for none."""
    pruned = np.zeros(len(run.order), dtype=bool)
    pruned[run.order] = ~run.complete
    good = recording.pooled >= np.quantile(recording.pooled, 0.75)
    good[:2] = False  # the defaults are never pruned
    groups = {"slow": good & recording.slow, "other": good & ~recording.slow}
    return {name: 100 * float(pruned[g].mean()) if g.any() else np.nan for name, g in groups.items()}
