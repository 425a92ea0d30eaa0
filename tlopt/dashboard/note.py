"""The note of a study in optuna-dashboard: goal, images, search space, best trials, results by depth.

tlopt updates the part above the marker; text that users write below it is never changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import optuna

from tlopt.dashboard import study_figure
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import Choice, Fixed, bounds
from tlopt.spec.objectives import (
    COST_TITLES,
    front_of,
    inference_cost_words,
    minimised,
    named_cost_words,
    value_words,
)
from tlopt.spec.outcome import Outcome
from tlopt.spec.study import CONFIRM_SUFFIX, PRUNE_SUFFIX
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.system.words import counted, joined, markdown_escaped

MARKER = "*Kept current above this line; what is below it is yours.*"
_DEPTHS = ("transfer_depth", "freeze_depth", "norm_depth")
_TABLE_KEYS = (*_DEPTHS, "lr", "lr_ratio", "l2_sp", "l2", "augmentation")
_N_BINS = 4
_N_BEST = 3
_N_INFEASIBLE = 3
_N_FRONT = 8


def update_note(
    optuna_study: optuna.Study,
    study: Study,
    *,
    images: str,
    verdict: Sequence[str] = (),
    chosen: int | None = None,
    explained: Sequence[str] = (),
) -> None:
    """Write the note of a search or of its confirmation if its content has changed.

    Args:
        images: description of the training data.
        verdict: sentences on the result of the confirmation; empty before it.
        chosen: number of the trial that the confirmation chose; None if there is none.
        explained: sentences on what the keys do and what to search next; empty before the confirmation.
    """
    from optuna_dashboard import get_note, save_note  # the import takes half a second

    trials = attributes.records_of(optuna_study)
    before = get_note(optuna_study)
    _, marker, own = before.partition(MARKER)
    if optuna_study.study_name.endswith(CONFIRM_SUFFIX):
        updated = confirmation_lines(study, trials)
    elif attributes.PRUNINGS in optuna_study.user_attrs:
        updated = pruning_lines(optuna_study.study_name.removesuffix(PRUNE_SUFFIX), study, trials)
    else:
        updated = note_lines(
            study,
            trials,
            images=images,
            verdict=verdict,
            picture=study_figure.address(optuna_study),
            chosen=chosen,
            warm_start=attributes.summary_of(optuna_study.user_attrs.get(attributes.WARM_START)),
            fit=attributes.summary_of(optuna_study.user_attrs.get(attributes.FIT)),
            explained=explained,
        )
    body = "\n".join([*updated, "", "---", MARKER])
    after = body + (own if marker else f"\n\n{before}" if before else "\n")
    if after != before:
        save_note(optuna_study, after)


def note_lines(
    study: Study,
    trials: Sequence[TrialRecord],
    *,
    images: str,
    verdict: Sequence[str],
    picture: str,
    chosen: int | None = None,
    warm_start: str = "",
    fit: str = "",
    explained: Sequence[str] = (),
) -> Iterator[str]:
    """The lines above the marker, in Markdown.

    Args:
        warm_start: a sentence on the trials from an earlier study; "" if there are none.
        fit: a sentence on the fit of pretrained networks to the images; "" if it was not measured.
        picture: URL path of the study's figure; "" if there is none.
    """
    best = best_first(trials, study.direction)
    networks = [trial for trial in best if trial.is_network or not trial.point]
    yield f"**{study.objective} on validation**"
    yield ""
    yield f"- budget: {study.budget.trials_words} of at most {counted(study.budget.epochs, 'epoch')}"
    yield f"- images: {markdown_escaped(images)}"
    yield f"- network: {', '.join(study.model.backbones)}, weights {markdown_escaped(study.model.weights)}"
    yield f"- searched: {'; '.join(_searched(study))}"
    if warm_start:
        yield f"- warm start: {markdown_escaped(warm_start)}"
    if fit:
        yield f"- fit before training: {markdown_escaped(fit)}"
    yield from _front(trials, study)
    yield from _infeasible(trials)
    if verdict:
        yield from ("", "**Confirmed**", "", *(f"- {markdown_escaped(sentence)}" for sentence in verdict))
    else:
        yield "- not confirmed yet: the best value of many trials is optimistic"
    named = [trial.number for trial in best if trial.label and not trial.is_carried]
    rows = [t for place, t in enumerate(best) if place < _N_BEST or t.number in (*named, chosen)]
    if len(rows) < len(best):
        yield from ("", f"The {_N_BEST} best of {counted(len(best), 'complete trial')}, and the defaults:")
    yield from ("", *_heading(("trial", study.objective, *_cost_titles(study), *_columns(study))))
    yield from (_row(row, study, name=_named(row, is_chosen=row.number == chosen)) for row in rows)
    if explained:
        yield from ("", "**To search next**", "", *(f"- {markdown_escaped(said)}" for said in explained))
    if picture:
        # a new address for each figure, or an open page would not reload it
        yield from ("", "---", "", f"![{_finding(networks, study)}]({picture}?trials={len(best)})")
    for name in _DEPTHS:
        yield from _depth_table(name, networks, study)


def confirmation_lines(study: Study, trials: Sequence[TrialRecord]) -> Iterator[str]:
    """The lines above the marker for a confirmation, whose result is in the note of its search."""
    yield f"**Confirmation of {markdown_escaped(study.name)}**"
    yield ""
    yield "- best points of the search and the defaults, trained again with other seeds"
    yield f"- result: in the note of the study {markdown_escaped(study.name)}"
    ranked = best_first(trials, study.direction)
    if ranked:
        yield from (
            "",
            *_heading(("candidate", f"mean {study.objective}", *_cost_titles(study), *_columns(study))),
        )
        yield from (_row(row, study, name=row.label) for row in ranked)


def pruning_lines(name: str, study: Study, trials: Sequence[TrialRecord]) -> Iterator[str]:
    """The lines above the marker for the prunings of the study `name`."""
    yield f"**Prunings of {markdown_escaped(name)}**"
    yield ""
    yield "- the network that the confirmation chose, with channels removed in rounds; a step is an epoch"
    yield f"- result: in the note of the study {markdown_escaped(name)}"
    ended = [trial for trial in trials if trial.counts and trial.inference_cost]
    if ended:
        yield from ("", *_heading(("pruning", study.objective, "parameters", "multiply-adds")))
        for trial in ended:
            value = "-" if trial.value is None else value_words(trial.value, study.objective)
            costs = (
                inference_cost_words(cost, trial.inference_cost.get(cost, 0.0))
                for cost in ("parameters", "multiply_adds")
            )
            yield f"| {' | '.join((markdown_escaped(trial.label), value, *costs))} |"


def _front(trials: Sequence[TrialRecord], study: Study) -> Iterator[str]:
    """With several objectives, a line on the trials of the front, which Optuna calls the best ones."""
    if not study.cost_objectives:
        return
    ranked = best_first(trials, study.direction)
    found = [
        f"trial {trial.number} {value_words(trial.value or 0.0, study.objective)}, "
        + ", ".join(
            named_cost_words(name, value)
            for name, value in zip(study.cost_objectives, trial.values[1:], strict=False)
        )
        for trial in (ranked[i] for i in front_of([minimised(t.values, study.direction) for t in ranked]))
    ]
    if found:
        names = markdown_escaped(", ".join(study.objectives))
        yield f"- front of {names}: {joined(found, _N_FRONT, separator='; ')}"


def _infeasible(trials: Sequence[TrialRecord]) -> Iterator[str]:
    """A line on trials that violate a constraint, which the dashboard may list as the best."""
    found = [trial for trial in trials if trial.outcome == Outcome.INFEASIBLE]
    if found:
        trials_and_causes = [f"trial {trial.number} {markdown_escaped(trial.cause)}" for trial in found]
        yield f"- infeasible and never the best: {joined(trials_and_causes, _N_INFEASIBLE, separator='; ')}"


def _searched(study: Study) -> Iterator[str]:
    for name, dimension in study.search.items():
        if isinstance(dimension, PerOptimizer):
            yield f"{name} by optimizer"
        elif isinstance(dimension, Choice):
            yield markdown_escaped(f"{name} {' or '.join(map(str, dimension.options))}")
        elif not isinstance(dimension, Fixed):
            *off, low, high = sorted(bounds(dimension))  # numbers: the dimension is a range
            yield markdown_escaped(f"{name} {'0 or ' if off else ''}{low:g} to {high:g}")


def _finding(best: Sequence[TrialRecord], study: Study) -> str:
    """Alternative text for the figure: value and parameters of the best trial."""
    if not best:
        return "No trial is complete."
    point = best[0].point or {}
    searched = [name for name in study_figure.KEYS if not isinstance(study.search.get(name), Fixed | None)]
    params = ", ".join(f"{name} {point[name]:.3g}" for name in searched if name in point)
    which = f"The best of {counted(len(best), 'complete trial')}, trial {best[0].number}, reaches"
    return markdown_escaped(
        f"{which} {_value(best[0], study.objective)}" + (f" at {params}" if params else "")
    )


def _columns(study: Study) -> tuple[str, ...]:
    """The keys in the table of trials; `norm_depth` only if it is in the study file."""
    return tuple(name for name in _TABLE_KEYS if name != "norm_depth" or name in study.search)


def _cost_titles(study: Study) -> tuple[str, ...]:
    """The inference costs that the study minimises or limits."""
    return tuple(COST_TITLES[name] for name in study.cost_names)


def _named(trial: TrialRecord, *, is_chosen: bool) -> str:
    """The number of a trial, its label if it has one, and whether it is chosen."""
    label = f" {trial.label}" if trial.label else ""
    mark = " (chosen)" if is_chosen else ""
    return f"{trial.number}{label}{mark}"


def _row(trial: TrialRecord, study: Study, *, name: str) -> str:
    point = trial.point or {}
    is_linear = bool(point) and not trial.is_network  # none of these columns affects it
    values = ("—" if is_linear else f"{point[name]:.3g}" if name in point else "" for name in _columns(study))
    known = trial.inference_cost
    costs = (inference_cost_words(cost, known[cost]) if cost in known else "" for cost in study.cost_names)
    return _cells((name, _value(trial, study.objective), *costs, *values))


def _heading(names: Sequence[str]) -> tuple[str, str]:
    return _cells(names), "|" + " --- |" * len(names)


def _cells(cells: Iterable[str]) -> str:
    """A row of a table, with spaces that the dashboard omits between columns."""
    return f"| {'&emsp; | '.join(cells)} |"


def _depth_table(name: str, best: Sequence[TrialRecord], study: Study) -> Iterator[str]:
    """The best value and the number of trials in each quarter of the range of a depth."""
    depths = np.array([(trial.point or {}).get(name, 0) for trial in best])
    if len(np.unique(depths)) < 2:
        return
    edges = np.unique(np.linspace(depths.min(), depths.max() + 1, _N_BINS + 1).round().astype(int))
    yield from ("", "---", "", *_heading((name, f"best {study.objective}", "trials")))
    for low, high in pairwise(edges.tolist()):
        here = [trial for trial, depth in zip(best, depths, strict=True) if low <= depth < high]
        blocks = f"{low}" if high == low + 1 else f"{low} to {high - 1}"
        yield _cells((blocks, _value(here[0], study.objective) if here else "", str(len(here))))


def _value(trial: TrialRecord, objective: str) -> str:
    return value_words(trial.value or 0.0, objective)
