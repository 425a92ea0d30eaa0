"""A trial has one holder: one whose lease expired writes nothing more, and the budget is never exceeded."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState
from study_workers import STUDY, Worker, start_worker

from tlopt.storage import attributes, leases, studies
from tlopt.storage.leases import LeaseChanged, LeaseLost


def with_attr(worker: Worker, trial: Trial) -> None:
    with worker.service.writing_together(trial._trial_id):
        trial.set_user_attr("note", "late")


WRITES: dict[str, Callable[[Worker, Trial], Any]] = {
    "report": lambda worker, trial: trial.report(0.75, 1),
    "parameter": lambda worker, trial: trial.suggest_float("y", 0.0, 1.0),
    "user attribute": lambda worker, trial: trial.set_user_attr("note", "late"),
    "system attribute": lambda worker, trial: trial.set_constraint("fits", 1.0),
    "complete": lambda worker, trial: worker.study.tell(trial, 0.75),
    "pruned": lambda worker, trial: worker.study.tell(trial, state=TrialState.PRUNED),
    "failed": lambda worker, trial: worker.study.tell(trial, state=TrialState.FAIL),
    "hand back": lambda worker, trial: worker.requeue(trial),
    "complete by the storage": lambda worker, trial: worker.service.set_trial_state_values(
        trial._trial_id, TrialState.COMPLETE, [0.75]
    ),
    "attributes together": with_attr,  # last: it leaves a draft
}


def assert_writes_nothing(late: Worker, trial: Trial) -> None:
    before = late.rows()
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost):
            write(late, trial)
        assert late.rows() == before, name


@pytest.mark.parametrize("taken", [False, True], ids=["waiting", "taken"])
def test_a_holder_that_was_expired_writes_nothing(taken: bool, storage_url: str) -> None:
    late, other = start_worker(storage_url), start_worker(storage_url)
    trial = late.claim()
    trial.report(0.25, 0)
    other.expire(trial)
    if taken:
        other.claim(has_waiting=True)

    assert_writes_nothing(late, trial)


def test_a_trial_that_the_dashboard_has_ended_is_written_no_more(storage_url: str) -> None:
    late, dashboard = start_worker(storage_url), optuna.storages.get_storage(studies.normalise(storage_url))
    trial = late.claim()
    dashboard.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    assert_writes_nothing(late, trial)


def test_the_next_holder_has_the_same_trial_with_what_was_written(storage_url: str) -> None:
    first, second = start_worker(storage_url), start_worker(storage_url)
    trial = first.claim()
    trial.report(0.25, 0)
    trial.set_user_attr("note", "first")
    second.expire(trial)

    again = second.claim(has_waiting=True)
    again.report(0.5, 1)
    second.study.tell(again, 0.75)

    assert (again.number, again.params, again.user_attrs["note"]) == (0, trial.params, "first")
    (stored,) = second.trials
    assert (stored.intermediate_values, stored.value) == ({0: 0.25, 1: 0.5}, 0.75)
    assert second.rows()["leases"] == []


def test_crashes_in_a_row_are_counted_and_a_new_report_begins_anew(storage_url: str) -> None:
    first, second = start_worker(storage_url), start_worker(storage_url)
    trial = first.claim()
    told = []
    for reported in (False, False, True, False):
        second.expire(trial)
        found = first.try_claim(has_waiting=True)
        assert found is not None
        trial, claim = found
        told.append((claim.crashes, claim.crash_cause))
        if reported:
            trial.report(0.5, 0)

    assert told == [(1, "planted"), (2, "planted"), (3, "planted"), (1, "planted")]


def test_a_trial_that_was_requeued_has_not_crashed(storage_url: str) -> None:
    worker = start_worker(storage_url)
    worker.requeue(worker.claim())

    found = worker.try_claim(has_waiting=True)

    assert found is not None
    assert (found[0].number, found[1].crashes) == (0, 0)


def test_only_the_lease_that_was_seen_is_taken(storage_url: str) -> None:
    holder, other = start_worker(storage_url), start_worker(storage_url)
    trial = holder.claim()
    seen = other.seen(trial)
    assert holder.service.query(lambda executor: leases.renew_lease(executor, seen.token))
    before = other.rows()

    with pytest.raises(LeaseChanged):
        other.service.expire(seen, "planted")

    assert other.rows() == before


def test_a_trial_that_has_ended_or_is_gone_is_not_taken(storage_url: str) -> None:
    holder, other = start_worker(storage_url), start_worker(storage_url)
    trial = holder.claim()
    seen = other.seen(trial)
    holder.study.tell(trial, 0.5)

    with pytest.raises(LeaseChanged):
        other.service.expire(seen, "planted")
    optuna.delete_study(study_name=STUDY, storage=holder.store)
    with pytest.raises(LeaseChanged):
        other.service.expire(seen, "planted")


def test_a_heartbeat_for_a_lease_that_is_lost_says_so(storage_url: str) -> None:
    holder, other = start_worker(storage_url), start_worker(storage_url)
    token = other.seen(trial := holder.claim()).token
    other.expire(trial)

    assert not holder.service.query(lambda executor: leases.renew_lease(executor, token))


def test_a_heartbeat_for_a_trial_that_others_have_ended_says_so(storage_url: str) -> None:
    holder, dashboard = start_worker(storage_url), optuna.storages.get_storage(studies.normalise(storage_url))
    trial = holder.claim()
    token = holder.seen(trial).token
    before = holder.service.query(lambda executor: leases.renew_lease(executor, token))

    dashboard.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    assert before
    assert not holder.service.query(lambda executor: leases.renew_lease(executor, token))


def test_a_waiting_trial_counts_where_one_is_created_and_not_where_it_is_taken(storage_url: str) -> None:
    worker, person = start_worker(storage_url), start_worker(storage_url)
    worker.study.tell(worker.claim(budget=2), state=TrialState.FAIL)
    for x in (0.25, 0.75):
        person.study.enqueue_trial({"x": x})

    assert worker.try_claim(budget=2) is None
    assert worker.claim(budget=2, has_waiting=True).params == {"x": 0.25}
    assert worker.claim(budget=2, has_waiting=True).params == {"x": 0.75}
    assert worker.try_claim(budget=2, has_waiting=True) is None


def test_only_trials_that_ran_in_this_study_count(storage_url: str) -> None:
    worker = start_worker(storage_url)
    worker.study.set_user_attr(attributes.BEGAN, 1795955370.986)
    ran = {attributes.POINT: {"lr": 0.1}, attributes.TRIAL_RESULT: {"outcome": "complete"}}
    for stamp in ({attributes.STUDY: 1795955370.986}, {attributes.STUDY: 1795955370.987}, {}):
        worker.study.add_trial(optuna.create_trial(value=0.5, user_attrs=ran | stamp))

    counts = worker.service.query(lambda executor: leases.counts(executor, worker.study_id))

    assert counts[TrialState.COMPLETE] == 2  # its own, and the one of an earlier version
    assert worker.try_claim(budget=2) is None
    worker.study.tell(worker.claim(budget=3), 0.5)
    assert worker.trials[-1].user_attrs[attributes.STUDY] == 1795955370.986


# The budget, with many at once

BUDGET = 12
FAIL_NUMBERS, CRASH_NUMBERS = (1, 4, 6), (2, 8)


def spend(worker: Worker, budget: int) -> int:
    """Work until there is nothing to do; the most trials that ever counted."""
    most = 0
    for turn in count():
        standing, has_waiting = worker.work_state(budget)
        if standing == "over":
            break
        found = worker.try_claim(budget, has_waiting=has_waiting) if standing == "work" else None
        if found is None:
            assert turn < 5000
            continue
        counts = worker.service.query(lambda executor: leases.counts(executor, worker.study_id))
        most = max(most, sum(counts[s] for s in leases.COUNTED if s != TrialState.WAITING))
        _end(worker, *found)
    return most


def _end(worker: Worker, trial: Trial, claim: leases.Claim) -> None:
    trial.report(0.5, 0) if claim.crashes == 0 else None
    if trial.number in CRASH_NUMBERS and claim.crashes == 0:
        worker.expire(trial)
        worker.service.forget_trial(trial._trial_id)
    elif trial.number in FAIL_NUMBERS:
        worker.study.tell(trial, state=TrialState.FAIL)
    elif trial.number % 3 == 0:
        worker.study.tell(trial, state=TrialState.PRUNED)
    else:
        worker.study.tell(trial, 0.5)


def assert_spent(worker: Worker, budget: int) -> None:
    states = [trial.state for trial in worker.trials]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == budget
    assert states.count(TrialState.FAIL) == len(FAIL_NUMBERS)
    assert states.count(TrialState.RUNNING) == 0
    assert [trial.number for trial in worker.trials] == list(range(len(states)))
    assert len(worker.rows()["leases"]) == 0


def test_threads_that_claim_at_once_never_exceed_the_budget(storage_url: str) -> None:
    workers = [start_worker(storage_url) for _ in range(6)]
    for x in range(4):
        workers[0].study.enqueue_trial({"x": x / 10})

    with ThreadPoolExecutor(len(workers)) as pool:
        most = list(pool.map(lambda worker: spend(worker, BUDGET), workers))

    assert max(most) <= BUDGET
    assert_spent(workers[0], BUDGET)


def test_more_waiting_trials_than_the_budget_are_left(storage_url: str) -> None:
    workers = [start_worker(storage_url) for _ in range(4)]
    for x in range(9):
        workers[0].study.enqueue_trial({"x": x / 10})

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: spend(worker, 4), workers))

    states = [trial.state for trial in workers[0].trials]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == 4
    assert states.count(TrialState.WAITING) == 9 - 4 - states.count(TrialState.FAIL)


@pytest.mark.slow
@pytest.mark.postgres
def test_sixteen_processes_that_claim_at_once_never_exceed_the_budget(postgres_url: str) -> None:
    worker = start_worker(postgres_url)
    for x in range(5):
        worker.study.enqueue_trial({"x": x / 10})
    code = (
        "import sys; sys.path.append('..'); import study_workers, test_leases as t;"
        " print(t.spend(study_workers.start_worker(sys.argv[1]), 60))"
    )

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, postgres_url],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(16)
    ]
    most = [int(process.communicate(timeout=200)[0]) for process in processes]

    assert 0 < max(most) <= 60
    assert_spent(worker, 60)


# Beside plain Optuna


def test_plain_optuna_reads_a_study_whose_trials_are_held(storage_url: str) -> None:
    worker = start_worker(storage_url)
    worker.study.tell(worker.claim(), 0.25)
    running = worker.claim()
    running.report(0.5, 0)

    plain = optuna.load_study(study_name=STUDY, storage=studies.normalise(storage_url))

    assert (plain.best_trial.number, plain.best_value) == (0, 0.25)
    assert [trial.state for trial in plain.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert plain.trials[1].params == running.params
    assert plain.trials[1].intermediate_values == {0: 0.5}


def test_a_study_whose_trials_are_held_is_copied(storage_url: str, tmp_path: Path) -> None:
    worker = start_worker(storage_url)
    worker.study.tell(worker.claim(), 0.25)
    worker.claim()
    copy = f"sqlite:///{tmp_path}/copy.db"

    optuna.copy_study(from_study_name=STUDY, from_storage=studies.normalise(storage_url), to_storage=copy)

    copied = optuna.load_study(study_name=STUDY, storage=copy)
    assert [(t.state, t.params, t.value) for t in copied.trials] == [
        (t.state, t.params, t.value) for t in worker.trials
    ]
