"""A sentence on a study's second stage, for status, report and note."""

from tlopt.analysis.network_stages import ended_prunings, smallest_pruning
from tlopt.analysis.snapshot import Snapshot
from tlopt.spec.objectives import COST_TITLES, inference_cost_words, value_words
from tlopt.storage.attributes import TrialRecord
from tlopt.system.words import counted


def prune_sentence(snapshot: Snapshot) -> str:
    """How far the prunings have come, and their smallest network, for a terminal; "" where there are none."""
    if not snapshot.n_prunings:
        return ""
    n_ended = sum(1 for each in snapshot.prunings if each.counts)
    said = f"prunings: {n_ended} of {counted(snapshot.n_prunings, 'pruning')} ended"
    study = snapshot.study
    best = smallest_pruning(snapshot)
    if best is None:
        causes = "; ".join(f"{each.label}: {each.cause}" for each in ended_prunings(snapshot))
        return f"{said}; none within the bound ({causes})" if causes else said
    quantity = study.prune.quantity
    size = inference_cost_words(quantity, best.inference_cost[quantity])
    value = value_words(best.value or 0.0, study.objective)
    return (
        f"{said}; the smallest network has {size} {COST_TITLES[quantity]} and validation {study.objective}"
        f" {value}{_before_words(snapshot, best)} ({best.label})"
    )


def _before_words(snapshot: Snapshot, pruned: TrialRecord) -> str:
    """The value of the one run that was pruned, which the mean over its seeds hides; "" before the choice."""
    chosen, index = snapshot.chosen, pruned.pruning
    if chosen is None or index is None:
        return ""
    planned, objective = snapshot.planned_prunings[index], snapshot.study.objective
    if planned.candidate != chosen.number or planned.replicate >= len(chosen.val):
        return ""
    return f", {value_words(chosen.val[planned.replicate][objective], objective)} before pruning"
