"""Accuracy against what networks cost in use, as tables and sentences say it."""

from collections.abc import Iterable, Mapping

from tlopt.confirmation.verdict import Confirmed, Verdict
from tlopt.search.front import front_trials, hypervolumes
from tlopt.spec import Study
from tlopt.spec.objectives import (
    COST_TITLES,
    TITLES,
    inference_cost_words,
    named_cost_words,
    percent_words,
    value_words,
)
from tlopt.storage.attributes import TrialRecord
from tlopt.system.words import joined

_USUAL = "multiply_adds"  # shown wherever it differs between trials


def objective_words(study: Study) -> str:
    """All objectives of a study, as in "accuracy on validation and multiply-adds"."""
    metric, *costs = f"{TITLES[study.objective]} on validation", *_cost_titles(study)
    return " and ".join(filter(None, (", ".join((metric, *costs[:-1])), *costs[-1:])))


def _cost_titles(study: Study) -> list[str]:
    return [COST_TITLES[name] for name in study.cost_objectives]


def shown_costs(study: Study, trials: Iterable[TrialRecord]) -> tuple[str, ...]:
    """The inference costs that tables of `trials` show: those searched for or limited, and what differs.

    Empty if all networks cost the same and nothing is limited.
    """
    known = {trial.inference_cost[_USUAL] for trial in trials if _USUAL in trial.inference_cost}
    return tuple(dict.fromkeys((*study.cost_names, *((_USUAL,) if len(known) > 1 else ()))))


def cost_cells(costs: Mapping[str, float], names: Iterable[str]) -> tuple[str, ...]:
    """Inference costs as text; "" where not known."""
    return tuple(inference_cost_words(name, costs[name]) if name in costs else "" for name in names)


def front_sentence(study: Study, trials: Iterable[TrialRecord]) -> str:
    """The trials of the front and what they dominate; "" for one objective, or without a complete trial."""
    trials = tuple(trials)
    if not study.cost_objectives or not (found := front_trials(trials, study)):
        return ""
    share = list(hypervolumes(trials, study).values())[-1]
    which = joined([str(trial.number) for trial in found], 12)
    one = len(found) == 1
    return (
        f"{f'Trial {which} is' if one else f'Trials {which} form'} the front: no other trial beats"
        f" {'it' if one else 'them'} in {_objectives(study)}. {'It dominates' if one else 'They dominate'}"
        f" {percent_words(share)} of the space of objectives (hypervolume)."
    )


def confirmed_front_sentence(verdict: Verdict) -> str:
    """The confirmed points that no other one beats; "" for one objective, or before the end."""
    if not verdict.cost_objectives or not verdict.finished or not verdict.front:
        return ""
    return f"The front of the confirmed points: {'; '.join(_words(row, verdict) for row in verdict.front)}."


def _words(row: Confirmed, verdict: Verdict) -> str:
    spread = row.spread(verdict.objective)
    value = "" if spread is None else value_words(spread.mean, verdict.objective)
    costs = (named_cost_words(name, row.inference_cost[name]) for name in verdict.cost_objectives)
    return f"{row.label} ({', '.join((value, *costs))})"


def _objectives(study: Study) -> str:
    *first, last = (TITLES[study.objective], *_cost_titles(study))
    return f"{', '.join(first)} and {last} at once"
