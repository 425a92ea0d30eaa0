"""The guarantees hold whatever defaults a server, a database or a role has for isolation and durability."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pgbouncer
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from pgbouncer import Bouncer
from postgres import USER, Server
from psycopg2 import sql
from study_workers import Worker, start_worker

from tlopt.storage import leases, studies

pytestmark = pytest.mark.postgres

N_CLAIMERS, BUDGET = 6, 12
LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")


def spend(worker: Worker) -> None:
    """Complete trials until the budget is spent."""
    while worker.work_state(BUDGET)[0] == "work":
        found = worker.try_claim(BUDGET)
        if found is not None:
            trial, claim = found
            assert worker.service.query(partial(leases.renew_lease, token=claim.token))
            trial.report(0.5, 0)
            worker.study.tell(trial, 0.5)


def assert_exact(url: str) -> None:
    """Six claimers at once spend the budget exactly, each trial with a number of its own."""
    workers = [start_worker(url) for _ in range(N_CLAIMERS)]

    with ThreadPoolExecutor(N_CLAIMERS) as pool:
        list(pool.map(spend, workers))

    trials = workers[0].trials
    for worker in workers:
        worker.service.engine.dispose()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * BUDGET
    assert [trial.number for trial in trials] == list(range(BUDGET))


@contextlib.contextmanager
def default_of_role(server: Server, setting: str, value: str) -> Iterator[None]:
    """A default of the tests' role, for as long as the block lasts."""
    role = sql.Identifier(USER)
    server.execute(
        sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.SQL(setting), sql.Literal(value))  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        server.execute(sql.SQL("ALTER ROLE {} RESET {}").format(role, sql.SQL(setting)))  # type: ignore[arg-type]


def set_of_database(server: Server, url: str, setting: str, value: str) -> None:
    name = sql.Identifier(str(sa.make_url(url).database))
    server.execute(
        sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.SQL(setting), sql.Literal(value))  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("level", LEVELS)
def test_the_budget_is_exact_whatever_isolation_the_database_has(
    level: str, postgres_server: Server, postgres_url: str
) -> None:
    set_of_database(postgres_server, postgres_url, "default_transaction_isolation", level)

    assert_exact(postgres_url)


@pytest.mark.parametrize("level", LEVELS[2:])
def test_the_budget_is_exact_whatever_isolation_the_role_has_behind_a_pooler(
    level: str, postgres_server: Server
) -> None:
    binary = pgbouncer.find_binary()
    if binary is None:
        pytest.skip("no PgBouncer here")
    with (
        default_of_role(postgres_server, "default_transaction_isolation", level),
        postgres_server.database() as name,
        pgbouncer.pooling(binary, postgres_server, "transaction", n_servers=N_CLAIMERS) as bouncer,
    ):
        assert_exact(bouncer.url(name))


def settings(url: str) -> set[tuple[str, str]]:
    """Isolation and durability of a transaction, and of a statement on its own."""
    wanted = sa.text("SELECT current_setting('transaction_isolation'), current_setting('synchronous_commit')")
    service = studies.service_of(studies.open_storage(url))
    with service.engine.begin() as connection:
        found = {tuple(connection.execute(wanted).one())}
    found.add(service.query(lambda executor: tuple(executor.execute(wanted).one())))
    service.engine.dispose()
    return found


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_what_is_committed_survives_a_crash_also_where_the_default_is_otherwise(
    pooled: bool, postgres_server: Server, postgres_url: str
) -> None:
    set_of_database(postgres_server, postgres_url, "default_transaction_isolation", "serializable")
    set_of_database(postgres_server, postgres_url, "synchronous_commit", "off")
    with contextlib.ExitStack() as stack:
        url = postgres_url
        if pooled:
            binary = pgbouncer.find_binary()
            if binary is None:
                pytest.skip("no PgBouncer here")
            bouncer: Bouncer = stack.enter_context(
                pgbouncer.pooling(binary, postgres_server, "transaction", n_servers=2)
            )
            url = bouncer.url(str(sa.make_url(postgres_url).database))

        assert settings(url) == {("read committed", "local")}


def test_a_stricter_durability_than_ours_is_left_alone(postgres_server: Server, postgres_url: str) -> None:
    set_of_database(postgres_server, postgres_url, "synchronous_commit", "remote_apply")

    assert settings(postgres_url) == {("read committed", "remote_apply")}
