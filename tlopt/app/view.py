"""A study for notebooks: one line, a table, data frames."""

import html
from typing import TYPE_CHECKING, Any

import optuna

from tlopt.analysis.explain.explanation import Explanation
from tlopt.analysis.format import best_sentence, describe
from tlopt.analysis.snapshot import Snapshot
from tlopt.analysis.table import rows
from tlopt.app import deliver
from tlopt.app.handle import Session
from tlopt.app.next_study import explanation_of
from tlopt.confirmation.verdict import Verdict
from tlopt.search.front import front_trials
from tlopt.spec import Study
from tlopt.spec.objectives import value_words
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.system.frames import data_frame, html_table
from tlopt.system.words import counted

if TYPE_CHECKING:
    from tlopt.reports.figures import ReportFigure

_SHOWN = 10  # best trials in the table of a notebook


class StudyView:
    """A read-only view of a study, read from the database at each access."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def spec(self) -> Study:
        """The study file."""
        return self._session.study

    @property
    def optuna_study(self) -> optuna.Study:
        """The search as a plain Optuna study, for Optuna's own plots and functions."""
        return self._session.optuna_study()

    @property
    def snapshot(self) -> Snapshot:
        """Search, confirmation, workers and cost at this moment."""
        return self._session.snapshot()

    @property
    def trials(self) -> list[TrialRecord]:
        """Every trial of the search, by number."""
        return list(self.snapshot.trials)

    def front(self) -> list[TrialRecord]:
        """The complete trials that no other one beats in every objective, best metric first.

        Their `values` are in the order of `spec.objectives`. With one objective, the best trials.
        """
        return front_trials(self.trials, self.spec)

    @property
    def verdict(self) -> Verdict | None:
        """The outcome of the confirmation so far; None before it has begun."""
        return self.snapshot.verdict

    @property
    def figures(self) -> "dict[str, list[ReportFigure]]":
        """The report's figures by section: progress, depths, strengths, pairs, curves.

        Notebooks display a figure; its `standalone` is the text of an SVG file.
        """
        return deliver.figures(self._session)

    def explain(self) -> Explanation:
        """What the trials say about the keys, with intervals, and the ranges to search next.

        Its figures are among `figures`: bands of single keys in "depths" and "strengths", maps in "pairs".
        """
        return explanation_of(self._session)

    def to_frame(self) -> Any:
        """A pandas data frame with a row for each trial: record, `metric.NAME` and `point.KEY` columns.

        Raises:
            MissingExtra: pandas is not installed.
        """
        return data_frame(rows(self.trials))

    def __repr__(self) -> str:
        now = self.snapshot
        best = best_sentence(now)
        if now.chosen is not None:
            mean = now.chosen.words(self.spec.objective, split="val")
            best = f"chosen by the confirmation: {now.chosen.label}, {mean} on validation"
        done = f"{now.n_finished} of {counted(now.n_planned, 'trial')}"
        return f"<StudyView {self.spec.name}: {done}{'; ' + best if best else ''}>"

    def _repr_html_(self) -> str:
        """The best trials as a table, for notebooks."""
        objective, direction = self.spec.objective, self.spec.direction
        best = best_first(self.trials, direction)[:_SHOWN]
        table = [
            (
                str(trial.number),
                value_words(trial.value or 0.0, objective),
                trial.label,
                describe(trial.point) if trial.point else "",
            )
            for trial in best
        ]
        summary = html.escape(repr(self).removeprefix("<StudyView ").removesuffix(">"))
        return f"<p>{summary}</p>{html_table(('trial', objective, 'name', 'point'), table)}"
