"""The SQL of `tlopt_workers`: each worker, where it runs and what it does; and process identity."""

import os
import socket
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from tlopt.storage.leases import Executor
from tlopt.storage.schema import insert, utc_now, workers

_ENDED = ("Z", "X")  # states of a process that has ended; "Z" until its parent has asked for its status
_FORGET_DAYS = 1  # a row whose worker could not remove it


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process, distinguishable from every other on any machine at any time."""

    worker_id: str
    name: str  # host:process
    machine: str  # one boot and one process namespace, within which process numbers are unique
    pid: int
    born: int  # start of the process in ticks since boot; 0 where the system does not say


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A worker's row."""

    identity: Identity
    device: str
    studies: tuple[str, ...]
    doing: str
    silent_seconds: float  # since its last heartbeat, by the database's clock


def this_process() -> Identity:
    """This process."""
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
    """Whether the process has ended for certain: it ran on this machine, and its number is free or reused."""
    # Without a start time the machine is known by its host name alone, which two machines may share.
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
    """Remove rows that have not been touched for a day."""
    executor.execute(sa.delete(workers).where(workers.c.seen < _days_ago(engine)))


def _days_ago(engine: sa.Engine) -> sa.ColumnElement[datetime]:
    if engine.dialect.name == "sqlite":
        return sa.func.datetime("now", f"-{_FORGET_DAYS} days")
    return utc_now(engine) - sa.text(f"interval '{_FORGET_DAYS} day'")  # type: ignore[no-any-return]


def renew_worker(executor: Executor, engine: sa.Engine, me: Identity, doing: str, count: int) -> bool:
    """Renew a worker's row: its heartbeat, and what it is doing.

    Args:
        count: number of this heartbeat, from 1.

    Returns:
        False where the row does not have the heartbeats before this one: it was removed, or the database was
        restored to an earlier state.
    """
    shown = executor.execute(
        sa.update(workers)
        .where(workers.c.worker_id == me.worker_id, workers.c.beat >= count - 1)
        .values(beat=count, seen=utc_now(engine), doing=doing)
    )
    return bool(shown.rowcount)


def remove_worker(executor: Executor, who: Identity) -> None:
    """Remove the row of a worker that ends or has ended."""
    executor.execute(sa.delete(workers).where(workers.c.worker_id == who.worker_id))


def identities(executor: Executor, worker_ids: Collection[str]) -> dict[str, Identity]:
    """The identities of those of `worker_ids` that have a row."""
    rows = executor.execute(sa.select(workers).where(workers.c.worker_id.in_(worker_ids)))
    return {row.worker_id: _identity(row) for row in rows}


def list_workers(executor: Executor, engine: sa.Engine) -> list[WorkerStatus]:
    """All workers of the database, by name."""
    now = executor.execute(sa.select(utc_now(engine))).scalar()
    now = datetime.fromisoformat(now) if isinstance(now, str) else now
    rows = executor.execute(sa.select(workers).order_by(workers.c.name))
    return [
        WorkerStatus(
            identity=_identity(row),
            device=row.device,
            studies=tuple(row.studies.split(",")),
            doing=row.doing,
            silent_seconds=max(0.0, (now - row.seen).total_seconds()),
        )
        for row in rows
    ]


def _identity(row: sa.Row[tuple[object, ...]]) -> Identity:
    return Identity(
        worker_id=row.worker_id, name=row.name, machine=row.machine, pid=int(row.pid), born=int(row.born)
    )


def _machine(host: str) -> str:
    """Boot and process namespace; the host name where the system has no such files."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return host


def _stat(pid: int) -> tuple[str, int | None]:
    """State and start, in ticks since boot, of a process: fields 3 and 22 of proc(5)'s stat; "" and None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", None
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])
