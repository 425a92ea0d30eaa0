"""A worker's second thread: the heartbeat of the trial in hand, and the requeuing of lost workers' trials.

A trial is requeued only by a worker that has itself seen the lease's beat unchanged for the whole grace, in
looks that came one soon after the other on a database that answered each of them: after an outage every lease
looks old, and its holder must have had the time to beat again. A process of this machine that has ended needs
no such wait.
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
    """What a worker is doing, for people; idle where `trial` is None."""

    study: str = ""
    trial: int | None = None
    epoch: int = 0  # under way, from 0
    epochs: int = 0
    step: int = 0  # of the epoch, from 0
    steps: int = 0

    @classmethod
    def at(cls, study: str, trial: int, event: "StepProgress | EpochProgress", epochs: int) -> "Activity":
        """After a step or an epoch."""
        if isinstance(event, StepProgress):
            return cls(study, trial, event.epoch, epochs, event.index + 1, event.n_steps)
        return cls(study, trial, event.index + 1, epochs)

    def text(self) -> str:
        """As the database holds it."""
        return json.dumps(vars(self))


@runtime_checkable
class StepProgress(Protocol):
    """The part of a step that an activity needs."""

    @property
    def epoch(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def n_steps(self) -> int: ...


class EpochProgress(Protocol):
    """The part of an epoch that an activity needs."""

    @property
    def index(self) -> int: ...


@dataclass
class _Watched:
    """A lease as it was first seen with its present beat."""

    seen: ObservedLease
    since: float


class LeaseWatch:
    """Leases whose beat has been seen unchanged.

    Args:
        grace_seconds: how long a beat has to have been seen unchanged.
        gap_seconds: looks further apart than this begin anew.
    """

    def __init__(self, grace_seconds: float, gap_seconds: float) -> None:
        self._grace = grace_seconds
        self._gap = gap_seconds
        self._last_read = float("-inf")
        self._watched: dict[str, _Watched] = {}

    def forget(self) -> None:
        """Begin anew: the database was away."""
        self._watched.clear()

    def expired(self, found: Collection[ObservedLease], now: float) -> list[ObservedLease]:
        """Those of `found`, all present leases, that have not changed for the grace."""
        if now - self._last_read > self._gap:
            self.forget()
        self._last_read = now
        before = self._watched
        self._watched = {
            seen.token: before[seen.token]
            if seen.token in before and before[seen.token].seen == seen
            else _Watched(seen, now)
            for seen in found
        }
        return [w.seen for w in self._watched.values() if now - w.since >= self._grace]


class Heartbeat(threading.Thread):
    """The heartbeat of one worker, until `stop`.

    Each beat that reaches the database also renews the file TLOPT_HEARTBEAT_FILE, where one is named: its age
    tells a health check how the worker fares, its absence that there is none.

    Args:
        study_ids: the studies whose trials it watches.
        grace_seconds: time without a beat after which a worker counts as lost.
        device: of this worker, for people.
        studies: their names, comma between, for people.
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
        self._n_connections = 0  # a new connection tells of an interruption
        self._hold: tuple[int, str] | None = None  # trial id and token
        self._last_step_at = time.monotonic()
        self._n_heartbeats = 0
        self.lost = False  # the trial in hand is another's
        self.restored = False  # the database went back to an earlier state while the trial was in hand
        self.failure: StorageError | None = None  # what keeps this worker from going on
        self.commands: dict[int, commands.Command] = {}  # by study
        self._doing = Activity()

    def hold(self, trial_id: int, token: str, stall_seconds_max: float) -> None:
        """Beat for this trial from now on.

        Args:
            stall_seconds_max: time without a step after which it is requeued, and this process replaced by a
                new one; 0: never.
        """
        self.lost = self.restored = False
        self._last_step_at, self._stall_seconds_max = time.monotonic(), stall_seconds_max
        self._hold = (trial_id, token)

    def note_command(self, study_id: int, command: commands.Command) -> None:
        """Note the command to a study that was read elsewhere."""
        self.commands = {**self.commands, study_id: command}

    def release(self) -> None:
        """Beat for no trial."""
        self._hold, self._doing = None, Activity()

    def note_step(self, doing: Activity) -> None:
        """The trial in hand has made a step."""
        self._last_step_at, self._doing = time.monotonic(), doing

    def stop(self) -> None:
        """End the thread, after what it is at."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            self.beat_once()
            self._stopped.wait(self._interval_seconds)
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()

    def beat_once(self) -> None:
        """One beat, one look at the others."""
        try:
            self._beat_once()
        except Exception as error:
            # Whatever it was: without beats the trial in hand would be given away.
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
            self._renew_row(connection)
            self.commands = commands.read(connection, self._study_ids)
            found = [
                s for s in leases.held(connection, self._study_ids) if hold is None or s.token != hold[1]
            ]
            holders = workers.identities(connection, {seen.worker_id for seen in found})
            unheld = leases.unheld(connection, self._study_ids)
        self._storage.retry.note_answer()
        self._renew_file()
        if self._storage.n_connections != self._n_connections:
            self._n_connections = self._storage.n_connections
            self._watch.forget()
        still = self._watch.expired([*found, *unheld], time.monotonic())
        for seen in [s for s in still if s in unheld]:
            self._requeue_unheld(seen)
        gone = [s for s in found if s.worker_id in holders and workers.has_ended(holders[s.worker_id])]
        for seen in {s.token: s for s in (*still, *gone) if s not in unheld}.values():
            name = holders[seen.worker_id].name if seen.worker_id in holders else "a worker"
            self._requeue(seen, f"{name} {'has ended' if seen in gone else 'is silent'}")
        if gone:
            with self._storage.autocommit() as connection:
                for seen in gone:
                    workers.remove_worker(connection, holders[seen.worker_id])

    def _renew_row(self, connection: leases.Executor) -> None:
        """Renew this worker's row; a row without the last heartbeats tells that the database went back."""
        count, doing = self._n_heartbeats + 1, self._doing.text()
        if workers.renew_worker(connection, self._storage.engine, self._me, doing, count):
            self._n_heartbeats = count
            return
        before, self._n_heartbeats = self._n_heartbeats, 0
        if before:
            _logger.warning("the database was restored to an earlier state: this worker begins anew")
            self.restored = True
            self._watch.forget()
        self._register(connection)

    def _renew_file(self) -> None:
        if self._file is None:
            return
        try:
            self._file.touch()
        except OSError as error:  # a worker is worth more than its sign of life
            _logger.warning("%s: %s cannot be written (%s)", _FILE_VARIABLE, self._file, error.strerror)
            self._file = None

    def _requeue(self, seen: ObservedLease, cause: str) -> None:
        try:
            self._storage.expire(seen, cause)
        except (LeaseChanged, UpdateFinishedTrialError):
            return
        _logger.warning("trial %d waits for another worker: %s", seen.number, cause)

    def _requeue_unheld(self, seen: ObservedLease) -> None:
        try:
            self._storage.requeue_unheld(seen.trial_id)
        except LeaseChanged:
            return
        _logger.warning(
            "trial %d was running and no worker of tlopt holds it (study.ask, add_trial or copy_study leave"
            " such trials): it waits for a worker",
            seen.number,
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
                )  # the successor has this number and a row of its own
            for seen in own:
                self._storage.expire(seen, f"{self._me.name} made no step for {silent:.0f} s")
        except (LeaseChanged, *DATABASE_ERRORS) as error:
            _logger.warning("the trial could not be requeued (%s); its lease runs out", type(error).__name__)
        replace_process()


def replace_process() -> None:
    """Start this command again in the same process: a thread that hangs in a system call cannot be ended."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tlopt", *sys.argv[1:]])
