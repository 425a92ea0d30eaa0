"""The time that a study takes on this machine, measured in seconds before it begins."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tlopt.model.facts import BackboneFacts
from tlopt.propose.budget import UNPRUNED_SHARE, ImageCounts, Size, Terms, busy_sentence, minutes
from tlopt.search.defaults import defaults, linear_points
from tlopt.search.space import classifiers
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.algorithms import NoPruner
from tlopt.spec.dimensions import bounds
from tlopt.spec.search_keys import RULES
from tlopt.system.words import counted, duration_words

if TYPE_CHECKING:
    from tlopt.trial.workspace import Workspace


def duration_lines(study: Study, workspace: "Workspace") -> Iterator[str]:
    """The time of `tlopt run` with the default workers; and a note on a busy machine."""
    from tlopt.training.timing import detect_machine

    workers = counted(detect_machine().n_workers, "worker")
    minutes_alone, load_factor = expected_minutes(study, workspace)
    expected = duration_words(60 * minutes_alone)
    most = "at most " if study.budget.trials == "enough" else ""
    included = "confirmation and prunings included" if study.prune.goals else "confirmation included"
    stages = "without a confirmation" if study.is_grid else included
    yield f"time: {most}about {expected} with {workers} on this machine, {stages}"
    if busy := busy_sentence(load_factor, minutes_alone):
        yield f"  note: {busy}"


def expected_minutes(study: Study, workspace: "Workspace") -> tuple[float, float]:
    """The expected minutes of `tlopt run` with the default workers here, and the load factor.

    That is search, confirmation, test and the prunings of `[prune]`, or a grid alone. The minutes are those
    of a machine where nothing else runs. A searched resolution or batch size counts at its highest, several
    backbones at their mean. Measuring takes seconds.
    """
    from tlopt.training.timing import detect_machine, measure_costs

    machine, data = detect_machine(), workspace.data
    counts = ImageCounts(train=len(data.splits[0].train), val=len(data.splits[0].val), test=data.n_test)
    batch_size = _highest(study, "batch_size", int(RULES["batch_size"].default or 0))
    n_trained_defaults = sum(default.is_trained for default in defaults(study, workspace.facts))
    expected, load_factors = [], []
    for weights in workspace.weights.values():
        resolution = _highest(study, "resolution", weights.resolution)
        costs = measure_costs(
            weights, [resolution], n_classes=workspace.n_classes, batch_size=batch_size, device=machine.device
        )
        size = Size(
            resolution=resolution,
            repeats=1 if study.is_grid else data.n_trial_splits,
            trials=study.budget.trials_max,
            epochs=study.budget.epochs,
            points=study.confirm.points,
            seeds=0 if study.is_grid else study.confirm.seeds,
            pruning_epochs=pruning_epochs(study),
        )
        terms = Terms(
            costs=costs,
            counts=counts,
            n_workers=machine.n_workers,
            n_classes=workspace.n_classes,
            n_trained_defaults=n_trained_defaults,
            minutes_max=float("inf"),
            n_linear=_n_linear(study, workspace.facts),
            later_share=UNPRUNED_SHARE if prunes(study) else 1.0,
        )
        expected.append(minutes(size, terms))
        load_factors.append(costs[resolution].load_factor)
    return sum(expected) / len(expected), max(load_factors)


def pruning_epochs(study: Study) -> tuple[int, ...]:
    """Epochs of each pruning of the second stage, over its rounds."""
    epochs = study.prune.epochs or study.budget.epochs
    return tuple(goal.n_trainings * epochs for goal in study.prune.goals)


def prunes(study: Study) -> bool:
    """Whether trials of a study may be pruned."""
    return not study.is_grid and not isinstance(study.pruner, NoPruner)


def _n_linear(study: Study, facts: BackboneFacts) -> int:
    """Number of trials that are linear classifiers: all of them where nothing else is searched."""
    return len(linear_points(study, facts)) if "network" in classifiers(study) else study.budget.trials_max


def _highest(study: Study, key: str, default: int) -> int:
    dimension = study.search.get(key)
    if dimension is None or isinstance(dimension, PerOptimizer):
        return default
    return max(int(value) for value in bounds(dimension))
