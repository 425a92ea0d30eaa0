"""SQL of `tlopt_workers`, which lists workers and their activity; and the identity of processes."""

import os
import socket
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tlopt.storage.leases import Executor
from tlopt.storage.schema import insert, utc_now, whole, workers

_ENDED = ("Z", "X")  # states of ended processes; "Z" until the parent has waited for it
_FORGET_DAYS = 1  # age at which a row left by its worker is deleted


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A process, identified uniquely over machines and time."""

    worker_id: str
    name: str  # host:process
    machine: str  # boot and process namespace, within which process ids are unique
    pid: int
    born: int  # start of the process in ticks since boot; 0 if unknown


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A worker's row."""

    identity: Identity
    device: str
    studies: tuple[str, ...]
    doing: str  # JSON of `heartbeat.Activity`
    silent_seconds: float  # since its last heartbeat, by the database's clock


def this_process() -> Identity:
    """The identity of this process."""
    pid = os.getpid()
    host = socket.gethostname()
    return Identity(
        worker_id=uuid.uuid4().hex,
        name=f"{host}:{pid}",
        machine=_machine(host),
        pid=pid,
        born=_stat(pid)[1] or 0,
    )


def has_ended(identity: Identity) -> bool:
    """Return whether the process has certainly ended: it ran here, and its id is free or reused."""
    # Without a start time the machine is identified by its host name, which may be ambiguous.
    if identity.born == 0 or identity.machine != _machine(socket.gethostname()):
        return False
    try:
        os.kill(identity.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    state, born = _stat(identity.pid)
    return state in _ENDED or born not in (identity.born, None)


def register(executor: Executor, engine: sa.Engine, me: Identity, *, device: str, studies: str) -> None:
    """Add this worker's row if it is missing."""
    row = {**vars(me), "device": device, "studies": studies, "doing": "", "beat": 0, "seen": utc_now(engine)}
    executor.execute(insert(engine, workers).values(row).on_conflict_do_nothing(index_elements=["worker_id"]))


def remove_stale(executor: Executor, engine: sa.Engine) -> None:
    """Delete rows that have not been updated for a day."""
    executor.execute(sa.delete(workers).where(workers.c.seen < _days_ago(engine)))


def _days_ago(engine: sa.Engine) -> sa.ColumnElement[datetime]:
    if engine.dialect.name == "sqlite":
        return sa.func.datetime("now", f"-{_FORGET_DAYS} days")
    return utc_now(engine) - sa.text(f"interval '{_FORGET_DAYS} day'")  # type: ignore[no-any-return]


def renew_worker(executor: Executor, engine: sa.Engine, me: Identity, doing: str, count: int) -> bool:
    """Store a worker's heartbeat and activity.

    Args:
        count: number of this heartbeat, from 1.

    Returns:
        False if the row lacks the previous heartbeats, because it was deleted or the database was restored to
        an earlier state.
    """
    shown = executor.execute(
        sa.update(workers)
        .where(workers.c.worker_id == me.worker_id, workers.c.beat >= count - 1)
        .values(beat=count, seen=utc_now(engine), doing=doing)
    )
    return bool(shown.rowcount)


def remove_worker(executor: Executor, who: Identity) -> None:
    """Delete the row of a worker that is ending or has ended."""
    executor.execute(sa.delete(workers).where(workers.c.worker_id == who.worker_id))


def identities(executor: Executor, worker_ids: Collection[str]) -> dict[str, Identity]:
    """Identities by worker id, for those of `worker_ids` that have a row."""
    rows = executor.execute(sa.select(*_IDENTITY).where(workers.c.worker_id.in_(worker_ids)))
    return {row.worker_id: _identity(row) for row in rows}


def list_workers(executor: Executor, engine: sa.Engine) -> list[WorkerStatus]:
    """All workers of the database, by name."""
    now = _time(executor.execute(sa.select(utc_now(engine))).scalar())
    raw = sa.type_coerce(workers.c.seen, sa.types.NullType()).label("seen")  # no conversion, which may fail
    columns = (*_IDENTITY, workers.c.device, workers.c.studies, workers.c.doing, raw)
    rows = executor.execute(sa.select(*columns).order_by(workers.c.name))
    return [
        WorkerStatus(
            identity=_identity(row),
            device=row.device,
            studies=tuple(row.studies.split(",")),
            doing=row.doing,
            silent_seconds=max(0.0, (now - _time(row.seen)).total_seconds()),
        )
        for row in rows
    ]


_IDENTITY = (workers.c.worker_id, workers.c.name, workers.c.machine, workers.c.pid, workers.c.born)


def _time(value: Any) -> datetime:
    """A time from what the driver gives, which is text for SQLite; 1970 for a damaged one."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return datetime.fromtimestamp(0, UTC).replace(tzinfo=None)


def _identity(row: sa.Row[tuple[object, ...]]) -> Identity:
    return Identity(
        worker_id=row.worker_id,
        name=str(row.name),
        machine=row.machine,
        pid=whole(row.pid),
        born=whole(row.born),
    )


def _machine(host: str) -> str:
    """Boot id and process namespace; the host name if the system does not provide them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return host


def _stat(pid: int) -> tuple[str, int | None]:
    """State and start time in ticks of a process (fields 3 and 22 in proc(5)); ("", None) if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", None
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])
