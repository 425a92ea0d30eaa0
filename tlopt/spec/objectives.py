"""The objectives of a study: names, directions, formats and comparison of values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tlopt.system.words import si_words, size_words

Objective = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"]
InferenceCostName = Literal["parameters", "multiply_adds", "bytes", "latency_ms"]
AnyObjective = Literal[Objective, InferenceCostName]
Direction = Literal["maximize", "minimize"]
Row = Sequence[float]  # a number for each objective

# Share of the binomial variance of an accuracy that is a network's own; the rest is common to all networks on
# the same images: "Default unless evidence" in benchmarks/selection/README.md.
OWN_SHARE = 0.6

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log-loss",
}


# What a trained network costs in use, measured by tlopt.compact.cost: always minimised.
COST_TITLES: dict[str, str] = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "bytes": "file size",
    "latency_ms": "latency",
}


def inference_cost_words(name: str, value: float) -> str:
    """An inference cost as shown everywhere: "25.56 M" of something counted, "44.8 MB", "3.2 ms"."""
    if name == "bytes":
        return size_words(value)
    return f"{value:.3g} ms" if name == "latency_ms" else si_words(value, form=".4g")


def named_cost_words(name: str, value: float) -> str:
    """An inference cost with its name where the unit does not say it: "25.56 M parameters", "3.2 ms"."""
    counted = name in ("parameters", "multiply_adds")
    return inference_cost_words(name, value) + (f" {COST_TITLES[name]}" if counted else "")


def excess_over(limits: Mapping[str, float], costs: Mapping[str, float]) -> dict[str, float]:
    """How far each cost lies above its limit, as a fraction of the limit; 0 and below is within it."""
    return {name: costs[name] / limit - 1 for name, limit in limits.items() if name in costs}


def excess_words(limits: Mapping[str, float], costs: Mapping[str, float]) -> str:
    """The broken limits, as in "multiply-adds 55.61 M, of at most 50 M"; "" if all are kept."""
    return " and ".join(
        f"{COST_TITLES[name]} {inference_cost_words(name, costs[name])}, of at most"
        f" {inference_cost_words(name, limits[name])}"
        for name, excess in excess_over(limits, costs).items()
        if excess > 0
    )


def excess_size(name: str, excess: float) -> str:
    """A violation as text: of a limit on inference costs in per cent of it, of other constraints as it is."""
    if name not in COST_TITLES:
        return f"{excess:.3g}"
    percent = 100 * excess
    return f"{percent:,.0f} %" if percent >= 100 else f"{percent:.3g} %"


def direction_of(objective: str) -> Direction:
    """Optuna's direction of an objective: log-loss and costs are minimised, all others are maximised."""
    return "minimize" if objective == "log_loss" or objective in COST_TITLES else "maximize"


def is_fraction(objective: str) -> bool:
    """Whether values lie in [0, 1] and are shown as percentages; log-loss is in nats."""
    return objective != "log_loss"


def scale_of(objective: str, largest: float = 0.0) -> tuple[int, int]:
    """The factor from a value to its displayed number, and the decimals; fractions are shown in per cent.

    Args:
        largest: largest of the numbers shown together: a log-loss has at most four significant digits.
    """
    if is_fraction(objective):
        return (100, 1)
    return (1, max(0, 4 - len(f"{abs(largest):.0f}")) if abs(largest) >= 1 else 4)


def value_words(value: float, objective: str) -> str:
    """A value as shown everywhere: "92.0 %", or "0.0800" for a log-loss."""
    scale, digits = scale_of(objective, value)
    return f"{scale * value:.{digits}f}" + ("" if scale == 1 else " %")


def percent_words(share: float) -> str:
    """A fraction of 1 in per cent, such as "79.0 %"."""
    return value_words(share, "accuracy")


def measured(value: Any) -> Any:
    """`value` for JSON and CSV, with numbers at six significant digits; points and configs are unchanged."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {k: v if k in ("point", "config") else measured(v) for k, v in value.items()}
        case list() | tuple():
            return [measured(each) for each in value]
    return value


def cost(value: float, direction: str) -> float:
    """`value` with its sign changed if higher is better: a sort key that puts the best first."""
    return value if direction == "minimize" else -value


def gain(value: float, reference: float, direction: str) -> float:
    """The difference between two values, positive where `value` is better than `reference`."""
    return cost(reference, direction) - cost(value, direction)


def is_better(value: float, reference: float, direction: str) -> bool:
    """Whether `value` is strictly better than `reference`; never for NaN."""
    return cost(value, direction) < cost(reference, direction)


def own_variance(objective: str, value: float, n_images: int) -> float:
    """The variance of `value` by the choice of `n_images` images, without what all networks have in common.

    For balanced accuracy and macro F1, that of an accuracy. 0 for log-loss, whose variance is not known, and
    if the number of images is not known (0).
    """
    if not is_fraction(objective) or n_images <= 0:
        return 0.0
    share = (n_images * value + 1) / (n_images + 2)  # of no mistake, the variance would be 0
    return OWN_SHARE * share * (1 - share) / n_images


def best(values: Iterable[float], direction: str) -> float | None:
    """The best of `values`, or None if empty."""
    return min(values, key=lambda value: cost(value, direction), default=None)


def minimised(values: Row, direction: str) -> tuple[float, ...]:
    """The values of several objectives with the sign that makes the first one minimised; the others are."""
    return (cost(values[0], direction), *values[1:])


def dominates(one: Row, other: Row) -> bool:
    """Whether `one` is nowhere larger than `other`, and smaller somewhere."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def front_of(rows: Sequence[Row]) -> list[int]:
    """Indices of the rows that no other row dominates, in order; equal rows are all in it."""
    return [i for i, row in enumerate(rows) if not any(dominates(other, row) for other in rows)]
