"""Lost responses and outages of a worker's database: each call takes effect once, and reports are kept."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from study_workers import Faults, What, Worker, no_pauses, noted, start_worker

from tlopt.errors import StorageError
from tlopt.storage.leases import LeaseLost

FAULTS: list[tuple[What, bool]] = [
    ("begin", False),
    ("begin", True),
    ("commit", False),
    ("commit", True),
    ("statement", False),
    ("statement", True),
]


@pytest.fixture
def worker(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> Worker:
    no_pauses(monkeypatch)
    return start_worker(storage_url)


@pytest.fixture
def faults(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(worker, monkeypatch)


def create(worker: Worker, faults: Faults) -> Callable[[], None]:
    before = len(worker.trials)

    def check_one() -> None:
        worker.claim()
        faults.rest()
        assert len(worker.trials) == before + 1
        assert_held(worker, before)

    return check_one


def take(worker: Worker, faults: Faults) -> Callable[[], None]:
    number = len(worker.trials)
    worker.study.enqueue_trial({"x": 0.5})

    def check_one() -> None:
        worker.claim(has_waiting=True)
        faults.rest()
        assert len(worker.trials) == number + 1
        assert_held(worker, number)

    return check_one


def assert_held(worker: Worker, number: int) -> None:
    """The trial runs, is held and has its parameter; end it."""
    trial = worker.trials[number]
    assert (trial.state, list(trial.params)) == (TrialState.RUNNING, ["x"])
    rows = worker.rows()
    assert [row[0] for row in rows["leases"] if row[2] is not None] == [trial._trial_id]
    assert worker.service.holds(trial._trial_id)
    worker.service.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def tell(worker: Worker, faults: Faults) -> Callable[[], None]:
    trial = worker.claim()

    def check_one() -> None:
        with worker.service.writing_together(trial._trial_id):
            trial.set_user_attr("note", "kept")
            worker.study.tell(trial, 0.5)
        faults.rest()
        stored = worker.trials[trial.number]
        assert (stored.state, stored.value, noted(stored)) == (
            TrialState.COMPLETE,
            0.5,
            {"note": "kept"},
        )
        assert worker.rows()["leases"] == []

    return check_one


def requeue(worker: Worker, faults: Faults) -> Callable[[], None]:
    trial = worker.claim()

    def check_one() -> None:
        worker.requeue(trial)
        faults.rest()
        assert worker.trials[trial.number].state == TrialState.WAITING
        assert not worker.service.holds(trial._trial_id)
        worker.study.tell(worker.claim(has_waiting=True), state=TrialState.FAIL)

    return check_one


def report(worker: Worker, faults: Faults) -> Callable[[], None]:
    trial = worker.claim()
    trial.report(0.25, 0)

    def check_one() -> None:
        trial.report(0.5, 1)
        worker.service.retry.note_answer()  # as the heartbeat notes
        trial.report(0.75, 2)
        worker.service.retry.note_answer()
        worker.service.write_pending(trial._trial_id)
        assert not worker.service.unsent(trial._trial_id)
        assert worker.trials[trial.number].intermediate_values == {0: 0.25, 1: 0.5, 2: 0.75}
        worker.study.tell(trial, state=TrialState.FAIL)

    return check_one


def attributes(worker: Worker, faults: Faults) -> Callable[[], None]:
    trial = worker.claim()

    def check_one() -> None:
        trial.set_user_attr("alone", 1)
        with worker.service.writing_together(trial._trial_id):
            trial.set_user_attr("both", 2)
            trial.set_constraint("fits", 1.0)
        stored = worker.trials[trial.number]
        assert (noted(stored), stored.constraints) == ({"alone": 1, "both": 2}, {"fits": 1.0})
        worker.study.tell(trial, state=TrialState.FAIL)

    return check_one


@pytest.mark.parametrize("act", [create, take, tell, requeue, report, attributes])
def test_whatever_answer_is_lost_a_call_has_one_effect(
    act: Callable[[Worker, Faults], Callable[[], None]], worker: Worker, faults: Faults
) -> None:
    check_one = act(worker, faults)
    faults.clear()
    check_one()
    counts = dict(faults.counts)
    assert counts["commit"] > 0

    for what, done in FAULTS:
        for at in range(min(counts[what], 12)):
            check_one = act(worker, faults)
            faults.plant(what, at, done=done)
            check_one()
            faults.clear()

    held = [trial for trial in worker.trials if trial.state == TrialState.RUNNING]
    assert held == []


def test_a_call_whose_error_is_no_outage_is_not_tried_again(worker: Worker, faults: Faults) -> None:
    faults.clear()

    with pytest.raises(sa.exc.DatabaseError):
        worker.service.query(lambda executor: executor.execute(sa.text("SELECT nothing FROM studies")))

    assert faults.counts["statement"] == 1


def test_a_report_is_one_statement_and_a_trial_that_is_claimed_few(worker: Worker, faults: Faults) -> None:
    trial = worker.claim()
    faults.clear()
    trial.report(0.5, 0)
    reported = faults.counts["statement"]
    faults.clear()
    worker.claim()

    assert reported == 1
    assert faults.counts["statement"] <= 24


def test_what_is_drawn_is_written_at_the_claims_end(worker: Worker, storage_url: str) -> None:
    other = start_worker(storage_url)
    seen: list[dict[str, Any]] = []
    draw = worker.study.sampler.sample_independent

    def spy(*args: Any) -> Any:
        seen.append(other.trials[0].params)
        return draw(*args)

    worker.study.sampler.sample_independent = spy  # type: ignore[method-assign]
    trial = worker.claim()

    assert seen == [{}]
    assert other.trials[0].params == trial.params


# Reports while the database is away


def test_reports_made_in_an_outage_are_sent_with_the_next(worker: Worker, faults: Faults) -> None:
    trial = worker.claim()
    faults.plant("statement", 0, done=False)
    trial.report(0.25, 0)
    trial.report(0.5, 1)
    away = (worker.service.retry.in_outage, worker.service.unsent(trial._trial_id))
    stored_then = worker.rows()["reports"]

    worker.service.retry.note_answer()
    trial.report(float("nan"), 2)
    rows = worker.rows()["reports"]

    assert (away, stored_then) == ((True, True), [])
    assert [row[2] for row in sorted(rows)] == [0, 1, 2]
    assert worker.service.retry.n_outages == 1


def test_reports_made_in_an_outage_are_written_with_the_trials_end(worker: Worker, faults: Faults) -> None:
    trial = worker.claim()
    faults.plant("statement", 0, done=False)
    trial.report(0.25, 0)
    trial.report(0.75, 1)
    faults.clear()

    worker.service.write_pending(trial._trial_id)
    worker.study.tell(trial, state=TrialState.PRUNED)

    (stored,) = worker.trials
    assert (stored.intermediate_values, stored.value) == ({0: 0.25, 1: 0.75}, 0.75)


def test_reports_made_in_an_outage_are_not_anothers(worker: Worker, faults: Faults, storage_url: str) -> None:
    other = start_worker(storage_url)
    trial = worker.claim()
    faults.plant("statement", 0, done=False)
    trial.report(0.25, 0)
    other.expire(trial)
    before = other.rows()
    worker.service.retry.note_answer()

    with pytest.raises(LeaseLost):
        trial.report(0.5, 1)
    worker.service.forget_trial(trial._trial_id)

    assert other.rows() == before
    assert not worker.service.unsent(trial._trial_id)


def test_a_worker_in_a_hurry_tries_nothing_again(worker: Worker, faults: Faults) -> None:
    trial = worker.claim()
    worker.service.retry.shutting_down = True
    faults.plant("statement", 0, done=False)

    with pytest.raises(StorageError, match="the database is unavailable: server closed"):
        worker.requeue(trial)


def test_a_plain_call_needs_no_lease(worker: Worker) -> None:
    trial = worker.study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    trial.report(0.5, 0)
    trial.set_user_attr("note", "plain")
    worker.study.tell(trial, 0.5)

    assert worker.trials[0].value == 0.5
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        worker.service.set_trial_user_attr(trial._trial_id, "note", "late")
