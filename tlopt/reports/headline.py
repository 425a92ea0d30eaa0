"""The head of a report: the study's result in numbers and sentences."""

from collections.abc import Iterator
from dataclasses import dataclass

from tlopt.analysis.format import (
    default_sentence,
    describe,
    enough_sentence,
    gain_words,
    interval_words,
    point_sentence,
    spread_words,
    standing_words,
)
from tlopt.reports.data import Report
from tlopt.spec.objectives import TITLES, value_words
from tlopt.storage.attributes import TrialRecord
from tlopt.system.words import counted


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number in the head of the report."""

    value: str
    title: str
    note: str = ""


def state(report: Report) -> str:
    """The progress of the search, and the command to its workers unless that is to run."""
    snapshot = report.snapshot
    order = "" if snapshot.command.runs_trials else f"; {snapshot.command.state}"
    reason = f" ({snapshot.command.reason})" if order and snapshot.command.reason else ""
    return f"{snapshot.n_finished} of {counted(snapshot.n_planned, 'trial')}{order}{reason}"


def tiles(report: Report) -> Iterator[Tile]:
    """The chosen point's value and gains, or before a confirmation the best trial's value."""
    objective = report.study.objective
    verdict = report.confirmed
    if verdict is not None:
        split = verdict.split
        spread = verdict.chosen.spread(objective, split=split)
        where = "test" if split == "test" else "validation"
        n = counted(spread.n, "seed") if spread else ""
        yield Tile(value=spread_words(spread, objective), title=f"{where} {TITLES[objective]}", note=n)
        for label in verdict.defaults:
            gain = None if verdict.chosen.label == label else verdict.gain(label, split=split)
            if gain is not None:
                better = " (positive is better)" if objective == "log_loss" else ""
                interval = interval_words(gain, objective)
                note = f"on {where}{better}: {standing_words(verdict, label)} ({interval})"
                yield Tile(value=gain_words(gain, objective), title=f"over {label}", note=note)
    elif report.ranked:
        best = report.ranked[0]
        yield Tile(
            value=value_words(best.value or 0.0, objective),
            title=f"validation {TITLES[objective]} of {_named(best)}",
            note="one run; not confirmed",
        )


def sentences(report: Report) -> Iterator[str]:
    """Sentences about the chosen candidate, or the statement that nothing is confirmed."""
    verdict = report.verdict
    if ended := enough_sentence(report.snapshot):
        yield f"{ended}."
    if report.confirmed is not None:
        chosen = report.confirmed.chosen
        yield f"Chosen by validation: {chosen.label} ({describe(chosen.point)})."
        yield f"In words: {point_sentence(chosen.point)}."
        if chosen.is_default:
            yield default_sentence(report.confirmed, chosen.label)
        if not chosen.test:
            yield (
                "The test images have not been read. The point was chosen for its validation value, which is"
                " therefore too good."
            )
        return
    if verdict is not None and verdict.finished:
        yield "No candidate of the confirmation ended with a value, so nothing is confirmed."
    elif verdict is not None:
        yield (
            f"Not confirmed yet: {verdict.n_finished} of {verdict.n_expected} runs of the confirmation"
            " have ended. A best trial is a lucky trial."
        )
    elif report.ranked:
        yield (
            "Not confirmed yet: a best trial is a lucky trial. It was chosen for its validation value, which"
            " is therefore too good; tlopt confirm runs the best points and the defaults again over seeds."
        )
    else:
        yield "No trial is complete, so there are no values to show yet."
    if report.ranked and report.ranked[0].point:
        best = report.ranked[0]
        name = _named(best) if best.is_carried else str(best.number)
        yield f"Best trial so far: {name} ({describe(report.ranked[0].point)})."


def _named(trial: TrialRecord) -> str:
    return trial.label if trial.is_carried else f"trial {trial.number}"
