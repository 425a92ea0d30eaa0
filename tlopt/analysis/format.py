"""How numbers, points, ranges and times are said, in tables, cards and reports alike.

Fractions are said in per cent, log-loss as it is.
"""

import math
from collections.abc import Iterator

from tlopt.confirm.verdict import Spread, Verdict
from tlopt.spec import PerOptimizer, dimensions
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL
from tlopt.spec.dimensions import Dimension, Fixed
from tlopt.spec.point import Point

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log-loss",
}


def value_words(value: float, objective: str) -> str:
    """One value: "92.0 %", or a log-loss "0.0800"."""
    return spread_words(Spread(value, math.nan, 1), objective)


def spread_words(spread: Spread | None, objective: str) -> str:
    """Mean ± standard deviation, the mean alone of one value; an em dash where nothing was measured."""
    if spread is None:
        return "—"
    scale, digits = _scale(objective)
    deviation = "" if math.isnan(spread.std) else f" ± {scale * spread.std:.{digits}f}"
    return f"{scale * spread.mean:.{digits}f}{deviation}" + ("" if scale == 1 else " %")


def seeds_words(n: int) -> str:
    """As in "1 seed" and "3 seeds"."""
    return f"{n} seed" + ("s" if n != 1 else "")


def gain_sentences(verdict: Verdict) -> Iterator[str]:
    """One sentence for each default that is a candidate."""
    for label in (PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL):
        if verdict.row(label) is not None:
            yield gain_sentence(verdict, label)


def gain_sentence(verdict: Verdict, label: str) -> str:
    """What the chosen point gains over `label`, on test or else on validation, and how sure that is."""
    if verdict.chosen.label == label:
        return f"The chosen point is {label} itself: the search found nothing better on validation."
    split = "test" if verdict.chosen.test else "val"
    gain = verdict.gain(label, split=split)
    if gain is None:
        return f"Against {label} there is no measured gain."
    where = "test" if split == "test" else "validation, on which it was chosen"
    return (
        f"Gain over {label} in {TITLES[verdict.objective]} on {where}: {gain_words(gain, verdict.objective)}"
        f" (seed by seed, {seeds_words(gain.n)}), {judged(gain)}."
    )


def gain_words(gain: Spread, objective: str) -> str:
    """A difference with its sign: "+20.2 ± 5.0 points", of a log-loss "+0.0312 ± 0.0100"."""
    scale, digits = _scale(objective)
    spread = "" if math.isnan(gain.std) else f" ± {scale * gain.std:.{digits}f}"
    return f"{scale * gain.mean:+.{digits}f}{spread}" + ("" if scale == 1 else " points")


def judged(gain: Spread) -> str:
    """How a gain stands to its own spread."""
    if math.isnan(gain.std):
        return "one pair of runs says nothing about its spread"
    if abs(gain.mean) <= gain.std:
        return "not larger than its spread, so chance alone could explain it"
    return "larger than its spread" if gain.mean > 0 else "a loss, larger than its spread"


def dimension_words(dimension: Dimension | PerOptimizer) -> str:
    """A range as a person would write it."""
    match dimension:
        case PerOptimizer(sgd=sgd, adamw=adamw):
            return f"sgd {dimension_words(sgd)}; adamw {dimension_words(adamw)}"
        case Fixed(value):
            return str(value)
        case dimensions.Choice(options):
            return "one of " + ", ".join(map(str, options))
        case dimensions.Int(low, high):
            return f"{low} to {high}"
        case dimensions.Uniform(low, high):
            return f"{low:g} to {high:g}"
        case dimensions.Log(low, high, zero):
            return f"{low:g} to {high:g}, logarithmic" + (", or off" if zero else "")


def describe(point: dict[str, object] | Point) -> str:
    """A point in one short line: depths, rates, pulls."""
    values = point.as_dict() if isinstance(point, Point) else point
    parts = [f"keep {values['transfer_depth']}", f"freeze {values['freeze_depth']}", f"lr {values['lr']:.2g}"]
    if values["lr_ratio"] != 1:
        parts.append(f"×{values['lr_ratio']:.2g}")
    if values["l2_sp"]:
        parts.append(f"L2-SP {values['l2_sp']:.2g}")
    if values["l2"]:
        parts.append(f"L2 {values['l2']:.2g}")
    return " ".join(parts)


def duration_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def _scale(objective: str) -> tuple[int, int]:
    """The factor to what is shown, and its decimals."""
    return (1, 4) if objective == "log_loss" else (100, 1)
