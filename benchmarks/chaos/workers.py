"""The workers of `chaos.py` as processes, each started again when it ends, and a look at their database."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from chaos_faults import KILL_AFTER_SECONDS
from chaos_server import Database, children, die_with_parent

RESTART_SECONDS = 1.0  # until a container's runtime starts it again
_LOOK_SECONDS = 0.5
_SURE_SECONDS = 3 * _LOOK_SECONDS  # until the monitor has seen what a worker has seen

# Every report and every change of a state, with whoever made it and the lease at that moment.
AUDIT = """
CREATE TABLE chaos_reports (id BIGSERIAL, trial_id INT, step INT, value FLOAT8, who TEXT, token TEXT);
CREATE TABLE chaos_states (id BIGSERIAL, trial_id INT, old TEXT, new TEXT, who TEXT);
CREATE FUNCTION chaos_report() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE held TEXT;
BEGIN
    IF to_regclass('tlopt_leases') IS NOT NULL THEN
        SELECT token INTO held FROM tlopt_leases WHERE trial_id = NEW.trial_id;
    END IF;
    INSERT INTO chaos_reports (trial_id, step, value, who, token)
    VALUES (NEW.trial_id, NEW.step, NEW.intermediate_value, current_setting('application_name'), held);
    RETURN NULL;
END $$;
CREATE FUNCTION chaos_state() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_states (trial_id, old, new, who)
    VALUES (OLD.trial_id, OLD.state::TEXT, CASE WHEN TG_OP = 'DELETE' THEN 'deleted' ELSE NEW.state::TEXT END,
            current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_report AFTER INSERT OR UPDATE ON trial_intermediate_values
    FOR EACH ROW EXECUTE FUNCTION chaos_report();
CREATE TRIGGER chaos_state AFTER UPDATE OF state OR DELETE ON trials
    FOR EACH ROW EXECUTE FUNCTION chaos_state();
"""


@dataclass
class Slot:
    """The place of one worker, held by one process after the other.

    Attributes:
        command: that starts it.
        environment: for the process of that number of this slot.
        contained: whether it runs in a process namespace of its own, as in a container.
        over: whether it has ended by itself and is not started again.
    """

    number: int
    command: Sequence[str]
    environment: Callable[[int], dict[str, str]]
    log: Path
    contained: bool
    over: bool = False
    n_started: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    stop_seconds: list[float] = field(default_factory=list)  # between SIGTERM and the end
    _process: subprocess.Popen[bytes] | None = None
    _told: int = 0  # the signal that was sent to this process and ends it
    _told_at: float = 0.0
    _ended_at: float = 0.0  # 0: not yet

    @property
    def alive(self) -> bool:
        """Whether there is a process that signals reach."""
        return self._pid() is not None

    def _pid(self) -> int | None:
        if self._process is None or self._process.poll() is not None:
            return None
        if not self.contained:
            return self._process.pid
        return next(iter(children(self._process.pid)), None)

    def signal(self, number: int) -> None:
        """Send a signal to the worker."""
        pid = self._pid()
        if pid is None:
            return
        if number in (signal.SIGTERM, signal.SIGKILL) and not self._told:
            self._told, self._told_at = number, time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def tick(self, is_over: bool) -> None:
        """Start the worker where there is none; note how the last one ended."""
        now = time.monotonic()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if self._told == signal.SIGTERM and now - self._told_at > KILL_AFTER_SECONDS:
                    self.exits["did not end within 10 s of SIGTERM"] += 1
                    self._told = signal.SIGKILL
                    self.signal(signal.SIGKILL)
                return
            self._ended_at = self._ended_at or now
            if code == 0 and not self._told and not is_over and now - self._ended_at < _SURE_SECONDS:
                return
            self._note(code, self._ended_at, is_over)
            self._process = None
        if self._process is None and not self.over and now - self._ended_at > RESTART_SECONDS:
            self._start()

    def _note(self, code: int, now: float, is_over: bool) -> None:
        if self._told == signal.SIGKILL:
            self.exits["killed"] += 1
        elif self._told == signal.SIGTERM:
            self.stop_seconds.append(now - self._told_at)
            self.exits["SIGTERM, exit 0" if code == 0 else f"SIGTERM, exit {code}"] += 1
        elif code == 0:
            self.exits["ended" if is_over else "ended too early"] += 1
            self.over = is_over
        else:
            self.exits["error of its own"] += 1

    def _start(self) -> None:
        unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if self.contained else []
        self._told, self._ended_at = 0, 0.0
        with self.log.open("ab") as log:
            log.write(f"--- {self.number}.{self.n_started}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [*unshare, *self.command],
                env=os.environ | self.environment(self.n_started),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self.n_started += 1

    def end(self) -> bool:
        """Kill what is left; whether there was anything."""
        if self._process is None or self._process.poll() is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return True


def can_contain() -> bool:
    """Whether this user may make process namespaces."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "true"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


class Monitor(threading.Thread):
    """Looks at the database, past the links: connections, progress."""

    def __init__(self, database: Database, trials: int) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._trials = trials
        self.audited = threading.Event()
        self.connections_max = 0
        self.n_finished = 0
        self.states: dict[str, int] = {}
        self.moved_at = time.monotonic()  # when a report or a state was last new
        self._last: tuple[Any, ...] = ()
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether the budget was spent at the last look."""
        return self.n_finished >= self._trials

    def close(self) -> None:
        """End the thread."""
        self._over = True

    def run(self) -> None:
        while not self._over:
            try:
                with contextlib.closing(self._database.server.connect(self._database.name)) as connection:
                    connection.autocommit = True
                    while not self._over:
                        self._look(connection.cursor())
                        time.sleep(_LOOK_SECONDS)
            except psycopg2.Error:
                time.sleep(_LOOK_SECONDS)

    def _look(self, cursor: Any) -> None:
        if not self.audited.is_set():
            cursor.execute("SELECT to_regclass('trial_intermediate_values') IS NOT NULL")
            if not cursor.fetchone()[0]:
                return
            cursor.execute("SELECT to_regclass('chaos_states') IS NOT NULL")
            if not cursor.fetchone()[0]:
                cursor.execute("SET lock_timeout = '3s'; " + AUDIT)
            self.audited.set()
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'slot%'")
        self.connections_max = max(self.connections_max, cursor.fetchone()[0])
        cursor.execute("SELECT state::TEXT, count(*) FROM trials GROUP BY state")
        self.states = dict(cursor.fetchall())
        self.n_finished = self.states.get("COMPLETE", 0) + self.states.get("PRUNED", 0)
        cursor.execute("SELECT max(id) FROM chaos_reports")
        now = (cursor.fetchone()[0], self.n_finished)
        if now != self._last:
            self._last, self.moved_at = now, time.monotonic()
