"""Leases are handed on only after a whole grace of silence that somebody has watched; by a planted clock."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy as sa
from crew import Faults, Worker, hire, process
from optuna.trial import Trial, TrialState

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
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def heart_of(worker: Worker) -> Heartbeat:
    service = worker.service
    service.ask(lambda e: worker_rows.register(e, service.engine, worker.me, device="cpu", studies="crew"))
    return Heartbeat(service, worker.me, [worker.study_id], grace_seconds=GRACE)


def beat(clock: Clock, seconds: float, *hearts: Heartbeat, every: float = LOOK) -> None:
    """Let so many seconds pass, in which these hearts beat."""
    for _ in range(round(seconds / every)):
        clock.now += every
        for each in hearts:
            each.tick()


def hold(by: Heartbeat, worker: Worker, trial: Trial, stall_seconds_max: float = 0.0) -> None:
    by.hold(trial._trial_id, worker.seen(trial).token, stall_seconds_max)


@pytest.fixture
def pair(storage_url: str, clock: Clock) -> tuple[Worker, Heartbeat, Trial, Worker, Heartbeat]:
    """A worker with a trial, and another one; both have hearts, which have beaten once."""
    holder, other = hire(storage_url), hire(storage_url)
    trial = holder.claim()
    first, second = heart_of(holder), heart_of(other)
    hold(first, holder, trial)
    first.tick()
    second.tick()
    return holder, first, trial, other, second


Pair = tuple[Worker, Heartbeat, Trial, Worker, Heartbeat]


def state(worker: Worker) -> TrialState:
    return worker.trials[0].state


def test_a_trial_whose_worker_is_silent_waits_after_the_grace(pair: Pair, clock: Clock) -> None:
    holder, first, _, other, second = pair
    beat(clock, GRACE - LOOK, second)
    before = state(other)

    beat(clock, LOOK, second)
    first.tick()

    assert (before, state(other)) == (TrialState.RUNNING, TrialState.WAITING)
    assert first.lost
    found = other.try_claim(waits=True)
    assert found is not None
    assert (found[1].crashes, found[1].crash_cause) == (1, f"{holder.me.name} is silent")


def test_a_trial_whose_worker_beats_is_never_taken(pair: Pair, clock: Clock) -> None:
    _, first, _, other, second = pair
    for _ in range(20):
        beat(clock, GRACE / 2, second)
        first.tick()

    assert state(other) == TrialState.RUNNING
    assert not first.lost


def test_looks_that_are_far_apart_take_nothing(pair: Pair, clock: Clock) -> None:
    *_, other, second = pair
    beat(clock, 20 * GRACE, second, every=GAP + 1)

    assert state(other) == TrialState.RUNNING


def lose_the_answer(other: Worker, faults: Faults, second: Heartbeat) -> None:
    faults.plant("statement", 2, done=False)
    second.tick()
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
    beat(clock, GRACE - LOOK, second)
    interrupt(other, faults, second)

    beat(clock, GRACE, second)
    before = state(other)
    beat(clock, LOOK, second)

    assert (before, state(other)) == (TrialState.RUNNING, TrialState.WAITING)


def test_an_outage_is_noted_by_the_heart_and_its_end_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, first, trial, *_ = pair
    faults = Faults(holder, monkeypatch)
    faults.plant("statement", 0, done=False)

    first.tick()
    away = holder.service.retry.is_away
    trial.report(0.5, 0)
    first.tick()

    assert (away, holder.service.retry.is_away) == (True, False)
    assert holder.service.unsent(trial._trial_id)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process was born")
def test_a_trial_of_a_dead_process_of_this_machine_waits_at_once(
    storage_url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    dead, other = hire(storage_url), hire(storage_url)
    with process() as (_, identity):
        dead.me = replace(identity, worker_id=dead.me.worker_id)
        heart_of(dead)
        dead.claim()
        second = heart_of(other)
        second.tick()
        alive = state(other)
    second.tick()

    assert (alive, state(other)) == (TrialState.RUNNING, TrialState.WAITING)
    assert "trial 0 waits for another worker" in caplog.text
    assert dead.me.worker_id not in shown(other)


def shown(worker: Worker) -> set[str]:
    """The workers that show themselves."""
    rows = worker.service.ask(lambda executor: worker_rows.list_workers(executor, worker.service.engine))
    return {row.identity.worker_id for row in rows}


def test_a_silent_worker_of_another_study_is_not_this_ones_business(pair: Pair, clock: Clock) -> None:
    *_, other, _ = pair
    stranger = Heartbeat(other.service, other.me, [other.study_id + 1], grace_seconds=GRACE)
    beat(clock, 3 * GRACE, stranger)

    assert state(other) == TrialState.RUNNING


def test_of_two_who_take_a_trial_one_has_it(pair: Pair, storage_url: str, clock: Clock) -> None:
    *_, other, second = pair
    third = heart_of(hire(storage_url))
    third.tick()
    beat(clock, GRACE, second, third)

    with other.service.engine.connect() as connection:
        assert connection.execute(sa.select(leases.c.token, leases.c.crashes)).all() == [(None, 1)]


def test_a_heart_hears_orders_and_shows_what_its_worker_does(pair: Pair) -> None:
    holder, first, _, other, _ = pair
    commands.give(other.study, commands.Command("paused", "planted"))
    first.stepped(Activity("crew", 0, epoch=2, epochs=9, step=3, steps=8))

    first.tick()

    assert first.commands == {holder.study_id: commands.Command("paused", "planted")}
    shown = sa.select(workers.c.doing, workers.c.beat).where(workers.c.worker_id == holder.me.worker_id)
    with other.service.engine.connect() as connection:
        assert connection.execute(shown).one() == (
            '{"study": "crew", "trial": 0, "epoch": 2, "epochs": 9, "step": 3, "steps": 8}',
            2,
        )


# The file whose age a container's health check reads


def test_a_beat_that_the_database_took_renews_the_file(
    storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "heartbeat"
    monkeypatch.setenv("TLOPT_HEARTBEAT_FILE", str(file))
    worker = hire(storage_url)
    own = heart_of(worker)
    own.tick()
    os.utime(file, (1e9, 1e9))
    faults = Faults(worker, monkeypatch)
    faults.plant("statement", 0, done=False)

    own.tick()
    during_outage = file.stat().st_mtime
    faults.clear()
    own.tick()

    assert during_outage == 1e9
    assert file.stat().st_mtime > 1e9


def test_a_file_that_cannot_be_written_stops_no_heart(
    storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TLOPT_HEARTBEAT_FILE", str(tmp_path / "none" / "heartbeat"))
    worker = hire(storage_url)
    own = heart_of(worker)

    own.tick()
    own.tick()

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
def test_a_trial_that_makes_no_step_is_handed_on_and_its_process_replaced(pair: Pair, clock: Clock) -> None:
    holder, first, trial, other, _ = pair
    hold(first, holder, trial, stall_seconds_max=30.0)
    beat(clock, 20.0, first)
    first.stepped(Activity("crew", 0))
    beat(clock, 25.0, first)
    before = state(other)

    with pytest.raises(Replaced):
        beat(clock, 10.0, first)

    assert (before, state(other)) == (TrialState.RUNNING, TrialState.WAITING)
    found = other.try_claim(waits=True)
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
        optuna.delete_study(study_name="crew", storage=other.store)

    with pytest.raises(Replaced):
        beat(clock, 30.0, first)


def test_a_heart_beats_by_itself_until_it_is_stopped(
    storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "heartbeat"
    monkeypatch.setenv("TLOPT_HEARTBEAT_FILE", str(file))
    worker = hire(storage_url)
    own = heart_of(worker)
    own._beat_seconds = 0.001
    beats = sa.select(workers.c.beat)

    own.start()
    while worker.service.ask(lambda executor: executor.execute(beats).scalar()) < 3:
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
    worker = hire(storage_url)
    begin(worker)
    heart = heart_of(worker)

    beat(clock, GRACE, heart)
    assert state(worker) == TrialState.RUNNING
    beat(clock, 2 * LOOK, heart)

    assert state(worker) == TrialState.WAITING
    assert "trial 0 was running and no worker of tlopt holds it" in caplog.text
    assert worker.claim(waits=True).number == 0


def test_a_trial_that_is_reported_on_is_left_to_whoever_does(storage_url: str, clock: Clock) -> None:
    worker = hire(storage_url)
    trial, heart = hire(storage_url).study.ask(), heart_of(worker)

    for step in range(8):
        trial.report(0.5, step)
        beat(clock, GRACE / 2, heart)

    assert state(worker) == TrialState.RUNNING


def test_a_trial_that_was_taken_meanwhile_is_left_to_its_worker(storage_url: str) -> None:
    worker, other = hire(storage_url), hire(storage_url)
    trial = worker.claim()

    with pytest.raises(LeaseChanged):
        other.service.requeue_unheld(trial._trial_id)

    assert state(worker) == TrialState.RUNNING


def test_the_lease_of_a_trial_that_somebody_else_has_told_is_forgotten(storage_url: str) -> None:
    worker = hire(storage_url)
    told, kept = worker.claim(), worker.claim()
    hire(storage_url).study.tell(told.number, 0.5)

    worker.service.ask(lambda executor: lease_rows.forget_ended(executor, worker.study_id))

    assert [row[0] for row in worker.rows()["leases"]] == [kept._trial_id]
