"""How numbers are said, in tables and cards alike: fractions in per cent, log-loss as it is."""

import math
from collections.abc import Iterator

from tlopt.results.verdict import Spread, Verdict
from tlopt.search.labels import PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL

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
    scale, digits = _scale(verdict.objective)
    unit = "" if scale == 1 else " points"
    where = "test" if split == "test" else "validation, on which it was chosen"
    spread = "" if math.isnan(gain.std) else f" ± {scale * gain.std:.{digits}f}"
    return (
        f"Gain over {label} in {TITLES[verdict.objective]} on {where}:"
        f" {scale * gain.mean:+.{digits}f}{spread}{unit}"
        f" (seed by seed, {seeds_words(gain.n)}), {_judged(gain)}."
    )


def _scale(objective: str) -> tuple[int, int]:
    """The factor to what is shown, and its decimals."""
    return (1, 4) if objective == "log_loss" else (100, 1)


def _judged(gain: Spread) -> str:
    if math.isnan(gain.std):
        return "one pair of runs says nothing about its spread"
    if abs(gain.mean) <= gain.std:
        return "not larger than its spread, so chance alone could explain it"
    return "larger than its spread" if gain.mean > 0 else "a loss, larger than its spread"
