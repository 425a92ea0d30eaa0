"""A thread that watches the study's database, and triggers that record who changed what."""

import contextlib
import threading
import time
from typing import Any

import psycopg2

from benchmarks.chaos.server import Database

LOOK_SECONDS = 0.5

# Record every report and state change with the connection that made it and the lease held at that moment.
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


class Monitor(threading.Thread):
    """Read connections and progress directly from the database, not through the links.

    Attributes:
        audited: Set once the audit triggers are in place.
        connections_max: Largest number of simultaneous connections of workers seen.
        n_finished: Complete and pruned trials at the last poll.
        states: Trials by state at the last poll.
        moved_at: Monotonic time of the last new report or state.
    """

    def __init__(self, database: Database, trials: int) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._trials = trials
        self.audited = threading.Event()
        self.connections_max = 0
        self.n_finished = 0
        self.states: dict[str, int] = {}
        self.moved_at = time.monotonic()
        self._last: tuple[Any, ...] = ()
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether the budget was spent at the last poll."""
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
                        time.sleep(LOOK_SECONDS)
            except psycopg2.Error:
                time.sleep(LOOK_SECONDS)

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
