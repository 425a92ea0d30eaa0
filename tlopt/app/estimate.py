"""The time that a study takes on this machine, measured in seconds before it begins."""

from typing import TYPE_CHECKING

from tlopt.propose.budget import ImageCounts, Size, Terms, minutes
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import bounds
from tlopt.spec.search_keys import RULES
from tlopt.system.words import counted, duration_words

if TYPE_CHECKING:
    from tlopt.trial.workspace import Workspace


def duration_line(study: Study, workspace: "Workspace") -> str:
    """The time of search, confirmation and test with the default workers here, in words."""
    from tlopt.training.timing import detect_machine

    machine = detect_machine()
    workers = counted(machine.n_workers, "worker")
    expected = duration_words(60 * expected_minutes(study, workspace))
    return f"time: about {expected} with {workers} on this machine, confirmation included"


def expected_minutes(study: Study, workspace: "Workspace") -> float:
    """The expected minutes of the whole study with the default workers here; measuring takes seconds.

    A searched resolution or batch size counts at its highest, several backbones at their mean.
    """
    from tlopt.training.timing import detect_machine, measure_costs

    machine, data = detect_machine(), workspace.data
    counts = ImageCounts(train=len(data.splits[0].train), val=len(data.splits[0].val), test=data.n_test)
    batch_size = _highest(study, "batch_size", int(RULES["batch_size"].default or 0))
    expected = []
    for weights in workspace.weights.values():
        resolution = _highest(study, "resolution", weights.resolution)
        costs = measure_costs(
            weights, [resolution], n_classes=workspace.n_classes, batch_size=batch_size, device=machine.device
        )
        size = Size(
            resolution=resolution,
            repeats=len(data.splits),
            trials=study.budget.trials,
            epochs=study.budget.epochs,
            points=study.confirm.points,
            seeds=study.confirm.seeds,
        )
        terms = Terms(
            costs=costs,
            counts=counts,
            n_workers=machine.n_workers,
            n_classes=workspace.n_classes,
            minutes_max=float("inf"),
        )
        expected.append(minutes(size, terms))
    return sum(expected) / len(expected)


def _highest(study: Study, key: str, default: int) -> int:
    dimension = study.search.get(key)
    if dimension is None or isinstance(dimension, PerOptimizer):
        return default
    return max(int(value) for value in bounds(dimension))
