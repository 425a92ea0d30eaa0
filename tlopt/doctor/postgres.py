"""Check a PostgreSQL server: privileges, free connections, clock."""

import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy

from tlopt.doctor.finding import Finding
from tlopt.storage.failures import MORE_CONNECTIONS
from tlopt.storage.schema import leases

CLOCK_SECONDS = 5.0  # a larger difference makes the times of trials misleading
CONNECTIONS_LOW = 10

_SERVER = """
SELECT current_setting('server_version') AS version,
       current_setting('is_superuser') = 'on' AS superuser,
       current_user AS "user",
       current_database() AS "database",
       current_schema() AS "schema",
       pg_is_in_recovery() AS replica,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       CAST(extract(epoch FROM clock_timestamp()) AS double precision) AS seconds
"""

# Checking one table suffices: privileges are usually granted on all, and sequences are forgotten.
_MAY_WRITE = """
SELECT has_table_privilege('trials', 'INSERT') AND has_table_privilege('trials', 'UPDATE')
       AND has_sequence_privilege(pg_get_serial_sequence('trials', 'trial_id'), 'USAGE')
"""

# The tightest limit; -1 means no limit, and superusers are subject to the server's only.
_CONNECTIONS = """
WITH here AS (SELECT usename, datname FROM pg_stat_activity WHERE datname IS NOT NULL),
     me AS (SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname = current_user AND NOT rolsuper),
     bounds AS (
         SELECT 'server' AS whose, (SELECT count(*) FROM here) AS used,
                CAST(current_setting('max_connections') AS integer)
                - CAST(current_setting('superuser_reserved_connections') AS integer)
                - CAST(coalesce(current_setting('reserved_connections', true), '0') AS integer) AS most
         UNION ALL
         SELECT 'user', (SELECT count(*) FROM here WHERE usename = rolname), rolconnlimit
         FROM me WHERE rolconnlimit >= 0
         UNION ALL
         SELECT 'database', (SELECT count(*) FROM here WHERE datname = current_database()), datconnlimit
         FROM pg_database, me WHERE datname = current_database() AND datconnlimit >= 0)
SELECT whose, used, most FROM bounds ORDER BY most - used LIMIT 1
"""
_MORE_CONNECTIONS = {
    "server": MORE_CONNECTIONS,
    "user": "raise it: ALTER ROLE ... CONNECTION LIMIT",
    "database": "raise it: ALTER DATABASE ... CONNECTION LIMIT",
}


def server(connection: sqlalchemy.Connection, *, tables: list[str], has_tables: bool) -> Iterator[Finding]:
    """Findings on the server and on the privileges of the user.

    Args:
        tables: names of the tables in the database.
        has_tables: whether Optuna's tables are among them.
    """
    asked = time.time()
    row = connection.exec_driver_sql(_SERVER).one()
    clock = row.seconds - (asked + time.time()) / 2
    yield Finding("ok", "database", f"PostgreSQL {row.version}, {row.database} as {row.user}")
    if row.replica:
        cure = "use the URL of the primary server"
        yield Finding("problem", "database", "the server is a read-only replica", cure)
    may_write = not has_tables or connection.exec_driver_sql(_MAY_WRITE).scalar_one()
    yield from _rights(row, may_write=may_write, complete=has_tables and leases.name in tables)
    bound = connection.exec_driver_sql(_CONNECTIONS).one()
    yield _connections(bound.used, bound.most, bound.whose)
    yield _clock(clock)


def _rights(row: Any, *, may_write: bool, complete: bool) -> Iterator[Finding]:
    """Findings on privileges that the user lacks or should not have.

    Args:
        row: result of `_SERVER`.
        may_write: whether the user may write to Optuna's tables, if they exist.
        complete: whether no table is missing.
    """
    if not may_write:
        to = f'IN SCHEMA "{row.schema}" TO "{row.user}"'
        yield Finding(
            "problem",
            "database",
            f"{row.user} has no permission to write the tables of {row.database}",
            f"as their owner: GRANT ALL ON ALL TABLES {to}; GRANT ALL ON ALL SEQUENCES {to}",
        )
    if not complete and not row.may_create:
        yield Finding(
            "problem",
            "database",
            f"{row.user} has no permission to create tables in {row.database}",
            f'ALTER DATABASE "{row.database}" OWNER TO "{row.user}"',
        )
    if row.superuser:
        yield Finding(
            "note",
            "database",
            f"{row.user} is a superuser, and every worker has its password",
            "CREATE ROLE tlopt LOGIN PASSWORD '...'; CREATE DATABASE tlopt OWNER tlopt",
        )


def _connections(used: int, most: int, whose: str) -> Finding:
    detail = f"{used} of {most} connections of the {whose} in use; each worker needs one"
    if most - used < CONNECTIONS_LOW:
        return Finding("note", "connections", detail, _MORE_CONNECTIONS[whose])
    return Finding("ok", "connections", detail)


def _clock(ahead_seconds: float) -> Finding:
    side = "ahead of" if ahead_seconds > 0 else "behind"
    detail = f"the server is {abs(ahead_seconds):.1f} s {side} this machine"
    if abs(ahead_seconds) > CLOCK_SECONDS:
        return Finding(
            "note", "clock", detail, "synchronise both by NTP; times of trials come from the workers' clocks"
        )
    return Finding("ok", "clock", detail)
