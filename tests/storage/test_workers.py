"""Workers in the database: which are listed, and which have certainly ended."""

import os
import sys
from dataclasses import replace

import pytest
import sqlalchemy as sa
from study_workers import Faults, What, Worker, no_pauses, process, start_worker

from tlopt.storage import workers as worker_rows
from tlopt.storage.schema import workers


def test_this_process_has_not_ended() -> None:
    me = worker_rows.this_process()

    assert me.pid == os.getpid()
    assert not worker_rows.has_ended(me)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process was born")
def test_a_killed_process_of_this_machine_has_ended_before_and_after_it_is_waited_for() -> None:
    with process() as (running, identity):
        alive = worker_rows.has_ended(identity)
        running.kill()
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is still in the table
        unwaited = worker_rows.has_ended(identity)

    assert (alive, unwaited, worker_rows.has_ended(identity)) == (False, True, True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process was born")
def test_a_process_with_the_same_number_and_another_birth_is_another() -> None:
    me = worker_rows.this_process()

    assert worker_rows.has_ended(replace(me, born=me.born + 1))


def test_a_process_of_another_machine_is_never_said_to_have_ended() -> None:
    me = worker_rows.this_process()

    assert not worker_rows.has_ended(replace(me, machine="elsewhere", pid=2**22 + 1))
    assert not worker_rows.has_ended(replace(me, machine="elsewhere", born=me.born + 1))


def test_a_process_whose_birth_is_unknown_is_never_said_to_have_ended() -> None:
    assert not worker_rows.has_ended(replace(worker_rows.this_process(), born=0, pid=2**22 + 1))


def test_a_process_of_another_user_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)

    assert not worker_rows.has_ended(worker_rows.this_process())


# Rows


def register(worker: Worker) -> None:
    worker.service.query(
        lambda executor: worker_rows.register(
            executor, worker.service.engine, worker.me, device="cuda:0", studies="shared,other"
        )
    )


def present(worker: Worker) -> list[worker_rows.WorkerStatus]:
    return worker.service.query(lambda executor: worker_rows.list_workers(executor, worker.service.engine))


def test_a_worker_shows_itself_until_it_leaves(storage_url: str) -> None:
    worker = start_worker(storage_url)
    engine = worker.service.engine
    register(worker)
    worker.service.query(lambda executor: worker_rows.renew_worker(executor, engine, worker.me, "trial 3", 1))

    (row,) = present(start_worker(storage_url))
    worker.service.query(lambda executor: worker_rows.remove_worker(executor, worker.me))

    assert (row.identity, row.device, row.studies) == (worker.me, "cuda:0", ("shared", "other"))
    assert row.doing == "trial 3"
    assert 0.0 <= row.silent_seconds < 300.0  # by the database's clock, whatever the machine's zone is
    assert present(worker) == []


def test_a_heartbeat_tells_where_the_row_lacks_the_ones_before(storage_url: str) -> None:
    """As after a restore of the database; one whose answer was lost may be written again."""
    worker = start_worker(storage_url)
    engine = worker.service.engine
    register(worker)

    def beat(count: int) -> bool:
        return worker.service.query(
            lambda executor: worker_rows.renew_worker(executor, engine, worker.me, "", count)
        )

    assert [beat(1), beat(2), beat(2), beat(4), beat(1)] == [True, True, True, False, True]
    worker.service.query(lambda executor: worker_rows.remove_worker(executor, worker.me))
    assert not beat(2)


@pytest.mark.parametrize(("what", "done"), [("statement", False), ("statement", True), ("commit", True)])
def test_a_worker_whose_answer_is_lost_is_there_once(
    what: What, done: bool, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    worker = start_worker(storage_url)
    Faults(worker, monkeypatch).plant(what, 0, done=done)

    register(worker)

    assert len(present(worker)) == 1


def test_a_row_that_nobody_touched_for_a_day_is_removed(storage_url: str) -> None:
    worker, old = start_worker(storage_url), start_worker(storage_url)
    register(worker)
    register(old)
    long_ago = sa.update(workers).where(workers.c.worker_id == old.me.worker_id)
    with worker.service.engine.begin() as connection:
        connection.execute(long_ago.values(seen=sa.text("'2020-01-01 00:00:00'")))

    worker.service.query(lambda executor: worker_rows.remove_stale(executor, worker.service.engine))

    assert [row.identity for row in present(worker)] == [worker.me]
