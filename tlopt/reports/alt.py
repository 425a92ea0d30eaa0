"""Alternative texts of figures: the finding in one sentence, computed from the plotted numbers."""

from collections.abc import Sequence

import numpy as np

from tlopt.analysis.explain.effects import PairEffect
from tlopt.analysis.explain.words import difference_words, place_words
from tlopt.analysis.mistakes import BinaryCurves, Calibration
from tlopt.plots.series import Array, running_median
from tlopt.spec.objectives import (
    COST_TITLES,
    TITLES,
    cost,
    direction_of,
    inference_cost_words,
    percent_words,
    value_words,
)
from tlopt.system.words import counted

_RATE = 0.1  # false-positive rate at which ROC curves are read; precision is read at a recall of 1 - _RATE


def progress_text(x: Array, best: Array, *, label: str, objective: str) -> str:
    """The first and the last of `best` over the ascending `x`, and where the last value is reached."""
    finite = np.isfinite(best)
    x, best = x[finite], best[finite]
    first, last = (value_words(float(value), objective) for value in best[[0, -1]])
    total = f"{x[-1]:.3g} {label}"
    opening = f"Best validation {TITLES[objective]} so far: "
    if best[0] == best[-1]:
        return f"{opening}{last} from the first complete trial to the end, at {total}."
    at = float(x[np.flatnonzero(best == best[-1])[0]])
    return f"{opening}{first} at first, {last} from {at:.3g} of {total} on."


def front_text(x: Array, values: Array, *, cost_name: str, objective: str, n: int) -> str:
    """The two ends of a front: the most accurate trial and the cheapest one, with value and cost."""
    ends = [int(np.argmax(x)), int(np.argmin(x))]
    best, cheapest = (
        f"{value_words(float(values[i]), objective)} at {inference_cost_words(cost_name, float(x[i]))}"
        for i in ends
    )
    return (
        f"Validation {TITLES[objective]} against {COST_TITLES[cost_name]}, on the front from {cheapest} to"
        f" {best}, among {counted(n, 'complete trial')}."
    )


def dependence_text(x: Array, values: Array, *, key: str, off: bool, objective: str) -> str:
    """The position of the best value along a key, and of the best and worst running median.

    Args:
        x: the key's value in each trial of `values`.
        off: whether 0 means that the key is off; such trials are left out of the median.
    """
    direction = direction_of(objective)
    costs = np.array([cost(float(value), direction) for value in values])
    best = int(costs.argmin())

    def place(value: float) -> str:
        return "off" if off and value == 0 else f"{value:.3g}"

    text = (
        f"Validation {TITLES[objective]} reaches {value_words(float(values[best]), objective)} at {key}"
        f" {place(x[best])}, among {counted(len(x), 'complete trial')}"
        f" from {place(x.min())} to {place(x.max())}."
    )
    on = (x > 0) | (not off)
    at, medians = running_median(np.log(x[on]) if off else x[on], values[on])
    if not len(at):
        return text
    ranks = np.array([cost(float(value), direction) for value in medians])
    high, low = int(ranks.argmin()), int(ranks.argmax())
    where = [place(float(np.exp(at[index]) if off else at[index])) for index in (high, low)]
    words = [value_words(float(medians[index]), objective) for index in (high, low)]
    if words[0] == words[1]:
        return f"{text} The running median is {words[0]} all along."
    return (
        f"{text} The running median is best at {where[0]}, {words[0]}, and worst at {where[1]}, {words[1]}."
    )


def surface_text(pair: PairEffect, objective: str, *, best: str) -> str:
    """The best and the worst cell of a map, and their difference; `best` is the value in the best one."""

    def place(cell: tuple[int, int]) -> str:
        return ", ".join(
            f"{key.name} {place_words(key, float(at[index]))}"
            for key, at, index in zip(pair.keys, pair.at, cell, strict=True)
        )

    return (
        f"Validation {TITLES[objective]} is best at {place(pair.best)}, {best}, and"
        f" {difference_words(pair.contrast, objective)} worse at {place(pair.worst)}."
    )


def curves_text(best: Sequence[Array], pruned: Sequence[Array], *, number: int | None, objective: str) -> str:
    """The first and last value of the best trial, and the range in which the others end.

    Args:
        best: (epoch, value) rows of complete trials, best first.
        number: number of the best trial, or None.
    """
    clauses = []
    if best and number is not None:
        (first, start), (last, end) = best[0][0], best[0][-1]
        words = [value_words(float(value), objective) for value in (start, end)]
        clauses.append(
            f"trial {number}, the best, is at {words[0]} after epoch {first:.0f}"
            f" and at {words[1]} after epoch {last:.0f}"
        )
    for name, rows in (("the next best", best[1:]), ("pruned ones", pruned)):
        if rows:
            ends = [float(row[-1, 1]) for row in rows]
            low, high = (value_words(bound(ends), objective) for bound in (min, max))
            clauses.append(
                f"{name} ({len(rows)}) end " + (f"at {low}" if low == high else f"at {low} to {high}")
            )
    return f"Validation {TITLES[objective]}: {'; '.join(clauses)}."


def reliability_text(at: Calibration, *, images: str) -> str:
    """Mean probability, accuracy and calibration error; `images` is a phrase such as "500 test images"."""
    return (
        f"Reliability on {images}: the mean probability of the predicted class is"
        f" {percent_words(at.confidence)}, and {percent_words(at.accuracy)} are right; expected calibration"
        f" error {100 * at.ece:.1f} points."
    )


def roc_text(curves: BinaryCurves, *, where: str) -> str:
    """The area under the ROC curve and one point on it."""
    hits = float(np.interp(_RATE, curves.false_positive, curves.true_positive))
    return (
        f"ROC of {curves.positive} on {where}: area {curves.auc:.3f}; at {percent_words(_RATE)} false"
        f" positives {percent_words(hits)} true positives."
    )


def precision_text(curves: BinaryCurves, *, where: str) -> str:
    """The average precision, and the precision at 90 % recall."""
    recall = curves.true_positive[1:]
    share = float(curves.precision[np.flatnonzero(recall >= 1 - _RATE)[0]])
    return (
        f"Precision over recall of {curves.positive} on {where}: average precision"
        f" {curves.average_precision:.3f}; where {percent_words(1 - _RATE)} are found, {percent_words(share)}"
        " of those predicted are right."
    )
