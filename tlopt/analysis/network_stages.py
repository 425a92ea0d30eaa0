"""What a study's two stages made of the network, from the whole one to the smallest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tlopt.confirmation.prunings import of_choice, smallest
from tlopt.confirmation.verdict import Confirmed, Spread
from tlopt.search.race import PLAIN
from tlopt.spec.objectives import COST_TITLES, TITLES, inference_cost_words
from tlopt.storage.attributes import TrialRecord
from tlopt.system.loose_values import numbers_in

if TYPE_CHECKING:
    from tlopt.analysis.snapshot import Snapshot


def smallest_pruning(snapshot: "Snapshot") -> TrialRecord | None:
    """The pruning of the chosen network with the smallest result within the bound; None if there is none.

    Before the choice, of all prunings; so, too, without `[prune]` in the file.
    """
    return smallest(ended_prunings(snapshot), snapshot.study.prune.quantity)


def ended_prunings(snapshot: "Snapshot") -> list[TrialRecord]:
    """The ended prunings that `smallest_pruning` chooses from."""
    study, verdict = snapshot.study, snapshot.verdict
    chosen = snapshot.chosen
    if verdict is None or chosen is None or not study.prune.goals:
        return [each for each in snapshot.prunings if each.counts]
    if chosen.point.is_linear:
        return []
    return of_choice(snapshot.prunings, snapshot.planned_prunings, study, verdict)


@dataclass(frozen=True, kw_only=True)
class NetworkStage:
    """A network on the way from the whole one to the smallest."""

    name: str  # "plain fine-tuning", "trial 7", "50.0 % of the multiply-adds, taylor, uniform"
    val: Spread | None
    test: Spread | None
    costs: Mapping[str, float] = field(default_factory=dict)  # by name, where known

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        means = {"val": self.val, "test": self.test}
        return {
            "name": self.name,
            **{split: None if spread is None else spread.mean for split, spread in means.items()},
            **self.costs,
        }


def network_stages(snapshot: "Snapshot") -> tuple[NetworkStage, ...]:
    """Plain fine-tuning of the whole network, the chosen network, and the smallest one of the prunings.

    Empty before the choice, and where the chosen network has all blocks and no pruning has a result.
    """
    chosen, pruned = snapshot.chosen, smallest_pruning(snapshot)
    if chosen is None or (pruned is None and not chosen.point.is_shortened):
        return ()
    rows = () if snapshot.verdict is None else snapshot.verdict.rows
    plain = next((row for row in rows if row.number == PLAIN and row is not chosen), None)
    seconds = _latencies(snapshot)
    whole = seconds.get("whole", seconds.get("before"))
    found = [] if plain is None else [_of_candidate(plain, snapshot, whole)]
    found.append(_of_candidate(chosen, snapshot, seconds.get("before")))
    if pruned is not None:
        found.append(_of_pruning(pruned, seconds.get("here")))
    return tuple(found)


def _of_candidate(row: Confirmed, snapshot: "Snapshot", latency_ms: float | None) -> NetworkStage:
    objective = snapshot.study.objective
    return NetworkStage(
        name=row.label,
        val=row.spread(objective),
        test=row.spread(objective, split="test"),
        costs=_with_latency(row.inference_cost, latency_ms),
    )


def _of_pruning(record: TrialRecord, latency_ms: float | None) -> NetworkStage:
    return NetworkStage(
        name=record.label,
        val=None if record.value is None else Spread.of([record.value]),
        test=None,
        costs=_with_latency(record.inference_cost, latency_ms),
    )


def _with_latency(costs: Mapping[str, float], latency_ms: float | None) -> dict[str, float]:
    return dict(costs) if latency_ms is None else {**costs, "latency_ms": latency_ms}


def _latencies(snapshot: "Snapshot") -> Mapping[str, float]:
    """Milliseconds for one image, as measured for the newest compact export; empty without one."""
    measured = [numbers_in(row, "latency_ms") for row in snapshot.exports if "latency_ms" in row]
    return measured[-1] if measured else {}


def network_rows(stages: Sequence[NetworkStage], objective: str) -> Iterator[tuple[str, ...]]:
    """Rows of a table with a column for each network; costs with the quotient to those of the first."""
    for title, spreads in (("validation", [s.val for s in stages]), ("test", [s.test for s in stages])):
        yield (
            f"{title} {TITLES[objective]}",
            *("—" if spread is None else spread.words(objective) for spread in spreads),
        )
    for name, title in COST_TITLES.items():
        values = [stage.costs.get(name) for stage in stages]
        if any(values):
            yield title, *(_cost_words(name, value, values[0]) for value in values)


def _cost_words(name: str, value: float | None, first: float | None) -> str:
    """As in "1.122 M (÷ 3.0)"; an em dash if it is not known."""
    if not value:
        return "—"
    quotient = f" (÷ {first / value:.1f})" if first and first != value else ""
    return inference_cost_words(name, value) + quotient
