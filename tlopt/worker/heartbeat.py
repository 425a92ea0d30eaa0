"""A worker's heartbeat thread, which also requeues the trials of lost workers.

A worker requeues a trial only after it has itself seen the lease's heartbeat counter unchanged for the whole
grace period, in reads without long gaps or database failures between them. After an outage every lease looks
old, and its holder must have had time for a heartbeat. For a process of this machine that has ended, no wait
is needed.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from optuna.exceptions import UpdateFinishedTrialError

from tlopt.errors import StorageError
from tlopt.storage import commands, leases, workers
from tlopt.storage.failures import DATABASE_ERRORS, failure
from tlopt.storage.leases import LeaseChanged, ObservedLease
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.retry import refusal
from tlopt.storage.workers import Identity

GRACE_SECONDS = 60.0
_HEARTBEATS_PER_GRACE = 12
_HEARTBEAT_SECONDS_MAX = 5.0
_FILE_VARIABLE = "TLOPT_HEARTBEAT_FILE"

_logger = logging.getLogger("tlopt.worker")


@dataclass(frozen=True)
class Activity:
    """A worker's current activity, for people; idle if `trial` is None."""

    study: str = ""
    trial: int | None = None
    epoch: int = 0  # current one, from 0
    epochs: int = 0  # of the trial
    step: int = 0  # within the epoch, from 0
    steps: int = 0  # per epoch
    seconds: float = 0.0  # of work on the trial so far, over all holders

    @classmethod
    def at(
        cls,
        study: str,
        trial: int,
        event: "StepProgress | EpochProgress",
        epochs: int,
        *,
        seconds: float,
    ) -> "Activity":
        """The activity after a step or an epoch."""
        seconds = round(seconds, 1)
        if isinstance(event, StepProgress):
            return cls(study, trial, event.epoch, epochs, event.index + 1, event.n_steps, seconds)
        return cls(study, trial, event.index + 1, epochs, seconds=seconds)

    def text(self) -> str:
        """JSON for the database."""
        return json.dumps(vars(self))


