"""The explanation of a search: which keys mattered, where, and what to search next."""

import html
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from tlopt.analysis.explain.bounds import Limits
from tlopt.analysis.explain.effects import Effect, Interaction, PairEffect, effects, interactions, maps
from tlopt.analysis.explain.observations import observe
from tlopt.analysis.explain.ranges import Decision, decide
from tlopt.analysis.explain.surface import CONFIDENCE, RESAMPLES, Surface
from tlopt.analysis.explain.words import difference_words, place_words
from tlopt.analysis.format import dimension_words
from tlopt.analysis.importance import BEST_MIN, Importance, importance
from tlopt.spec import Study
from tlopt.system.frames import data_frame, html_table
from tlopt.system.words import counted

TRIALS_MIN = 12  # complete and pruned ones of networks; resampled, fewer are always the same few
COLUMNS = ("key", "effect", "best at", "worst at", "evidence", "next range")  # of `Explanation.table`


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation:
    """What the trials of a search say about its keys.

    Attributes:
        importance: what sets the best trials apart from all, by key.
        effects: of the keys on the objective, the largest first; empty where `note` says why.
        interactions: of each depth with each rate.
        maps: dependences on two keys.
        decisions: on the range of each key in a next study.
        note: the number of trials, and what they cannot tell.
    """

    study: str
    objective: str
    importance: Importance
    effects: tuple[Effect, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    maps: tuple[PairEffect, ...] = ()
    decisions: tuple[Decision, ...] = ()
    note: str

    @property
    def changes(self) -> tuple[Decision, ...]:
        """The decisions that change a range."""
        return tuple(decision for decision in self.decisions if decision.kind != "kept")

    @property
    def sentences(self) -> list[str]:
        """What to search next, a sentence for each changed range; what interacts; what cannot be told."""
        said = [f"{change_words(each)}: {each.reason}." for each in self.changes]
        if self.effects and not said:
            said.append("No range has to change: no key is evidently best at an end, or worse in a part.")
        said += [interaction_words(row, self.objective) + "." for row in self.interactions if row.is_clear]
        untold = [effect.key.name for effect in self.effects if not effect.is_clear and not effect.is_absent]
        if untold:
            said.append(f"No effect can be told for {', '.join(untold)}.")
        return said if self.effects else [self.note]

    def to_frame(self) -> Any:
        """A pandas data frame with a row for each key: effect, share of importance, decision, reason.

        Raises:
            MissingExtra: pandas is not installed.
        """
        shares = {row.key: row for row in self.importance.shares}
        decisions = {decision.key: decision for decision in self.decisions}
        rows = []
        for effect in self.effects:
            share, decision = shares.get(effect.key.parameter), decisions[effect.key.name]
            rows.append(
                {
                    "key": effect.key.name,
                    "effect": effect.contrast.mean,
                    "effect_low": effect.contrast.low,
                    "effect_high": effect.contrast.high,
                    "best": place_words(effect.key, float(effect.at[effect.best])),
                    "worst": place_words(effect.key, float(effect.at[effect.worst])),
                    "share": None if share is None else share.share,
                    "share_low": None if share is None else share.low,
                    "share_high": None if share is None else share.high,
                    "share_by_chance": None if share is None else share.chance,
                    "decision": decision.kind,
                    "before": dimension_words(decision.before),
                    "after": dimension_words(decision.after),
                    "reason": decision.reason,
                }
            )
        return data_frame(rows)

    def table(self) -> list[tuple[str, ...]]:
        """A row of words for each key: `COLUMNS`."""
        decisions = {decision.key: decision for decision in self.decisions}
        return [
            (
                effect.key.name,
                difference_words(effect.contrast, self.objective),
                place_words(effect.key, float(effect.at[effect.best])),
                place_words(effect.key, float(effect.at[effect.worst])),
                effect_words(effect),
                next_words(decisions[effect.key.name]),
            )
            for effect in self.effects
        ]

    def __repr__(self) -> str:
        if not self.effects:
            return f"<Explanation of {self.study}: {self.note}>"
        clear = [effect.key.name for effect in self.effects if effect.is_clear]
        changed = [decision.key for decision in self.changes]
        return (
            f"<Explanation of {self.study}: clear effect of {', '.join(clear) or 'no key'};"
            f" ranges to change: {', '.join(changed) or 'none'}>"
        )

    def _repr_html_(self) -> str:
        """The keys as a table and the sentences, for notebooks."""
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        return f"{html_table(COLUMNS, self.table())}<p>{html.escape(self.note)}</p><ul>{said}</ul>"


def explain(
    study: Study,
    trials: Sequence[FrozenTrial],
    *,
    n_blocks: int | None = None,
    keep: Collection[int] = (),
) -> Explanation:
    """The explanation of a search from its trials, carried ones included.

    Args:
        n_blocks: of the smallest backbone; None if unknown, and ranges of whole depths are not extended.
        keep: numbers of trials that a next study has to be able to draw, beside the best ones.
    """
    shares = importance(trials, study.direction)
    if study.is_grid:
        note = "A grid has no ranges to change: tlopt curves shows what its keys do."
        return Explanation(study=study.name, objective=study.objective, importance=shares, note=note)
    seen = observe(study, trials)
    n, n_complete = len(seen.numbers), seen.n_complete
    numbers = f"{counted(n, 'trial')} of networks, {n_complete} of them complete"
    if not seen.keys or n < TRIALS_MIN or n_complete < BEST_MIN:
        missing = (
            "No key is searched by networks."
            if n and not seen.keys
            else f"{numbers}: it takes {TRIALS_MIN}, {BEST_MIN} of them complete, to tell what the keys do."
        )
        return Explanation(study=study.name, objective=study.objective, importance=shares, note=missing)
    if not seen.goodness.std():
        note = f"{numbers}, all with the same value: nothing can be told of the keys."
        return Explanation(study=study.name, objective=study.objective, importance=shares, note=note)
    surface = Surface(seen)
    found = tuple(effects(seen, surface))
    pairs = tuple(interactions(seen, surface))
    limits = Limits(n_blocks=n_blocks, epochs_max=study.budget.epochs)
    return Explanation(
        study=study.name,
        objective=study.objective,
        importance=shares,
        effects=found,
        interactions=pairs,
        maps=tuple(maps(seen, surface, pairs)),
        decisions=tuple(decide(study, seen, found, limits, keep)),
        note=f"{numbers}; intervals are {100 * CONFIDENCE:.0f} %, from {RESAMPLES} samples of these trials.",
    )


def effect_words(effect: Effect) -> str:
    """The evidence for an effect: "clear", "at most small" or "cannot be told"."""
    if effect.is_clear:
        return "clear"
    return "at most small" if effect.is_absent else "cannot be told"


def change_words(decision: Decision) -> str:
    """As in "freeze_depth narrowed from (0 to 17) to (0 to 9)", or "schedule fixed at linear, was ..."."""
    before, after = dimension_words(decision.before), dimension_words(decision.after)
    if decision.kind == "fixed":
        return f"{decision.key} fixed at {after}, was {before}"
    return f"{decision.key} {decision.kind} from ({before}) to ({after})"


def next_words(decision: Decision) -> str:
    """The new range, or "as it is"."""
    return "as it is" if decision.kind == "kept" else f"{decision.kind}: {dimension_words(decision.after)}"


def interaction_words(row: Interaction, objective: str) -> str:
    """What a depth and a rate do together."""
    rate = "a higher" if row.difference.mean > 0 else "a lower"
    difference = difference_words(row.difference, objective)
    if not row.is_clear:
        return f"{row.depth} and {row.rate}: no interaction can be told, {difference}"
    return f"{row.depth} and {row.rate} interact: the deeper, the better {rate} {row.rate}, {difference}"
