"""A database that is restored to an earlier state, or removed, while it is read and while workers run."""

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from postgres import Backup, Server
from study_workers import STUDY, Worker, no_pauses, start_worker

from tlopt.errors import StorageError
from tlopt.storage.leases import LeaseLost
from tlopt.worker.heartbeat import Heartbeat


@pytest.fixture
def backup(postgres_server: Server, postgres_url: str) -> Iterator[Backup]:
    found = Backup(postgres_server, postgres_url)
    yield found
    found.remove()


def complete(worker: Worker, n: int) -> None:
    for _ in range(n):
        worker.study.tell(worker.claim(), 0.5)


def states(worker: Worker) -> list[str]:
    return [trial.state.name for trial in worker.trials]


@pytest.mark.postgres
def test_a_worker_goes_on_from_the_restored_state_until_the_budget_is_spent(
    backup: Backup, postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_pauses(monkeypatch)
    worker, watcher = start_worker(postgres_url), start_worker(postgres_url)
    complete(worker, 3)
    for x in (0.25, 0.75):
        worker.study.enqueue_trial({"x": x})
    backup.take()
    worker.claim(budget=12, has_waiting=True)
    complete(worker, 6)
    seen_before = len(watcher.trials)

    backup.restore()
    caplog.set_level(logging.WARNING, "tlopt.storage")
    seen_after = states(watcher)
    drawn = []
    while worker.work_state(12)[0] == "work":
        trial = worker.claim(12, has_waiting=worker.work_state(12)[1])
        drawn.append((trial.number, trial.params["x"]))
        worker.study.tell(trial, 0.5)

    assert (seen_before, seen_after) == (10, ["COMPLETE"] * 3 + ["WAITING"] * 2)
    assert drawn[:2] == [(3, 0.25), (4, 0.75)]
    assert [trial.number for trial in worker.trials] == list(range(12))
    assert states(watcher) == ["COMPLETE"] * 12
    assert any("restored to an earlier state" in message for message in caplog.messages)


@pytest.mark.postgres
def test_a_trial_that_the_restore_took_away_is_let_go(
    backup: Backup, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    worker = start_worker(postgres_url)
    complete(worker, 1)
    backup.take()
    trial = worker.claim()

    backup.restore()

    with pytest.raises(LeaseLost):
        worker.study.tell(trial, 0.5)
    worker.service.forget_trial(trial._trial_id)
    assert worker.claim().number == 1


@pytest.mark.postgres
def test_a_heartbeat_notices_that_the_database_went_back(
    backup: Backup, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker(postgres_url)
    own = Heartbeat(worker.service, worker.me, [worker.study_id], device="cpu", studies=STUDY)
    worker.service.query(own._register)
    own.beat_once()
    own.beat_once()
    trial = worker.claim()
    own.hold(trial._trial_id, worker.seen(trial).token, 0.0)
    own.beat_once()
    noticed_before = own.restored
    backup.take()
    for _ in range(3):
        own.beat_once()  # the first only learns that its connection was ended
    kept = own.restored

    backup.restore()
    for _ in range(3):
        own.beat_once()

    assert (noticed_before, kept, own.restored, own.lost) == (False, False, True, False)
    assert [message for message in caplog.messages if "starts over" in message]
    own.hold(trial._trial_id, worker.seen(trial).token, 0.0)
    own.beat_once()
    assert not own.restored


@pytest.mark.postgres
def test_half_restored_tables_are_waited_for(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump makes tables, then rows, then keys; who writes in between spoils it."""
    no_pauses(monkeypatch)
    worker = start_worker(postgres_url)
    steps = iter(
        [
            "CREATE TABLE trials (LIKE aside INCLUDING DEFAULTS)",
            "INSERT INTO trials SELECT * FROM aside",
            "ALTER TABLE trials ADD PRIMARY KEY (trial_id)",
        ]
    )
    sound, seen = worker.service.retry.note_outage, []
    with closing(postgres_server.connect(str(sa.make_url(postgres_url).database))) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute("ALTER TABLE trials RENAME TO aside")

        def away(reason: str) -> None:
            seen.append(reason)
            if step := next(steps, None):
                cursor.execute(step)
            sound(reason)

        monkeypatch.setattr(worker.service.retry, "note_outage", away)
        worker.service.query(lambda executor: executor.execute(sa.text("SELECT 1 FROM trials")).all())

    assert seen == ['relation "trials" does not exist', *["the tables are not all there yet"] * 2]


# An SQLite file


def sqlite(folder: Path) -> tuple[Worker, Path]:
    worker = start_worker(f"sqlite:///{folder}/tlopt.db")
    return worker, folder / "tlopt.db"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_heartbeat_notices_that_the_file_is_another(how: str, tmp_path: Path) -> None:
    worker, file = sqlite(tmp_path)
    own = Heartbeat(worker.service, worker.me, [worker.study_id])
    own.beat_once()
    before = own.failure

    if how == "replaced":
        shutil.copy(file, tmp_path / "copy")
        (tmp_path / "copy").replace(file)
    else:
        file.unlink()
    own.beat_once()

    assert before is None
    assert isinstance(own.failure, StorageError)
    assert str(own.failure).startswith(f"{file} was removed or replaced")
    worker.service.engine.dispose()


def test_a_file_restored_in_place_is_read_anew(tmp_path: Path) -> None:
    worker, file = sqlite(tmp_path)
    complete(worker, 2)
    with closing(sqlite3.connect(file)) as here, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        here.backup(copy)
    complete(worker, 3)

    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy, closing(sqlite3.connect(file)) as here:
        copy.backup(here)

    assert [trial.number for trial in worker.trials] == [0, 1]
    assert worker.claim().number == 2
    worker.service.engine.dispose()


# A study that is deleted


def test_a_trial_of_a_deleted_study_is_let_go_whatever_its_worker_is_at(storage_url: str) -> None:
    person, worker = start_worker(storage_url), start_worker(storage_url)
    trial = worker.claim()
    optuna.delete_study(study_name=STUDY, storage=person.store)

    for write in (
        lambda: trial.report(0.5, 0),
        lambda: trial.set_user_attr("a", 1),
        lambda: worker.study.tell(trial, 0.5),
        lambda: worker.requeue(trial),
        lambda: worker.study.get_trials(deepcopy=False),
    ):
        with pytest.raises(LeaseLost):
            write()


def test_the_next_study_with_the_id_of_a_deleted_one_is_read_anew(tmp_path: Path) -> None:
    """SQLite gives ids again, of studies and of trials."""
    worker, _ = sqlite(tmp_path)
    complete(worker, 3)
    assert len(worker.trials) == 3
    person = start_worker(f"sqlite:///{tmp_path}/tlopt.db")
    optuna.delete_study(study_name=STUDY, storage=person.store)
    again = start_worker(f"sqlite:///{tmp_path}/tlopt.db")
    complete(again, 1)

    assert [trial.state for trial in worker.trials] == [TrialState.COMPLETE]
    assert len(worker.trials) == 1
    for each in (worker, person, again):
        each.service.engine.dispose()
