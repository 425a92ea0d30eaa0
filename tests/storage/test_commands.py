"""Commands to a study's workers."""

import pytest
from study_workers import start_worker

from tlopt.storage import attributes, commands
from tlopt.storage.commands import Command


def test_an_order_is_heard_by_every_worker(storage_url: str) -> None:
    person, worker = start_worker(storage_url), start_worker(storage_url)

    commands.send(person.study, Command("paused", "the lab closes"))

    ids = [worker.study_id, worker.study_id + 1]
    heard = worker.service.query(lambda executor: commands.read(executor, ids))
    assert heard == {ids[0]: Command("paused", "the lab closes"), ids[1]: Command()}
    assert commands.command_of(worker.study) == Command("paused", "the lab closes")


def test_the_last_order_holds(storage_url: str) -> None:
    worker = start_worker(storage_url)

    for state in ("paused", "open"):
        commands.send(worker.study, Command(state))

    assert commands.command_of(worker.study) == Command("open")
    assert worker.work_state(budget=1) == ("work", False)


@pytest.mark.parametrize("key", [attributes.RECORD_FORMAT, attributes.SEMANTICS])
def test_workers_leave_a_study_that_a_later_version_has_upgraded(key: str, storage_url: str) -> None:
    worker = start_worker(storage_url)
    for version, standing in ((1, "work"), (99, "over")):
        worker.study.set_user_attr(key, version)
        assert worker.work_state(budget=1) == (standing, False)

    heard = worker.service.query(lambda executor: commands.read(executor, [worker.study_id]))

    assert "a later tlopt" in heard[worker.study_id].reason


@pytest.mark.parametrize(("state", "crashes"), [("open", 0), ("paused", 1), ("cancelled", 1)])
def test_an_order_to_work_has_crashes_counted_anew(
    state: commands.State, crashes: int, storage_url: str
) -> None:
    worker = start_worker(storage_url)
    worker.expire(worker.claim())

    commands.send(worker.study, Command(state))

    found = worker.try_claim(has_waiting=True)
    assert found is not None
    assert (found[0].number, found[1].crashes) == (0, crashes)


@pytest.mark.parametrize(
    ("state", "standing"),
    [
        ("open", "work"),
        ("paused", "wait"),
        ("stopped", "over"),
        ("cancelled", "over"),
        ("archived", "over"),
    ],
)
def test_workers_work_wait_or_end_by_the_order(
    state: commands.State, standing: str, storage_url: str
) -> None:
    worker = start_worker(storage_url)
    commands.send(worker.study, Command(state))

    assert worker.work_state(budget=1) == (standing, False)
