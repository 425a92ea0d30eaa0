"""A temporary PgBouncer in front of the tests' server, from the system's binary with its own defaults."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from postgres import USER, Server, _account, _as, die_with_parent, free_port

Mode = Literal["session", "transaction"]
START_SECONDS = 30
CONFIG = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {home}/users
pool_mode = {mode}
default_pool_size = {n_servers}
max_client_conn = {n_clients}
"""


@dataclass(frozen=True)
class Bouncer(Server):
    """A pooler, which takes databases and the superuser's password as its server does."""


def find_binary() -> str | None:
    """PgBouncer's path, or None when this machine has none."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def pooling(
    binary: str, server: Server, mode: Mode, *, n_servers: int = 20, n_clients: int = 100
) -> Iterator[Bouncer]:
    """PgBouncer before `server`; `n_servers` connections to it at most for each database and role."""
    home = Path(tempfile.mkdtemp(prefix="tlopt-pgbouncer-", dir="/tmp"))
    try:
        bouncer = Bouncer(free_port(), server.password)
        config = CONFIG.format(
            server_port=server.port,
            port=bouncer.port,
            home=home,
            mode=mode,
            n_servers=n_servers,
            n_clients=n_clients,
        )
        (home / "ini").write_text(config)
        (home / "users").write_text(f'"{USER}" "{server.password}"\n')
        account = _account()  # it refuses root, too
        if account is not None:
            os.chown(home, account.pw_uid, account.pw_gid)
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [binary, home / "ini"],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),
                **_as(account),
            )
        try:
            _wait(process, bouncer.port, home / "log")
            yield bouncer
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(home)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start: {error}\n{log.read_text()}") from error
            time.sleep(0.02)
