"""A PostgreSQL server with measured processor time and connections, and filled studies in it."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution, distribution_to_json

from benchmarks.common import postgres
from benchmarks.service.trials import N_EPOCHS, N_PARAMS, STUDY
from tlopt.storage import attributes
from tlopt.storage.studies import normalise, open_storage

_context = multiprocessing.get_context("fork")
_TICKS = os.sysconf("SC_CLK_TCK")

# Rows as `trials.Ours` leaves them, with the values of `trials.value`: curves for the pruner to compare.
_FILL = f"""
INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
SELECT n, (SELECT study_id FROM studies), 'COMPLETE', now()::timestamp, now()::timestamp
FROM generate_series(0, %(n)s - 1) n ORDER BY n;
INSERT INTO trial_values (trial_id, objective, value, value_type)
SELECT trial_id, 0, random(), 'FINITE' FROM trials;
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
SELECT trial_id, 'p' || i, random(), %(distribution)s FROM trials, generate_series(0, {N_PARAMS - 1}) i;
INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
SELECT trial_id, e, 0.9 - 0.6 / (e + 1) + (number * 37 %% 101) / 1000.0, 'FINITE'
FROM trials, generate_series(0, {N_EPOCHS - 1}) e;
INSERT INTO trial_user_attributes (trial_id, key, value_json)
SELECT trial_id, 'tlopt:' || k, '{{"of": "a trial", "values": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}'
FROM trials, unnest(ARRAY['point', 'worker', 'label', 'result', 'notes']) k;
INSERT INTO trial_system_attributes (trial_id, key, value_json)
SELECT trial_id, 'constraints:outcome', '-1.0' FROM trials;
"""


@contextlib.contextmanager
def running(max_connections: int) -> Iterator["Watched"]:
    """A separate server that accepts `max_connections`."""
    with postgres.server() as server:
        server.execute(f"ALTER SYSTEM SET max_connections = {max_connections}")
        server.process.stop()
        server.start()
        assert server.process.process is not None
        yield Watched(server, server.process.process.pid)


@dataclass(frozen=True)
class Watched:
    """A server and its process."""

    server: postgres.OwnServer
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time of the server and all its processes, including those that have ended."""
        return cpu_seconds(self.pid, with_ended=True) + sum(
            cpu_seconds(pid) for pid in postgres.children(self.pid)
        )

    def make(self, name: str) -> str:
        """Create an empty database; returns its URL."""
        self.server.execute(f"CREATE DATABASE {name}")
        return normalise(self.server.url(name))

    def fill(self, name: str, n_trials: int) -> None:
        """Create a database with tlopt's tables and one study of `n_trials` complete trials."""
        storage = open_storage(self.make(name))
        study = optuna.create_study(study_name=STUDY, storage=storage, direction="maximize")
        study.set_user_attr(attributes.BEGAN, 0.0)  # as tlopt's studies have it
        storage._backend.engine.dispose()  # type: ignore[attr-defined]
        with contextlib.closing(self.server.connect(name)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                what = {"n": n_trials, "distribution": distribution_to_json(FloatDistribution(0.0, 1.0))}
                cursor.execute(_FILL, what)
                cursor.execute("VACUUM ANALYZE")

    @contextlib.contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """The URL of a copy of the database `template`, dropped at the end."""
        self.server.execute(f"CREATE DATABASE {template}_copy TEMPLATE {template}")
        try:
            yield normalise(self.server.url(f"{template}_copy"))
        finally:
            self.server.execute(f"DROP DATABASE {template}_copy WITH (FORCE)")


class Connections:
    """The largest number of simultaneous connections within a block, except to the database postgres.

    A process counts, not a thread: forked workers must not inherit a connection in use.
    """

    def __init__(self, server: postgres.OwnServer) -> None:
        self._server = server
        self._most = _context.Value("i", 0)
        self._over = _context.Event()
        self._process = _context.Process(target=self._look, daemon=True)

    @property
    def most(self) -> int:
        """The largest number so far."""
        return int(self._most.value)

    def __enter__(self) -> "Connections":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.join()

    def _look(self) -> None:
        # kept open, because none can be opened once the server is full
        with contextlib.closing(self._server.connect("postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not self._over.wait(0.2):
                    cursor.execute(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE backend_type = 'client backend' AND datname <> 'postgres'"
                    )
                    self._most.value = max(self._most.value, cursor.fetchall()[0][0])


def cpu_seconds(pid: int, *, with_ended: bool = False) -> float:
    """Processor time of a process, proc(5) stat fields 14 to 17; with its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11 : 15 if with_ended else 13]) / _TICKS
