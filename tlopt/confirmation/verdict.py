"""The outcome of a confirmation: candidates over equal seeds, the choice, and its gains over the defaults."""

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from tlopt.confirmation.evidence import Lead, std_error_of_lead
from tlopt.confirmation.interval import IMAGES_MIN, half_width, images_of
from tlopt.spec import objectives
from tlopt.spec.default_names import LABELS, PROBE_LABEL
from tlopt.spec.point import Point
from tlopt.system.frames import data_frame, html_table


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `n` numbers; `std` is NaN for a single one."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of `values`, of which there must be at least one."""
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), std, len(values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean; None for a single value."""
        half = half_width(self.std, self.n)
        return None if math.isnan(half) else (self.mean - half, self.mean + half)

    def words(self, objective: str) -> str:
        """Mean ± standard deviation as text; the mean alone for a single value."""
        scale, digits = objectives.scale_of(objective, self.mean)
        deviation = "" if math.isnan(self.std) else f" ± {scale * self.std:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{deviation}" + ("" if scale == 1 else " %")


Standing = Literal["ahead", "not told apart", "behind"]
_STANDS: dict[Standing | None, str] = {
    "ahead": "ahead of",
    "behind": "behind",
    "not told apart": "not told apart from",
    None: "not compared with",
}
SplitName = Literal["val", "test"]
SPLITS: tuple[SplitName, ...] = ("val", "test")
_MEAN_DIGITS = 9  # decimals for comparing means: sums of the same counts differ in their last bits


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One candidate, run again with several seeds; lists are in the order of the seeds."""

    number: int  # its trial in the search; below 0 for a default that the search did not run
    label: str  # "trial 12", or the label of a default
    point: Point
    seeds: tuple[int, ...]
    val: tuple[dict[str, float], ...]  # metrics by name; an empty dict if a run ended without a value
    test: tuple[dict[str, float], ...]  # empty if the test split has not been read for this candidate
    dropped: bool = False  # got fewer seeds, because of its value or a run without one
    inference_cost: Mapping[str, float] = field(
        default_factory=dict
    )  # by name, of its runs; empty if unknown

    @property
    def is_default(self) -> bool:
        """Whether this is a default, which needs no search."""
        return self.number < 0

    def spread(self, metric: str, *, split: str = "val") -> Spread | None:
        """The spread of `metric` over the seeds on "val" or "test"; None if not measured."""
        rows = self.val if split == "val" else self.test
        return Spread.of([row[metric] for row in rows]) if rows else None

    def words(self, metric: str, *, split: SplitName) -> str:
        """Mean and standard deviation of `metric` as text; an em dash if not measured."""
        spread = self.spread(metric, split=split)
        return "—" if spread is None else spread.words(metric)


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict:
    """All candidates, the chosen one first, then the best on validation.

    Only the chosen one and the defaults have test metrics.
    """

    study: str
    objective: str
    direction: str  # maximize or minimize
    rows: tuple[Confirmed, ...]
    n_expected: int  # runs that the confirmation consists of
    n_finished: int
    test_readings: int  # how often the test split has been read for this study
    n_images: Mapping[str, int] = field(default_factory=dict)  # by split, where known
    n_splits: int = 1  # splits with other validation images that the seeds take in turn
    odds_min: float = 0.0  # for a searched point to be chosen over the strongest default; 0: any
    preferred: str = ""  # label of the default that another one must be better than at `odds_min`; "": none
    cost_objectives: tuple[str, ...] = ()  # inference costs that the search minimised beside the metric
    cost_limits: Mapping[str, float] = field(default_factory=dict)  # inference costs that it limited

    def __repr__(self) -> str:
        value = self.chosen.spread(self.objective, split=self.split)
        words = "no value" if value is None else value.words(self.objective)
        result = f"{self.objective} on {self.split}: {words}"
        others = [name for name in self.defaults if name != self.chosen.label][:1]
        stands = [f", {_STANDS[self.standing(name, split=self.split)]} {name}" for name in others]
        return f"<Verdict {self.study}: {self.chosen.label}, {result}{''.join(stands)}>"

    def _repr_html_(self) -> str:
        """The candidates as a table, for notebooks."""
        rows = [
            (row.label, *(row.words(self.objective, split=split) for split in SPLITS)) for row in self.rows
        ]
        head = ("candidate", f"{self.objective} on validation", f"{self.objective} on test")
        return f"<p>{html.escape(self.study)}</p>{html_table(head, rows)}"

    def to_frame(self) -> Any:
        """A pandas data frame with one row per candidate, seed and split, and metrics as columns.

        Raises:
            MissingExtra: pandas is not installed.
        """
        return data_frame(
            {"candidate": row.label, "trial": row.number, "seed": seed, "split": split, **metrics}
            for row in self.rows
            for split in SPLITS
            for seed, metrics in zip(row.seeds, row.val if split == "val" else row.test, strict=False)
        )

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return self.n_finished >= self.n_expected

    @property
    def chosen(self) -> Confirmed:
        """The best mean on validation, see `ranked`, or a default or a cheaper one, see `settled`."""
        return self.rows[0]

    @property
    def cost_names(self) -> tuple[str, ...]:
        """The inference costs that the search minimised or limited."""
        return tuple(dict.fromkeys((*self.cost_objectives, *self.cost_limits)))

    @property
    def front(self) -> tuple[Confirmed, ...]:
        """The candidates with every seed that no other one beats in mean metric and costs, best metric first.

        Differences of the means within noise count. Empty for a search with one objective.
        """
        rows = [row for row in self.rows if row.val and not row.dropped and self._costs_of(row)]
        kept = objectives.front_of([self._objectives_of(row) for row in rows])
        return tuple(sorted((rows[i] for i in kept), key=self._objectives_of))

    def _costs_of(self, row: Confirmed) -> tuple[float, ...]:
        known = all(name in row.inference_cost for name in self.cost_objectives)
        return tuple(row.inference_cost[name] for name in self.cost_objectives) if known else ()

    def _objectives_of(self, row: Confirmed) -> tuple[float, ...]:
        return (self._loss(row), *self._costs_of(row))

    def of(self, row: Confirmed) -> Self:
        """This verdict as if `row` had been chosen."""
        return replace(self, rows=(row, *(other for other in self.rows if other is not row)))

    @property
    def lead(self) -> Lead | None:
        """The best searched point's lead over the strongest default; None unless both have every seed."""
        default = self._strongest_default
        point = min((row for row in self._whole if not row.is_default), key=self._loss, default=None)
        return None if default is None or point is None else self._lead_of(point, default)

    @property
    def default_lead(self) -> Lead | None:
        """The strongest default's lead over the preferred one, at odds below `odds_min`.

        None unless the preferred one is chosen and is not the strongest itself.
        """
        best = self._strongest_default
        if best is None or best is self.chosen or self.chosen.label != self.preferred:
            return None
        lead = self._lead_of(best, self.chosen)
        return lead if lead is not None and lead.odds < self.odds_min else None

    @property
    def equals_best_default(self) -> bool:
        """Whether the chosen, preferred default shares the best mean of the defaults, as tables show it."""
        best, chosen = self._strongest_default, self.chosen
        if best is None or chosen.label != self.preferred or self._shown(chosen) != self._shown(best):
            return False
        others = (row for row in self._whole if row.is_default and row is not chosen)
        return any(self._shown(row) == self._shown(best) for row in others)

    @property
    def _strongest_default(self) -> Confirmed | None:
        """The default with the best mean among those with every seed."""
        return min((row for row in self._whole if row.is_default), key=self._loss, default=None)

    @property
    def _whole(self) -> list[Confirmed]:
        """The candidates with every seed."""
        return [row for row in self.rows if row.val and not row.dropped]

    def _loss(self, row: Confirmed) -> float:
        """The mean of the objective, rounded, with the sign that makes it minimised."""
        mean = statistics.fmean(metrics[self.objective] for metrics in row.val)
        return round(objectives.cost(mean, self.direction), _MEAN_DIGITS)

    def _lead_of(self, row: Confirmed, other: Confirmed) -> Lead | None:
        """The lead of one candidate over another; None unless all have equally many seeds, at least two."""
        whole, n_seeds = self._whole, len(row.val)
        if n_seeds < 2 or len({len(each.val) for each in whole}) > 1:
            return None
        values = [[metrics[self.objective] for metrics in each.val] for each in whole]
        n_images = self.n_images.get("val", 0) * min(self.n_splits, n_seeds)
        ours, theirs = (
            statistics.fmean(metrics[self.objective] for metrics in each.val) for each in (row, other)
        )
        return Lead(
            point=row.label,
            over=other.label,
            mean=objectives.gain(ours, theirs, self.direction),
            std_error=std_error_of_lead(values, self.objective, n_images),
        )

    @property
    def passed_over(self) -> Lead | None:
        """The lead of the best mean over a cheaper choice, at odds below `odds_min`; None without one."""
        best = min(self._whole, key=self._loss, default=None)
        if best is None or not self.chosen.val or not self._is_cheaper(self.chosen, best):
            return None
        lead = self._lead_of(best, self.chosen)
        return lead if lead is not None and lead.odds < self.odds_min else None

    def settled(self) -> Self:
        """This verdict with a default first, unless a searched point is better than any at `odds_min`.

        It is the preferred default, unless another one is better at these odds; without one, the strongest.
        With costs as objectives, then with the cheapest of those that are nowhere dearer than this one, and
        that neither it nor the strongest default is better than at these odds.
        """
        return self._default_unless_evidence()._cheapest_unless_evidence()

    def _default_unless_evidence(self) -> Self:
        lead, strongest = self.lead, self._strongest_default
        if strongest is None or (lead is None and not self.chosen.is_default):
            return self
        if lead is not None and not self.chosen.is_default and lead.odds >= self.odds_min:
            return self
        preferred = next((row for row in self._whole if row.label == self.preferred), strongest)
        keeps = strongest is preferred or not self._is_better(strongest, preferred)
        return self.of(preferred if keeps else strongest)

    def _cheapest_unless_evidence(self) -> Self:
        """The cheapest of those that neither the choice nor the strongest default is better than.

        The choice may be the preferred default, which is no better than the strongest one.
        """
        rivals = [row for row in (self.chosen, self._strongest_default) if row is not None]
        cheaper = [row for row in self._whole if self._is_cheaper(row, self.chosen)]
        as_good = [row for row in cheaper if not any(self._is_better(rival, row) for rival in rivals)]
        return self.of(
            min(as_good, key=lambda row: (self._costs_of(row), self._loss(row)), default=self.chosen)
        )

    def _is_cheaper(self, row: Confirmed, other: Confirmed) -> bool:
        ours, theirs = self._costs_of(row), self._costs_of(other)
        return bool(ours and theirs) and objectives.dominates(ours, theirs)

    def _is_better(self, row: Confirmed, other: Confirmed) -> bool:
        lead = self._lead_of(row, other)
        if lead is None or not self.odds_min:
            return self._loss(row) < self._loss(other)
        return self._shown(row) != self._shown(other) and lead.odds >= self.odds_min

    def _shown(self, row: Confirmed) -> str:
        """The mean of the objective as tables show it."""
        return objectives.value_words(abs(self._loss(row)), self.objective)

    @property
    def exported_replicate(self) -> int:
        """Index of the chosen candidate's run to export: the best on validation, then by log-loss.

        Raises:
            ValueError: the chosen candidate has no value.
        """
        rows = self.chosen.val
        return min(
            range(len(rows)),
            key=lambda r: (objectives.cost(rows[r][self.objective], self.direction), rows[r]["log_loss"]),
        )

    def row(self, label: str) -> Confirmed | None:
        """The candidate with the label `label`, if any."""
        return next((row for row in self.rows if row.label == label), None)

    def gain(self, label: str, *, split: str) -> Spread | None:
        """The gain of the chosen candidate over `label`, paired by seed; positive is better.

        Runs with the same seed share the split, the order of the images and the views, so differences are
        taken per seed, then averaged. None if the two were not measured together.
        """
        other = self.row(label)
        if other is None:
            return None
        ours = self.chosen.val if split == "val" else self.chosen.test
        theirs = other.val if split == "val" else other.test
        if not ours or len(ours) != len(theirs):
            return None
        return Spread.of(
            [
                objectives.gain(a[self.objective], b[self.objective], self.direction)
                for a, b in zip(ours, theirs, strict=True)
            ]
        )

    @property
    def split(self) -> SplitName:
        """The split on which gains are reported: test if it was read for the chosen one, else validation."""
        return "test" if self.chosen.test else "val"

    @property
    def defaults(self) -> tuple[str, ...]:
        """Labels of the defaults among the candidates: a chosen one, then the strongest on validation."""
        return tuple(row.label for row in self.rows if row.label in LABELS)

    def standing(self, label: str, *, split: SplitName) -> Standing | None:
        """The standing of the chosen candidate against `label`; None if they were not measured together.

        "ahead" and "behind" require that the 95 % interval of the paired differences excludes zero, and that
        the mean difference amounts to at least `IMAGES_MIN` images. The second condition does not apply to
        log-loss, or if the number of images is unknown.
        """
        gain = self.gain(label, split=split)
        if gain is None:
            return None
        if gain.interval is None or self.within_images(gain, split=split):
            return "not told apart"
        low, high = gain.interval
        return "ahead" if low > 0 else "behind" if high < 0 else "not told apart"

    def within_images(self, gain: Spread, *, split: SplitName) -> bool:
        """Whether `gain` amounts to fewer than `IMAGES_MIN` images, in either direction."""
        n_images = self.n_images.get(split, 0)
        if self.objective == "log_loss" or not n_images:
            return False
        # in floating point, 6 of 97 images come out as 5.999...
        return images_of(gain.mean, n_images) < IMAGES_MIN - 1e-9


def ranked(
    rows: Sequence[Confirmed], objective: str, direction: str, costs: Sequence[str] = ()
) -> tuple[Confirmed, ...]:
    """`rows` sorted by mean validation objective, best first; then dropped ones, then those without a value.

    Among equal means, a chosen candidate with test metrics stays first; then come those that cost less in
    use, the linear probe, those with more frozen blocks, which are cheaper to train, and lower log-losses.

    Args:
        costs: names of inference costs that the study minimises or limits.
    """

    def key(row: Confirmed) -> tuple[bool, bool, float, bool, tuple[float, ...], bool, int, float]:
        value, loss = row.spread(objective), row.spread("log_loss")
        if value is None or loss is None:
            return (True, False, 0.0, False, (), False, 0, 0.0)
        mean = round(objectives.cost(value.mean, direction), _MEAN_DIGITS)
        # defaults are always tested, trials only if chosen
        is_new = row.number < 0 or not row.test
        return (
            False,
            row.dropped,
            mean,
            is_new,
            tuple(row.inference_cost.get(name, math.inf) for name in costs),
            row.label != PROBE_LABEL,
            -row.point.freeze_depth,
            loss.mean,
        )

    return tuple(sorted(rows, key=key))
