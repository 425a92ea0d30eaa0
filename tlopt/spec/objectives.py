"""The objectives of a study: names, directions and the order of their values."""

from collections.abc import Iterable
from typing import Literal

Objective = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"]
Direction = Literal["maximize", "minimize"]


def direction_of(objective: str) -> Direction:
    """Optuna's direction of an objective: log-loss is minimised, every other one maximised."""
    return "minimize" if objective == "log_loss" else "maximize"


def is_fraction(objective: str) -> bool:
    """Whether values lie in [0, 1] and are shown as percentages; log-loss is in nats."""
    return objective != "log_loss"


def scale_of(objective: str) -> tuple[int, int]:
    """The factor from a value to what people read, and its decimals: fractions are read in per cent."""
    return (100, 1) if is_fraction(objective) else (1, 4)


def cost(value: float, direction: str) -> float:
    """The value as a number of which less is better: a sort key that puts the best first."""
    return value if direction == "minimize" else -value


def gain(value: float, reference: float, direction: str) -> float:
    """The difference between two values, positive where `value` is better than `reference`."""
    return cost(reference, direction) - cost(value, direction)


def is_better(value: float, reference: float, direction: str) -> bool:
    """Whether `value` is strictly better than `reference`; never for NaN."""
    return cost(value, direction) < cost(reference, direction)


def best(values: Iterable[float], direction: str) -> float | None:
    """The best of `values`, None where there are none."""
    return min(values, key=lambda value: cost(value, direction), default=None)
