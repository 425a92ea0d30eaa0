"""Snapshots of a study: workers, time left, cost and winner, from planted records."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
import tiny
from finished import make_point, make_row, make_verdict
from optuna.trial import TrialState

from tlopt.analysis.cost import Cost
from tlopt.analysis.format import (
    best_sentence,
    budget_words,
    cost_words,
    end_sentences,
    hours_sentence,
    left_words,
    winner_sentence,
)
from tlopt.analysis.snapshot import Snapshot, WorkerRow, take_snapshot
from tlopt.analysis.time_left import TimeLeft
from tlopt.app.tables import status_group
from tlopt.search.race import PLAIN, n_point_runs
from tlopt.spec.outcome import Outcome
from tlopt.storage import attributes, studies
from tlopt.storage import workers as worker_rows
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.commands import Command
from tlopt.storage.schema import workers

TEXT = tiny.text("lr = 0.1")
STUDY = tiny.spec.loads(TEXT, "x.toml")


@pytest.mark.parametrize(("silent_seconds", "shown"), [(0, True), (60, True), (870, True), (960, False)])
def test_a_worker_is_shown_until_it_is_surely_gone(tmp_path: Path, silent_seconds: int, shown: bool) -> None:
    store = studies.open_storage(f"sqlite:///{tmp_path}/tlopt.db")
    studies.create_or_open(store, STUDY, file_text=TEXT, fingerprints={})
    service, me = studies.service_of(store), worker_rows.this_process()
    seen = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=silent_seconds)
    service.query(
        lambda at: worker_rows.register(at, service.engine, me, device="cpu", studies="planted,other")
    )
    service.query(lambda at: at.execute(sa.update(workers).values(seen=seen)))

    rows = take_snapshot(STUDY, store).workers

    assert [row.name for row in rows] == [me.name] * shown
    assert all(abs(row.silent_seconds - silent_seconds) < 20 for row in rows)


def test_a_worker_of_other_studies_is_not_shown(tmp_path: Path) -> None:
    store = studies.open_storage(f"sqlite:///{tmp_path}/tlopt.db")
    studies.create_or_open(store, STUDY, file_text=TEXT, fingerprints={})
    service = studies.service_of(store)
    service.query(
        lambda at: worker_rows.register(
            at, service.engine, worker_rows.this_process(), device="cpu", studies="other"
        )
    )

    assert take_snapshot(STUDY, store).workers == ()


def test_every_default_that_the_study_began_with_has_its_runs_in_the_confirmation(tmp_path: Path) -> None:
    store = studies.open_storage(f"sqlite:///{tmp_path}/tlopt.db")
    search = studies.create_or_open(store, STUDY, file_text=TEXT, fingerprints={})
    begun_by_an_earlier_version = take_snapshot(STUDY, store)
    search.set_user_attr(attributes.DEFAULTS, [{"label": label} for label in ("a", "b", "c")])

    seeds = STUDY.confirm.seeds
    assert take_snapshot(STUDY, store).n_runs == begun_by_an_earlier_version.n_runs + seeds
    assert begun_by_an_earlier_version.n_runs == n_point_runs(STUDY.confirm.points, seeds) + 2 * seeds


# What is made of it


def record(number: int, value: float | None = 0.5, **changes: Any) -> TrialRecord:
    """A trial of five epochs and 60 seconds."""
    return replace(
        TrialRecord.from_frozen(
            optuna.create_trial(
                value=value,
                state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
                intermediate_values={0: 0.1, 4: value or 0.1},
                user_attrs={
                    attributes.TRIAL_RESULT: {"seconds": 60.0, "processor_seconds": 90.0},
                    attributes.POINT: make_point().as_dict(),
                },
            )
        ),
        number=number,
        **changes,
    )


def worker(trial: int | None) -> WorkerRow:
    return WorkerRow(
        name="here:1", device="cpu", study="planted", trial=trial, epoch=0, epochs=5, step=0, steps=0,
        silent_seconds=0.0,
    )  # fmt: skip


def seen(**changes: Any) -> Snapshot:
    """60 trials are planned, and three points and two defaults confirmed over three seeds, one of the points
    on a single one.
    """
    usual = {"study": STUDY, "command": Command(), "trials": (), "workers": ()}
    return Snapshot(**{**usual, **changes})


def test_the_time_left_has_the_confirmation_in_it() -> None:
    at_work = seen(trials=tuple(record(i) for i in range(20)), workers=(worker(20), worker(21)))

    assert at_work.left == TimeLeft(search=40 * 60 / 2, confirm=13 * 60 / 2)
    assert left_words(at_work) == "about 26.5 minutes left, 6.5 minutes of it for the confirmation"


def test_a_run_of_the_confirmation_trains_on_one_of_the_splits() -> None:
    at_work = seen(trials=(record(0),), workers=(worker(1),), n_splits=3)

    assert at_work.left == TimeLeft(search=59 * 60, confirm=13 * 20)


def test_a_study_without_trials_has_no_outcomes_to_list() -> None:
    assert str(status_group(seen(), top=5).renderables[0]) == "planted: 0 of 60 trials"


def test_one_fast_run_does_not_foretell_the_whole_confirmation() -> None:
    trials = tuple(record(i) for i in range(60))
    fast = replace(record(0), seconds=0.5)
    after_one = seen(trials=trials, runs=(fast,), workers=(worker(1),)).left
    after_a_round = seen(trials=trials, runs=(fast,) * 5, workers=(worker(1),)).left

    assert after_one is not None
    assert after_one.confirm == pytest.approx(13 * 60, rel=0.02)
    assert after_a_round is not None
    assert after_a_round.confirm == pytest.approx(13 * 0.5)


PRUNED_TEXT = TEXT + "[prune]\nmultiply_adds = [0.5, 0.3]\nepochs = 2\n"  # in 4 rounds: 8 epochs each
PRUNED_STUDY = tiny.spec.loads(PRUNED_TEXT, "x.toml")
HALF, LESS = (goal.words for goal in PRUNED_STUDY.prune.goals)


def confirmed_and_pruned(*prunings: TrialRecord, classifier: str = "network") -> Snapshot:
    """The confirmation has chosen a network with half of the multiply-adds of plain fine-tuning, of which an
    epoch takes 12 seconds.
    """
    rows = [
        make_row("trial 7", (0.92, 0.92, 0.92), number=7, point=make_point(classifier=classifier)),
        make_row("plain fine-tuning", (0.90, 0.90, 0.90), number=PLAIN),
    ]
    costs = ({"multiply_adds": 50e6}, {"multiply_adds": 100e6})
    rows = [replace(row, inference_cost=cost) for row, cost in zip(rows, costs, strict=True)]
    return seen(
        study=PRUNED_STUDY,
        trials=tuple(record(i) for i in range(60)),
        runs=(record(0, label="trial 7", seconds=1.0), record(1, label="plain fine-tuning")),
        verdict=replace(make_verdict(rows), n_expected=6, n_finished=6),
        workers=(worker(0), worker(1)),
        prunings=prunings,
        stage="prune",
    )


def test_the_time_left_has_the_prunings_in_it() -> None:
    at_work = seen(
        study=PRUNED_STUDY,
        trials=tuple(record(i) for i in range(20)),
        workers=(worker(20), worker(21)),
    )

    assert at_work.left == TimeLeft(search=40 * 60 / 2, confirm=13 * 60 / 2, prune=8 * 12)
    assert at_work.as_dict()["left_seconds"] == 1200 + 390 + 96
    assert left_words(at_work) == (
        "about 28.1 minutes left, 6.5 minutes of it for the confirmation, 96 seconds of it for prunings"
    )


def test_the_first_prunings_take_the_time_of_training_every_block_of_the_chosen_network() -> None:
    waiting = confirmed_and_pruned()
    half_begun = confirmed_and_pruned(
        record(0, label=HALF, last_epoch=2, state=TrialState.RUNNING, outcome=Outcome.RUNNING)
    )
    alone = replace(half_begun, workers=(worker(0),))

    assert waiting.left == TimeLeft(search=0.0, confirm=0.0, prune=8 * 6)
    assert half_begun.left == waiting.left, "the other one is not begun, and one worker's"
    assert alone.left == TimeLeft(search=0.0, confirm=0.0, prune=(5 + 8) * 6)
    assert left_words(alone) == "about 78 seconds left"


def test_prunings_that_have_ended_tell_the_time_of_others_however_early_they_ended() -> None:
    early = record(0, None, label=HALF, last_epoch=3, seconds=40.0)
    ended = record(1, label=LESS, last_epoch=7, seconds=20.0)

    assert confirmed_and_pruned(early).left == TimeLeft(search=0.0, confirm=0.0, prune=8 * 10)
    assert confirmed_and_pruned(early, ended).left == TimeLeft(search=0.0, confirm=0.0)
    assert confirmed_and_pruned(replace(early, state=TrialState.FAIL)).left == confirmed_and_pruned().left


def test_the_epochs_of_prunings_under_way_tell_their_time_on_a_machine_that_is_busy_by_now() -> None:
    """An epoch takes 30 seconds now; plain fine-tuning foretold 6 when the machine was quiet."""
    begun = record(0, label=HALF, last_epoch=2, state=TrialState.RUNNING, outcome=Outcome.RUNNING)
    study = PRUNED_STUDY.name + ".prune"
    busy = replace(worker(0), study=study, epoch=3, step=5, steps=10, seconds=3.5 * 30)
    starting = replace(busy, epoch=0, seconds=40.0)

    def left(row: WorkerRow) -> TimeLeft | None:
        return replace(confirmed_and_pruned(begun), workers=(row,)).left

    assert left(busy) == TimeLeft(search=0.0, confirm=0.0, prune=(5 + 8) * 30)
    assert left(starting) == TimeLeft(search=0.0, confirm=0.0, prune=(5 + 8) * 6), "in its first epoch"
    assert left(replace(busy, study="another.prune")) == left(starting)


def test_no_time_is_left_for_prunings_of_a_linear_classifier() -> None:
    assert confirmed_and_pruned(classifier="svm").left == TimeLeft(search=0.0, confirm=0.0)


@pytest.mark.parametrize("changes", [{"trials": (record(0),)}, {"workers": (worker(0),)}])
def test_nothing_is_guessed_without_a_worker_or_a_trial(changes: dict[str, Any]) -> None:
    assert seen(**changes).left is None
    assert left_words(seen(**changes)) == ""


def test_the_end_of_the_hours_is_one_sentence_with_the_cure() -> None:
    hours = STUDY.budget.model_copy(update={"hours": 2.0})
    late = seen(study=STUDY.model_copy(update={"budget": hours}), trials=(record(0),), hours_left=-1.0)

    assert late.hours_are_over
    said = hours_sentence(late)
    assert said.startswith("budget.hours = 2 is over, with 1 of 60 trials finished")
    assert "raise budget.hours in the study file" in said
    assert hours_sentence(replace(late, hours_left=0.5)) == ""
    assert hours_sentence(replace(late, trials=tuple(record(i) for i in range(60)))) == ""


def with_enough(*values: float) -> Snapshot:
    """A search with `trials = "enough"` and these trials."""
    budget = STUDY.budget.model_copy(update={"trials": "enough"})
    trials = tuple(record(number, value) for number, value in enumerate(values))
    return seen(study=STUDY.model_copy(update={"budget": budget}), trials=trials, workers=(worker(99),))


def test_a_search_that_had_enough_trials_says_so_with_the_cure() -> None:
    ended = with_enough(0.5, 0.6, *[0.5] * 22)

    (said,) = end_sentences(ended)

    assert said == (
        'trials = "enough": the search ended after 24 trials, because the last 16 found nothing better than'
        " trial 1; a number for budget.trials in the study file makes it go on"
    )
    assert (ended.progress, ended.as_dict()["trials_planned"]) == ((24, 24), 24)
    lines = [str(part) for part in status_group(ended, top=5).renderables]
    assert any(said in line for line in lines)


def test_a_search_that_never_had_enough_ends_at_the_limit() -> None:
    (said,) = end_sentences(with_enough(*(n / 100 for n in range(60))))

    assert said.startswith('trials = "enough": the search ended at its limit of 60 trials; ')


def test_before_a_search_has_enough_trials_its_time_is_a_bound() -> None:
    goes_on = with_enough(0.5, 0.6, *[0.5] * 21)

    assert list(end_sentences(goes_on)) == []
    assert goes_on.progress == (23, 60)
    assert left_words(goes_on).startswith("at most about 50.0 minutes left")
    assert budget_words(goes_on.study) == (
        "24 to 60 trials of at most 30 epochs, until 16 in a row find nothing better"
    )


def test_costs_add_up_and_old_records_have_no_processor_time() -> None:
    search = Cost.of([record(0), record(1, None)], n_splits=3)
    old = Cost.of([record(2, processor_seconds=None)])

    assert search == Cost(n=2, epochs=30, seconds=120.0, processor_seconds=180.0)
    assert search + old == Cost(n=3, epochs=35, seconds=180.0, processor_seconds=None)
    assert cost_words(search) == "30 epochs, 3.0 minutes of processor time, 2.0 minutes of work"
    assert cost_words(old) == "5 epochs, 60 seconds of work"


def confirmed(chosen: str) -> Snapshot:
    """The search's best trial is 7 with 95 %, and the confirmation has chosen `chosen`."""
    rows = [
        make_row("trial 12", (0.92, 0.92, 0.92), number=12),
        make_row("trial 7", (0.90, 0.90, 0.90), number=7),
    ]
    if chosen == "trial 7":
        rows[0], rows[1] = replace(rows[0], val=rows[1].val), replace(rows[1], val=rows[0].val)
    verdict = replace(make_verdict(rows), n_expected=6, n_finished=6)
    return seen(trials=(record(7, 0.95), record(12, 0.93)), verdict=verdict)


