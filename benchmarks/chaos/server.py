"""The PostgreSQL server of the fault run and the network in front of it; both fail on demand."""

import contextlib
import selectors
import signal
import socket
import struct
import threading
import time
from typing import Any

import psycopg2

from benchmarks.common.postgres import OwnServer

FORGOTTEN_SECONDS = 30.0  # until the server drops a client that the network has forgotten
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Database:
    """A database on a server of its own that can be stopped, restarted and paused."""

    name = "chaos"

    def __init__(self, server: OwnServer) -> None:
        self.server = server
        server.execute(f"CREATE DATABASE {self.name}")

    def start(self) -> None:
        """Start the server without waiting for it; it recovers if it was killed."""
        self.server.process.start()

    def stop(self, mode: str) -> None:
        """Stop the server as `pg_ctl stop -m MODE` does, with `mode` "fast" or "immediate"."""
        self.server.process.stop({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])

    def pause(self) -> None:
        """Suspend every process of the server."""
        self.server.pause()

    def resume(self) -> None:
        """Continue a paused server."""
        self.server.resume()

    def terminate(self, prefix: str) -> None:
        """Call `pg_terminate_backend` for the connections whose application name begins with `prefix`."""
        with contextlib.suppress(psycopg2.Error):
            self.server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
                f"{prefix}%",
            )

    def url(self, port: int, application: str) -> str:
        """The database's URL through `port`, with `application` as the application name."""
        where = f"tlopt:{self.server.password}@127.0.0.1:{port}/{self.name}"
        return f"postgresql+psycopg2://{where}?application_name={application}"


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
        """Forward nothing from now on, without closing connections."""
        self._open.clear()

    def heal(self) -> None:
        """Forward again; data sent in the meantime arrives."""
        self._open.set()

    def forget(self) -> None:
        """Forward new connections again; earlier ones stay silent forever.

        This is what a restarted firewall does. The server drops them after `FORGOTTEN_SECONDS`.
        """
        with self._lock:
            for one, (client, server) in self._pairs().items():
                self._selector.unregister(one)
                if one is client:
                    self._forgotten.append((time.monotonic(), client, server))
            self._peer.clear()
        self._open.set()

    def reset(self) -> None:
        """Reset all connections at both ends."""
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
