"""Trials that pause and are promoted, against pruners that stop them for good, on recorded curves.

python -m benchmarks.defaults.promotion benchmarks/defaults/curves/*.json --orders 100
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.defaults.replay import Recording, read, replay
from tlopt.search.promotion import Promotion
from tlopt.spec.algorithms import MedianPruner, NoPruner, PromotionPruner
from tlopt.storage import attributes

Order = NDArray[np.int64]
Spent = Callable[[Recording, Order, int], list[tuple[int, list[int]]]]
N_DEFAULTS = 2  # the first points of every order are trained to their end


def with_pauses(pruner: PromotionPruner) -> Spent:
    """A search of one worker whose trials pause."""

    def search(recording: Recording, order: Order, n_trials: int) -> list[tuple[int, list[int]]]:
        rule = Promotion(pruner=pruner, direction="maximize")
        n_epochs = recording.curves.shape[1]
        point = {"classifier": "network", "epochs": n_epochs}
        trials: list[FrozenTrial] = []
        spent = 0
        complete: list[int] = []
        course = [(spent, complete)]
        while following := rule.next_trial(trials, n_trials=n_trials, may_begin=True):
            if following.ends:
                _set(following.trials[0], TrialState.PRUNED)
                continue
            if following.trials:
                one = following.trials[0]
                one.state = TrialState.RUNNING
            else:
                one = create_trial(state=TrialState.RUNNING, user_attrs={attributes.POINT: point})
                one.number = len(trials)
                trials.append(one)
            while one.state == TrialState.RUNNING:
                epoch = len(one.intermediate_values)
                one.intermediate_values[epoch] = float(recording.curves[order[one.number], epoch])
                spent += 1
                if epoch + 1 == n_epochs:
                    _set(one, TrialState.COMPLETE)
                    complete = [*complete, one.number]
                    course.append((spent, complete))
                elif one.number >= N_DEFAULTS and epoch + 1 in rule.rungs(n_epochs):
                    match rule.at_rung(trials, one.number, epoch + 1, n_trials):
                        case "prune":
                            _set(one, TrialState.PRUNED)
                        case "pause":
                            one.state = TrialState.WAITING
                            one.user_attrs[attributes.PROMOTION] = {"paused": epoch + 1}
        course.append((spent, complete))
        return course

    return search


def _set(one: FrozenTrial, state: TrialState) -> None:
    one.state, one.user_attrs[attributes.TRIAL_RESULT] = state, {"outcome": state.name.lower()}


def with_pruner(pruner: MedianPruner | NoPruner) -> Spent:
    """A search whose trials are pruned for good."""

    def search(recording: Recording, order: Order, n_trials: int) -> list[tuple[int, list[int]]]:
        run = replay(recording.curves, order[:n_trials], pruner, "promotion")
        spent = run.epochs.cumsum()
        done = [i for i in range(n_trials) if run.complete[i]]
        course = [(int(spent[last]), done[: k + 1]) for k, last in enumerate(done)]
        return [(0, []), *course, (int(spent[-1]), done)]

    return search


SEARCHES: dict[str, Spent] = {
    "none": with_pruner(NoPruner(kind="none")),
    "median, min_epochs 4": with_pruner(MedianPruner(min_epochs=4)),
    "median, min_epochs 2": with_pruner(MedianPruner(min_epochs=2)),
    **{
        f"promotion, min_epochs {first}, factor {factor}": with_pauses(
            PromotionPruner(kind="promotion", min_epochs=first, reduction_factor=factor)
        )
        for first, factor in ((1, 2), (1, 3), (2, 2), (2, 3), (4, 2))
    },
}


def chosen(recording: Recording, order: Order, complete: Sequence[int]) -> int:
    """The point with the best last value of those that were trained to their end."""
    points = order[list(complete)]
    return int(points[recording.curves[points, -1].argmax()])


def losses(recording: Recording, point: int) -> NDArray[np.float64]:
    """Points of accuracy by which `point` is behind the best one: on val, and on all validation images."""
    final, pooled = recording.curves[:, -1], recording.pooled
    return 100 * np.array([final.max() - final[point], pooled.max() - pooled[point]])


def main() -> None:
    """Print the loss for equal numbers of trials and of epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="recorded curves")
    parser.add_argument("--orders", type=int, default=100, help="shuffled orders of each set's points")
    given = parser.parse_args()
    recordings = [read(file) for file in given.files]
    print("| pruner | epochs | " + " | ".join(r.name for r in recordings) + " | mean on val | on all |")
    print("| --- " * (len(recordings) + 4) + "|")
    for budget, n_trials in ((80, 0), (120, 0), (0, 20), (0, 30)):
        for name, search in SEARCHES.items():
            rows = [_mean_losses(each, search, given.orders, budget, n_trials) for each in recordings]
            spent = np.mean([epochs for epochs, _ in rows])
            cells = [f"{loss[0]:.1f}" for _, loss in rows]
            val, pooled = np.mean([loss for _, loss in rows], axis=0)
            limit = f"{budget} epochs" if budget else f"{n_trials} trials"
            print(f"| {limit}: {name} | {spent:.0f} | {' | '.join(cells)} | {val:.2f} | {pooled:.2f} |")


def _mean_losses(
    recording: Recording, search: Spent, orders: int, budget: int, n_trials: int
) -> tuple[float, NDArray[np.float64]]:
    n = len(recording.curves)
    found = []
    for i in range(orders):
        draws = np.random.default_rng(i)
        order = np.r_[:N_DEFAULTS, N_DEFAULTS + draws.permutation(n - N_DEFAULTS)]
        course = search(recording, order, n_trials or n)
        spent, complete = [part for part in course if not budget or part[0] <= budget][-1]
        found.append((spent, losses(recording, chosen(recording, order, complete))))
    return float(np.mean([spent for spent, _ in found])), np.mean([loss for _, loss in found], axis=0)


if __name__ == "__main__":
    main()