def test_one_winner_is_named_and_optunas_beside_it_where_it_is_another() -> None:
    said = winner_sentence(confirmed("trial 12"))

    assert said.startswith("chosen by the confirmation: trial 12. Optuna's best trial is 7, 95.0 %")
    assert said.endswith("which luck may have helped")  # equal values over seeds show no luck
    assert winner_sentence(confirmed("trial 7")) == "chosen by the confirmation: trial 7"
    going = replace(confirmed("trial 7"), verdict=None)
    assert winner_sentence(going) == ""


def test_optunas_best_trial_is_an_added_one_where_that_has_the_best_value() -> None:
    done = confirmed("trial 7")
    better, worse, pruned = (
        replace(record(number, value), outcome=Outcome.ADDED)
        for number, value in ((3, 0.99), (4, 0.5), (5, None))
    )

    said = winner_sentence(replace(done, trials=(*done.trials, better, worse, pruned)))

    assert said == (
        "chosen by the confirmation: trial 7. Optuna's best trial is 3, 99.0 %: it was added and not trained"
        " by tlopt"
    )
    assert winner_sentence(replace(done, trials=(*done.trials, worse, pruned))) == winner_sentence(done)


def test_a_confirmation_leads_by_its_mean_and_not_by_its_luckiest_seed() -> None:
    rows = [
        make_row("trial 12", (0.99, 0.80), number=12),
        make_row("trial 7", (0.92, 0.94), number=7),
    ]
    going = seen(verdict=replace(make_verdict(rows), n_finished=4), stage="confirm")

    assert best_sentence(going) == "leading so far: trial 7, 93.0 % on validation over 2 of 3 seeds"


def test_the_best_of_a_search_is_told_with_one_number() -> None:
    assert best_sentence(seen(trials=(record(2, 0.79, label="linear probe"),))) == (
        "best so far: 79.0 % (trial 2, linear probe)"
    )


def test_a_chosen_default_is_the_trial_that_ran_it() -> None:
    verdict = make_verdict([make_row("linear probe", (0.92, 0.92, 0.92), number=-2)])
    done = seen(
        trials=(record(0, 0.9, label="linear probe"), record(1, 0.95)),
        verdict=replace(verdict, n_expected=3, n_finished=3),
    )

    assert done.chosen_trial == 0
    assert replace(done, verdict=None).chosen_trial is None