@runtime_checkable
class StepProgress(Protocol):
    """The attributes of a step that `Activity` needs."""

    @property
    def epoch(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def n_steps(self) -> int: ...


class EpochProgress(Protocol):
    """The attributes of an epoch that `Activity` needs."""

    @property
    def index(self) -> int: ...


@dataclass
class _Watched:
    """A lease, and when its current heartbeat was first seen."""

    lease: ObservedLease
    since: float


class LeaseWatch:
    """Detection of leases whose heartbeat has stopped.

    Args:
        grace_seconds: period for which a heartbeat must be seen unchanged.
        gap_seconds: longest pause between two calls; after a longer one, all periods restart.
    """

    def __init__(self, grace_seconds: float, gap_seconds: float) -> None:
        self._grace = grace_seconds
        self._gap = gap_seconds
        self._last_read = float("-inf")
        self._watched: dict[str, _Watched] = {}

    def forget(self) -> None:
        """Restart all periods, as after an outage of the database."""
        self._watched.clear()

    def expired(self, found: Collection[ObservedLease], now: float) -> list[ObservedLease]:
        """The leases that have not changed for the grace period; `found` are all current ones."""
        if now - self._last_read > self._gap:
            self.forget()
        self._last_read = now
        before = self._watched
        self._watched = {
            lease.token: before[lease.token]
            if lease.token in before and before[lease.token].lease == lease
            else _Watched(lease, now)
            for lease in found
        }
        return [w.lease for w in self._watched.values() if now - w.since >= self._grace]


class Heartbeat(threading.Thread):
    """The heartbeat thread of one worker, which runs until `stop`.

    Each heartbeat that reaches the database also touches the file TLOPT_HEARTBEAT_FILE, if set. Health checks
    read its age; it is removed when the worker ends.

    Args:
        study_ids: studies whose leases it watches.
        grace_seconds: time without a heartbeat after which a worker counts as lost.
        device: this worker's device, for people.
        studies: comma-separated study names, for people.
    """

    def __init__(
        self,
        storage: ServiceStorage,
        me: Identity,
        study_ids: Collection[int],
        *,
        grace_seconds: float = GRACE_SECONDS,
        device: str = "",
        studies: str = "",
    ) -> None:
        super().__init__(name="tlopt-heartbeat", daemon=True)
        self._storage = storage
        self._me = me
        self._study_ids = study_ids
        self._interval_seconds = min(_HEARTBEAT_SECONDS_MAX, grace_seconds / _HEARTBEATS_PER_GRACE)
        self._watch = LeaseWatch(grace_seconds, gap_seconds=grace_seconds / 2)
        self._stall_seconds_max = 0.0
        self._stopped = threading.Event()
        self._file = Path(os.environ[_FILE_VARIABLE]) if os.environ.get(_FILE_VARIABLE) else None
        self._register = partial(
            workers.register, engine=storage.engine, me=me, device=device, studies=studies
        )
        self._n_connections = 0  # a new connection means an interruption
        self._hold: tuple[int, str] | None = None  # trial id and token
        self._last_step_at = time.monotonic()
        self._n_heartbeats = 0
        self.lost = False  # another worker holds the current trial
        self.restored = False  # the database was restored to an earlier state during the current trial
        self.failure: StorageError | None = None  # why this worker cannot continue
        self.commands: dict[int, commands.Command] = {}  # by study
        self._doing = Activity()

    def hold(self, trial_id: int, token: str, stall_seconds_max: float) -> None:
        """Renew this trial's lease from now on.

        Args:
            stall_seconds_max: time without a step after which the trial is requeued and this process replaced
                by a new one; 0: never.
        """
        self.lost = self.restored = False
        self._last_step_at, self._stall_seconds_max = time.monotonic(), stall_seconds_max
        self._hold = (trial_id, token)

    def note_command(self, study_id: int, command: commands.Command) -> None:
        """Take over a command to a study that was read elsewhere."""
        self.commands = {**self.commands, study_id: command}

    def release(self) -> None:
        """Stop renewing a lease."""
        self._hold, self._doing = None, Activity()

    def note_step(self, doing: Activity) -> None:
        """Note that the current trial has made a step."""
        self._last_step_at, self._doing = time.monotonic(), doing

    def stop(self) -> None:
        """Stop the thread after the current heartbeat."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            self.beat_once()
            self._stopped.wait(self._interval_seconds)
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()

    def beat_once(self) -> None:
        """Send one heartbeat, and check the leases of others."""
        try:
            self._beat_once()
        except Exception as error:
            # Catch everything: without heartbeats the current trial would be given away.
            self._watch.forget()
            fault = failure(error)
            if fault is None:
                _logger.exception("a heartbeat failed")
            elif fault.lasts:
                self.failure = refusal(fault)
            else:
                self._storage.retry.note_outage(fault.reason)
        self._replace_if_stalled()

    def _beat_once(self) -> None:
        hold = self._hold
        self.failure = self._storage.file_failure()
        if self.failure is not None:
            return
        with self._storage.autocommit() as connection:
            if hold is not None and not leases.renew_lease(connection, hold[1]) and hold == self._hold:
                self.lost = True
            n_heartbeats = self._renew_row(connection)
            self.commands = commands.read(connection, self._study_ids)
            found = [
                s for s in leases.held(connection, self._study_ids) if hold is None or s.token != hold[1]
            ]
            holders = workers.identities(connection, {lease.worker_id for lease in found})
            unheld = leases.unheld(connection, self._study_ids)
        self._storage.retry.note_answer()
        self._note_renewed(n_heartbeats)
        self._renew_file()
        if self._storage.n_connections != self._n_connections:
            self._n_connections = self._storage.n_connections
            self._watch.forget()
        still = self._watch.expired([*found, *unheld], time.monotonic())
        for lease in [s for s in still if s in unheld]:
            self._requeue_unheld(lease)
        gone = [s for s in found if s.worker_id in holders and workers.has_ended(holders[s.worker_id])]
        for lease in {s.token: s for s in (*still, *gone) if s not in unheld}.values():
            name = holders[lease.worker_id].name if lease.worker_id in holders else "a worker"
            self._requeue(lease, f"{name} {'has ended' if lease in gone else 'is silent'}")
        if gone:
            with self._storage.autocommit() as connection:
                for lease in gone:
                    workers.remove_worker(connection, holders[lease.worker_id])

    def _renew_row(self, connection: leases.Executor) -> int:
        """Renew this worker's row, or add it anew; returns the number of heartbeats that it has then."""
        count, doing = self._n_heartbeats + 1, self._doing.text()
        if workers.renew_worker(connection, self._storage.engine, self._me, doing, count):
            return count
        self._register(connection)
        return 0

    def _note_renewed(self, n_heartbeats: int) -> None:
        """Note how many heartbeats this worker's row has, once they are committed, which a full disk refuses.

        If the last ones are gone, the database was restored.
        """
        if self._n_heartbeats and not n_heartbeats:
            _logger.warning("the database was restored to an earlier state: this worker starts over")
            self.restored = True
            self._watch.forget()
        self._n_heartbeats = n_heartbeats

    def _renew_file(self) -> None:
        if self._file is None:
            return
        try:
            self._file.touch()
        except OSError as error:  # no reason to stop the worker
            _logger.warning("%s: %s cannot be written (%s)", _FILE_VARIABLE, self._file, error.strerror)
            self._file = None

    def _requeue(self, lease: ObservedLease, cause: str) -> None:
        try:
            self._storage.expire(lease, cause)
        except (LeaseChanged, UpdateFinishedTrialError):
            return
        _logger.warning("trial %d waits for another worker: %s", lease.number, cause)

    def _requeue_unheld(self, lease: ObservedLease) -> None:
        try:
            self._storage.requeue_unheld(lease.trial_id)
        except LeaseChanged:
            return
        _logger.warning(
            "trial %d was running and no worker of tlopt holds it (study.ask, add_trial or copy_study leave"
            " such trials): it was requeued",
            lease.number,
        )

    def _replace_if_stalled(self) -> None:
        hold, silent = self._hold, time.monotonic() - self._last_step_at
        if hold is None or self._stall_seconds_max <= 0 or silent < self._stall_seconds_max:
            return
        _logger.error("no step for %.0f s: the trial is requeued, and this process replaced", silent)
        try:
            with self._storage.autocommit() as connection:
                own = [s for s in leases.held(connection, self._study_ids) if s.token == hold[1]]
                workers.remove_worker(
                    connection, self._me
                )  # its successor has the same process id and its own row
            for lease in own:
                self._storage.expire(lease, f"{self._me.name} made no step for {silent:.0f} s")
        except (LeaseChanged, *DATABASE_ERRORS) as error:
            _logger.warning("the trial could not be requeued (%s); its lease runs out", type(error).__name__)
        replace_process()


def replace_process() -> None:
    """Re-execute this command in the same process, because a thread that hangs cannot be stopped."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tlopt", *sys.argv[1:]])
