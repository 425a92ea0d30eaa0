"""Accuracy against what networks cost in use."""

from collections.abc import Iterable

from tlopt.spec import Study
from tlopt.spec.objectives import inference_cost_words
from tlopt.storage.attributes import TrialRecord

_USUAL = "multiply_adds"  # shown wherever it differs between trials


def shown_costs(study: Study, trials: Iterable[TrialRecord]) -> tuple[str, ...]:
    """The inference costs that tables of `trials` show: those the study limits, and what differs.

    Empty if all networks cost the same and nothing is limited.
    """
    known = {trial.inference_cost[_USUAL] for trial in trials if _USUAL in trial.inference_cost}
    return tuple(dict.fromkeys((*study.cost_names, *((_USUAL,) if len(known) > 1 else ()))))


def cost_cells(trial: TrialRecord, names: Iterable[str]) -> tuple[str, ...]:
    """The trial's inference costs as text; "" where not known."""
    costs = trial.inference_cost
    return tuple(inference_cost_words(name, costs[name]) if name in costs else "" for name in names)
