"""The ranges of a next study: extended where the best lies at an end, cut where all is worse."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tlopt.analysis.explain.bounds import Limits, Range, allowed, beyond, cut, with_ends
from tlopt.analysis.explain.effects import Effect
from tlopt.analysis.explain.ends import ENDS, BestAtEnd, End, WorseEnd, best_at, is_worse, worse_ends
from tlopt.analysis.explain.observations import Key, Observations
from tlopt.analysis.explain.words import difference_words, number_words, place_words, size_words
from tlopt.plots.series import Array
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Uniform

BEST_MIN, BEST_SHARE = 5, 0.1  # the best trials: a tenth of all, at least five
FIXED_SHARE = 2 / 3  # of the trials have the option at which a key without effect is fixed

Kind = Literal["extended", "narrowed", "moved", "fixed", "kept"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The range of one key in a next study, with the reason in one line."""

    key: str
    kind: Kind
    before: Dimension | PerOptimizer
    after: Dimension | PerOptimizer  # equal to `before` if it is kept
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Case:
    """The evidence on one key; positions in its range."""

    effect: Effect
    best: Array  # of the best trials
    kept: Array  # of the trials that have to stay
    all: Array
    objective: str

    @property
    def key(self) -> Key:
        return self.effect.key

    def decision(self, kind: Kind, after: Dimension | PerOptimizer, reason: str) -> Decision:
        return Decision(key=self.key.name, kind=kind, before=self.key.dimension, after=after, reason=reason)

    def unchanged(self, *reasons: str) -> Decision:
        return self.decision("kept", self.key.dimension, "; ".join(reasons))


def decide(
    study: Study, seen: Observations, found: Sequence[Effect], limits: Limits, keep: Collection[int]
) -> Iterator[Decision]:
    """A decision for each key of `found`, in their order.

    Args:
        keep: numbers of trials that stay within the ranges, beside the best ones.
    """
    n_best = min(seen.n_complete, max(BEST_MIN, round(BEST_SHARE * len(seen.numbers))))
    kept = [i for i, number in enumerate(seen.numbers) if i < n_best or number in keep]
    for effect in found:
        column = seen.column(effect.key.name)
        case = _Case(
            effect=effect,
            best=column[:n_best],
            kept=column[kept],
            all=column,
            objective=study.objective,
        )
        match effect.key.dimension:
            case PerOptimizer():
                yield case.unchanged("its ranges for each optimizer are left to you", _effect_words(case))
            case Choice() as choice:
                yield _of_choice(case, choice)
            case Int() | Uniform() | Log() as dimension:
                yield _of_range(case, dimension, limits)


def _of_choice(case: _Case, dimension: Choice) -> Decision:
    options, effect = dimension.options, case.effect
    index = np.round(case.all * (len(options) - 1)).astype(int)
    counts = np.bincount(index, minlength=len(options))
    if effect.is_absent and counts.max() >= FIXED_SHARE * len(index):
        size = size_words(effect.contrast.high, case.objective)
        return case.decision(
            "fixed",
            Fixed(options[int(counts.argmax())]),
            f"its options differ by {size} at most; {counts.max()} of {len(index)} trials have this one",
        )
    held = set(np.round(case.kept * (len(options) - 1)).astype(int).tolist())
    gaps = {i: effect.behind_best(i) for i in range(len(options)) if i not in held}
    worse = {i: gap for i, gap in gaps.items() if is_worse(gap, effect)}
    if not worse:
        return case.unchanged(_effect_words(case))
    names = " and ".join(
        f"{number_words(options[i])} is {difference_words(gap, case.objective)} worse"
        for i, gap in worse.items()
    )
    left = tuple(option for i, option in enumerate(options) if i not in worse)
    reason = f"{names}, and none of the best {len(case.best)} trials has it"
    if len(left) == 1:
        return case.decision("fixed", Fixed(left[0]), reason)
    return case.decision("narrowed", Choice(left), reason)


def _of_range(case: _Case, dimension: Range, limits: Limits) -> Decision:
    if case.key.name == "resolution":
        return case.unchanged("the resolution, which decides what a trial costs, is left to you")
    extended, remarks = _extended(case, dimension, limits)
    narrowed = {
        end: (cut(dimension, end, part.border), _worse_words(case, end, part))
        for end, part in worse_ends(case.effect, case.kept).items()
        if end not in extended
    }
    parts = extended | narrowed
    low, high = (parts[end][0] if end in parts else getattr(dimension, end) for end in ENDS)
    after = with_ends(dimension, low, high)
    if isinstance(after, Log) and "low" in narrowed:
        after = replace(after, zero=False)
    if after == dimension:
        return case.unchanged(*remarks, _effect_words(case))
    kind: Kind = "moved" if extended and narrowed else "extended" if extended else "narrowed"
    return case.decision(kind, after, "; ".join(parts[end][1] for end in ENDS if end in parts))


def _extended(
    case: _Case, dimension: Range, limits: Limits
) -> tuple[dict[End, tuple[float, str]], list[str]]:
    """New values and reasons of the ends at which the best lies, and remarks on those that cannot move."""
    found: dict[End, tuple[float, str]] = {}
    remarks = []
    for end in ENDS:
        evidence = best_at(end, case.effect, case.best)
        if evidence is None:
            continue
        span = allowed(case.key, limits)
        new = None if span is None else beyond(dimension, end, span[end == "high"])
        said = _best_words(case, end, evidence)
        if new is not None:
            found[end] = (new, said)
        elif span is None:
            remarks.append(f"{said}; extend it if the network has more blocks")
        else:
            remarks.append(f"{said}, but {number_words(span[end == 'high'])} is as far as it goes")
    return found, remarks


def _best_words(case: _Case, end: End, evidence: BestAtEnd) -> str:
    where = f"{'above' if end == 'high' else 'below'} {place_words(case.key, evidence.border)}"
    ahead = difference_words(evidence.ahead, case.objective)
    return (
        f"{evidence.n_there} of the best {len(case.best)} trials lie {where}, {ahead} better than the middle"
    )


def _worse_words(case: _Case, end: End, part: WorseEnd) -> str:
    gap = difference_words(part.gap, case.objective)
    best = place_words(case.key, float(case.effect.at[case.effect.best]))
    place = place_words(case.key, part.border)
    where = place if place == "off" else f"{'above' if end == 'high' else 'below'} {place}"
    return (
        f"{where} it is {gap} worse than at {best}, and none of the best {len(case.best)} trials lies there"
    )


def _effect_words(case: _Case) -> str:
    effect = case.effect
    difference = difference_words(effect.contrast, case.objective)
    if effect.is_absent:
        size = size_words(effect.contrast.high, case.objective)
        return f"no effect above {size}; to fix it would leave out the trials of other values"
    if not effect.is_clear:
        return f"no effect can be told: {difference} between its best and its worst place"
    best, worst = (place_words(case.key, float(effect.at[i])) for i in (effect.best, effect.worst))
    return f"{difference} better at {best} than at {worst}; the best trials give no cause to change it"
