"""The data of a study's report as one record, read from the database alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from tlopt.analysis.causes import Cause, causes
from tlopt.analysis.cost import Cost
from tlopt.analysis.explain.explanation import Explanation, explain
from tlopt.analysis.ranking import Best, ranking
from tlopt.analysis.snapshot import Snapshot
from tlopt.confirmation.predictions import Predictions
from tlopt.confirmation.verdict import SplitName, Verdict
from tlopt.insight.record import Fit
from tlopt.plots.series import Array, evenly
from tlopt.spec import Study
from tlopt.spec.outcome import Outcome
from tlopt.storage import attributes as study_attributes
from tlopt.storage.attributes import TrialRecord, best_first

CURVES_BEST = 8
CURVES_PRUNED_MAX = 80


@dataclass(frozen=True, kw_only=True)
class TrialCurve:
    """The learning curve of one trial."""

    number: int
    values: Array  # (epochs, 2): epoch from 1, objective


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """All data of a report, as of one moment."""

    snapshot: Snapshot
    file_text: str
    verdict: Verdict | None  # None until the confirmation has been begun
    best: Best | None  # confirmed or not, see `ranking`
    ranked: tuple[TrialRecord, ...]  # complete trials, best first
    explanation: Explanation
    curves_best: tuple[TrialCurve, ...]  # best first
    curves_pruned: tuple[TrialCurve, ...]
    spent: tuple[tuple[str, Cost], ...]  # by outcome, then the confirmation and the prunings
    causes: tuple[Cause, ...]  # most frequent first
    images: Mapping[str, Any]  # as `records.IMAGES`; empty if an earlier version began the study
    fingerprints: Mapping[str, str]  # fingerprint of the images, digest of the weights
    created: datetime
    predictions: Mapping[SplitName, Predictions]  # of the exported network; empty if not recorded
    fits: tuple[Fit, ...]  # of pretrained networks, as stored by `tlopt fit`

    @property
    def study(self) -> Study:
        """The study file stored in the database."""
        return self.snapshot.study

    @property
    def confirmed(self) -> Verdict | None:
        """The verdict, if all of its runs have ended and the chosen point has a value."""
        verdict = self.verdict
        return verdict if verdict is not None and verdict.finished and verdict.chosen.val else None


def collect_report(
    snapshot: Snapshot,
    opened: optuna.Study,
    confirmation: optuna.Study | None,
    verdict: Verdict | None,
    *,
    created: datetime,
    predictions: Mapping[SplitName, Predictions] | None = None,
) -> Report:
    """The report on the search `opened`.

    Args:
        snapshot: snapshot of the search, with the stored study file.
        confirmation: the confirmation, if begun; `verdict` is its outcome.
        predictions: predictions of the exported network by split, if present on this machine.
    """
    direction, attributes = snapshot.study.direction, opened.user_attrs
    trials = study_attributes.trials_of(opened)
    ranked = best_first(snapshot.trials, direction)
    pruned = [trial.number for trial in snapshot.trials if trial.outcome == Outcome.PRUNED]
    shown = [pruned[index] for index in evenly(len(pruned), CURVES_PRUNED_MAX)]
    runs = () if confirmation is None else study_attributes.records_of(confirmation)
    confirmed = verdict if verdict is not None and verdict.finished else None
    chosen = snapshot.chosen_trial
    return Report(
        snapshot=snapshot,
        file_text=str(attributes.get(study_attributes.STUDY_FILE, "")),
        verdict=verdict,
        best=next(iter(ranking(snapshot.study, snapshot.trials, confirmed)), None),
        ranked=tuple(ranked),
        explanation=explain(snapshot.study, trials, keep=() if chosen is None else (chosen,)),
        curves_best=_curves(trials, [trial.number for trial in ranked[:CURVES_BEST]]),
        curves_pruned=_curves(trials, shown),
        spent=_spent(snapshot, runs),
        causes=causes(snapshot.trials),
        images=attributes.get(study_attributes.IMAGES, {}),
        fingerprints={
            name: str(attributes.get(study_attributes.fingerprint_key(name), ""))
            for name in study_attributes.FINGERPRINTS
        },
        created=created,
        predictions=predictions or {},
        fits=tuple(map(Fit.from_dict, attributes.get(study_attributes.FIT, {}).get("fits", ()))),
    )


def _curves(trials: Sequence[FrozenTrial], numbers: Sequence[int]) -> tuple[TrialCurve, ...]:
    by_number = {trial.number: trial for trial in trials}
    curves = []
    for number in numbers:
        reports = sorted(study_attributes.curve_of(by_number[number]).items())
        values = np.array([(epoch + 1, value) for epoch, value in reports if np.isfinite(value)])
        if len(values):
            curves.append(TrialCurve(number=number, values=values))
    return tuple(curves)


def _spent(snapshot: Snapshot, runs: Sequence[TrialRecord]) -> tuple[tuple[str, Cost], ...]:
    rows = [
        (outcome, Cost.of((t for t in snapshot.trials if t.outcome == outcome), n_splits=snapshot.n_splits))
        for outcome in snapshot.outcomes
        if outcome != Outcome.CARRIED
    ]
    ended = [run for run in runs if run.state.is_finished()]
    prunings = [("prunings", snapshot.prune_cost)] if snapshot.prune_cost.n else []
    return (*rows, *([("confirmation", Cost.of(ended))] if ended else []), *prunings)
