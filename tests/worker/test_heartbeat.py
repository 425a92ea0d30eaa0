"""A lease expires only after a whole observed grace period of silence, with a planted clock."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import Trial, TrialState
from study_workers import STUDY, Faults, Worker, process, start_worker

from tlopt.storage import commands
from tlopt.storage import leases as lease_rows
from tlopt.storage import workers as worker_rows
from tlopt.storage.leases import LeaseChanged
from tlopt.storage.schema import leases, workers
from tlopt.worker import heartbeat
from tlopt.worker.heartbeat import Activity, Heartbeat

GRACE = 60.0
GAP = GRACE / 2
LOOK = 5.0


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def heartbeat_of(worker: Worker) -> Heartbeat:
    service = worker.service
    service.query(lambda e: worker_rows.register(e, service.engine, worker.me, device="cpu", studies=STUDY))
    return Heartbeat(service, worker.me, [worker.study_id], grace_seconds=GRACE)


def let_pass(clock: Clock, seconds: float, *heartbeats: Heartbeat, every: float = LOOK) -> None:
    """Move the clock by `seconds` while these heartbeats run."""
    for _ in range(round(seconds / every)):
        clock.now += every
        for each in heartbeats:
            each.beat_once()


def hold(by: Heartbeat, worker: Worker, trial: Trial, stall_seconds_max: float = 0.0) -> None:
    by.hold(trial._trial_id, worker.seen(trial).token, stall_seconds_max)


@pytest.fixture
def pair(storage_url: str, clock: Clock) -> tuple[Worker, Heartbeat, Trial, Worker, Heartbeat]:
    """A worker with a trial and its heartbeat, then another worker with its own; each has beaten once."""
    holder, other = start_worker(storage_url), start_worker(storage_url)
    trial = holder.claim()
    first, second = heartbeat_of(holder), heartbeat_of(other)
    hold(first, holder, trial)
    first.beat_once()
    second.beat_once()
    return holder, first, trial, other, second


Pair = tuple[Worker, Heartbeat, Trial, Worker, Heartbeat]


def state(worker: Worker) -> TrialState:
    return worker.trials[0].state


def test_a_trial_whose_worker_is_silent_waits_after_the_grace(pair: Pair, clock: Clock) -> None:
    holder, first, _, other, second = pair
    let_pass(clock, GRACE - LOOK, second)
    before = state(other)

    let_pass(clock, LOOK, second)
    first.beat_once()

    assert (before, state(other)) == (TrialState.RUNNING, TrialState.WAITING)
    assert first.lost
    found = other.try_claim(has_waiting=True)
    assert found is not None
    assert (found[1].crashes, found[1].crash_cause) == (1, f"{holder.me.name} is silent")


def test_a_trial_whose_worker_sends_heartbeats_is_never_taken(pair: Pair, clock: Clock) -> None:
    _, first, _, other, second = pair
    for _ in range(20):
        let_pass(clock, GRACE / 2, second)
        first.beat_once()

    assert state(other) == TrialState.RUNNING
    assert not first.lost


def test_looks_that_are_far_apart_take_nothing(pair: Pair, clock: Clock) -> None:
    *_, other, second = pair
    let_pass(clock, 20 * GRACE, second, every=GAP + 1)

    assert state(other) == TrialState.RUNNING


def lose_the_answer(other: Worker, faults: Faults, second: Heartbeat) -> None:
    faults.plant("statement", 2, done=False)
    second.beat_once()
    faults.clear()


def lose_the_connection(other: Worker, faults: Faults, second: Heartbeat) -> None:
    other.service.engine.dispose()


@pytest.mark.parametrize("interrupt", [lose_the_answer, lose_the_connection])
def test_after_an_interruption_holders_have_the_whole_grace_again(
    interrupt: Callable[[Worker, Faults, Heartbeat], None],
    pair: Pair,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *_, other, second = pair
    faults = Faults(other, monkeypatch)
    let_pass(clock, GRACE - LOOK, second)
    interrupt(other, faults, second)

    let_pass(clock, GRACE, second)
    before = state(other)
    let_pass(clock, LOOK, second)

    assert (before, state(other)) == (TrialState.RUNNING, TrialState.WAITING)


@pytest.mark.parametrize(
    "damage",
    [
        "update tlopt_leases set beat = 'x'",
        "update tlopt_leases set crashes = 'x', crash_reports = 'y', cause = 5",
        "update tlopt_workers set pid = 'x', born = 'y', name = 5",
        "update tlopt_workers set seen = 'x', doing = 'no JSON'",
        "update study_user_attributes set value_json = '5' where key = 'tlopt:control'",
        "update study_user_attributes set value_json = '[\"x\"]' where key = 'tlopt:control'",
    ],
)
def test_damaged_rows_stop_no_heartbeat(
    damage: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    holder, other = (start_worker(f"sqlite:///{tmp_path}/tlopt.db") for _ in range(2))
    heartbeat_of(holder)
    watching = heartbeat_of(other)
    trial = holder.claim()
    trial.report(0.5, 0)
    commands.send(holder.study, commands.Command("open"))
    with other.service.engine.begin() as connection:
        connection.execute(sa.text(damage))

    let_pass(clock, GRACE + 2 * LOOK, watching)

    assert "a heartbeat failed" not in caplog.text
    assert holder.trials[0].state == TrialState.WAITING
    present = other.service.query(lambda e: worker_rows.list_workers(e, other.service.engine))
    assert len(present) in (1, 2)  # a holder without a process has ended and is removed


def test_a_heartbeat_that_is_not_committed_is_no_sign_of_a_restored_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker(f"sqlite:///{tmp_path}/tlopt.db")
    own = heartbeat_of(worker)
    faults = Faults(worker, monkeypatch)
    own.beat_once()
    own.beat_once()
    for _ in range(3):  # as on a full disk
        faults.plant("commit", 0, done=False)
        own.beat_once()
        assert worker.service.retry.in_outage
    faults.rest()

    own.beat_once()

    assert not worker.service.retry.in_outage
    assert not own.restored
    assert not [message for message in caplog.messages if "starts over" in message]


def test_an_outage_is_noted_by_the_heartbeat_and_its_end_too(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, first, trial, *_ = pair
    faults = Faults(holder, monkeypatch)
    faults.plant("statement", 0, done=False)

    first.beat_once()
    away = holder.service.retry.in_outage
    trial.report(0.5, 0)
    first.beat_once()

    assert (away, holder.service.retry.in_outage) == (True, False)
    assert holder.service.unsent(trial._trial_id)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process was born")
def test_a_trial_of_a_dead_process_of_this_machine_waits_at_once(
    storage_url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    dead, other = start_worker(storage_url), start_worker(storage_url)
    with process() as (_, identity):
        dead.me = replace(identity, worker_id=dead.me.worker_id)
        heartbeat_of(dead)
        dead.claim()
        second = heartbeat_of(other)
        second.beat_once()
        alive = state(other)
    second.beat_once()

    assert (alive, state(other)) == (TrialState.RUNNING, TrialState.WAITING)
    assert "trial 0 waits for another worker" in caplog.text
    assert dead.me.worker_id not in shown(other)


def shown(worker: Worker) -> set[str]:
    """The workers that show themselves."""
    rows = worker.service.query(lambda executor: worker_rows.list_workers(executor, worker.service.engine))
    return {row.identity.worker_id for row in rows}


def test_a_silent_worker_of_another_study_is_not_this_ones_business(pair: Pair, clock: Clock) -> None:
    *_, other, _ = pair
    stranger = Heartbeat(other.service, other.me, [other.study_id + 1], grace_seconds=GRACE)
    let_pass(clock, 3 * GRACE, stranger)

    assert state(other) == TrialState.RUNNING


def test_of_two_who_take_a_trial_one_has_it(pair: Pair, storage_url: str, clock: Clock) -> None:
    *_, other, second = pair
    third = heartbeat_of(start_worker(storage_url))
    third.beat_once()
    let_pass(clock, GRACE, second, third)

    with other.service.engine.connect() as connection:
        assert connection.execute(sa.select(leases.c.token, leases.c.crashes)).all() == [(None, 1)]


def test_a_heartbeat_reads_commands_and_shows_what_its_worker_does(pair: Pair) -> None:
    holder, first, _, other, _ = pair
    commands.send(other.study, commands.Command("paused", "planted"))
    first.note_step(Activity(STUDY, 0, epoch=2, epochs=9, step=3, steps=8, seconds=7.5))

    first.beat_once()

    assert first.commands == {holder.study_id: commands.Command("paused", "planted")}
    shown = sa.select(workers.c.doing, workers.c.beat).where(workers.c.worker_id == holder.me.worker_id)
    with other.service.engine.connect() as connection:
        assert connection.execute(shown).one() == (
            '{"study": "shared", "trial": 0, "epoch": 2, "epochs": 9, "step": 3, "steps": 8, "seconds": 7.5}',
            2,
        )


# The file whose age a container's health check reads


def test_a_heartbeat_that_the_database_took_renews_the_file(
    storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "heartbeat"
    monkeypatch.setenv("TLOPT_HEARTBEAT_FILE", str(file))
    worker = start_worker(storage_url)
    own = heartbeat_of(worker)
    own.beat_once()
    os.utime(file, (1e9, 1e9))
    faults = Faults(worker, monkeypatch)
    faults.plant("statement", 0, done=False)

    own.beat_once()
    during_outage = file.stat().st_mtime
    faults.clear()
    own.beat_once()

    assert during_outage == 1e9
    assert file.stat().st_mtime > 1e9


def test_a_file_that_cannot_be_written_stops_no_heartbeat(
    storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TLOPT_HEARTBEAT_FILE", str(tmp_path / "none" / "heartbeat"))
    worker = start_worker(storage_url)
    own = heartbeat_of(worker)

    own.beat_once()
    own.beat_once()

    with worker.service.engine.connect() as connection:
        assert connection.execute(sa.select(workers.c.beat)).scalar() == 2
    assert caplog.text.count("cannot be written (No such file or directory)") == 1


# A trial that makes no step


class Replaced(Exception):
    pass


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_process() -> None:
        raise Replaced

    monkeypatch.setattr(heartbeat, "replace_process", replace_process)


@pytest.mark.usefixtures("replaced")
def test_a_trial_that_makes_no_step_is_requeued_and_its_process_replaced(pair: Pair, clock: Clock) -> None:
    holder, first, trial, other, _ = pair
    hold(first, holder, trial, stall_seconds_max=30.0)
    let_pass(clock, 20.0, first)
    first.note_step(Activity(STUDY, 0))
    let_pass(clock, 25.0, first)
    before = state(other)

    with pytest.raises(Replaced):
        let_pass(clock, 10.0, first)

    assert (before, state(other)) == (TrialState.RUNNING, TrialState.WAITING)
    found = other.try_claim(has_waiting=True)
    assert found is not None
    assert found[1].crash_cause == f"{holder.me.name} made no step for 30 s"


@pytest.mark.usefixtures("replaced")
@pytest.mark.parametrize("ended", ["told", "deleted"])
def test_a_trial_that_is_gone_does_not_keep_its_process_from_being_replaced(
    ended: str, pair: Pair, clock: Clock, storage_url: str
) -> None:
    holder, first, trial, other, _ = pair
    hold(first, holder, trial, stall_seconds_max=30.0)
    if ended == "told":
        other.service.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    else:
        optuna.delete_study(study_name=STUDY, storage=other.store)

    with pytest.raises(Replaced):
        let_pass(clock, 30.0, first)


def test_a_heartbeat_runs_by_itself_until_it_is_stopped(
    storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "heartbeat"
    monkeypatch.setenv("TLOPT_HEARTBEAT_FILE", str(file))
    worker = start_worker(storage_url)
    own = heartbeat_of(worker)
    own._interval_seconds = 0.001
    beats = sa.select(workers.c.beat)

    own.start()
    while worker.service.query(lambda executor: executor.execute(beats).scalar()) < 3:
        os.sched_yield()
    there = file.exists()
    own.stop()
    own.join(timeout=60)

    assert not own.is_alive()
    assert (there, file.exists()) == (True, False)


# Trials that no worker holds


def ask(worker: Worker) -> None:
    worker.study.ask()


def add(worker: Worker) -> None:
    worker.study.add_trial(optuna.create_trial(state=TrialState.RUNNING))


@pytest.mark.parametrize("begin", [ask, add])
def test_a_running_trial_that_nobody_holds_waits_after_the_grace(
    begin: Callable[[Worker], None], storage_url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker(storage_url)
    begin(worker)
    own = heartbeat_of(worker)

    let_pass(clock, GRACE, own)
    assert state(worker) == TrialState.RUNNING
    let_pass(clock, 2 * LOOK, own)

    assert state(worker) == TrialState.WAITING
    assert "trial 0 was running and no worker of tlopt holds it" in caplog.text
    assert worker.claim(has_waiting=True).number == 0


def test_a_trial_that_is_reported_on_is_left_to_whoever_does(storage_url: str, clock: Clock) -> None:
    worker = start_worker(storage_url)
    trial, own = start_worker(storage_url).study.ask(), heartbeat_of(worker)

    for step in range(8):
        trial.report(0.5, step)
        let_pass(clock, GRACE / 2, own)

    assert state(worker) == TrialState.RUNNING


def test_a_trial_that_was_taken_meanwhile_is_left_to_its_worker(storage_url: str) -> None:
    worker, other = start_worker(storage_url), start_worker(storage_url)
    trial = worker.claim()

    with pytest.raises(LeaseChanged):
        other.service.requeue_unheld(trial._trial_id)

    assert state(worker) == TrialState.RUNNING


def test_the_lease_of_a_trial_that_somebody_else_has_told_is_forgotten(storage_url: str) -> None:
    worker = start_worker(storage_url)
    told, kept = worker.claim(), worker.claim()
    start_worker(storage_url).study.tell(told.number, 0.5)

    worker.service.query(lambda executor: lease_rows.forget_ended(executor, worker.study_id))

    assert [row[0] for row in worker.rows()["leases"]] == [kept._trial_id]
