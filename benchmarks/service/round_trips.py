"""Round trips to PostgreSQL per trial: tlopt's worker beside Optuna's ask and tell.

A proxy between client and server counts every client message that requires a response:
statements, BEGIN, COMMIT, ROLLBACK and each step of opening a connection.

    python -m benchmarks.service.round_trips
"""

import argparse
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import optuna

from benchmarks.service import server
from benchmarks.service.trials import N_EPOCHS, N_PARAMS, Ours, Stock
from tlopt.storage.studies import open_storage

_UNTYPED_SSL = 80877103  # request codes of the protocol's messages without a type, chapter 54.7
_UNTYPED_GSS = 80877104
_HEAD_BYTES = 5  # type and length
_TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK")
KINDS = ("statement", *_TRANSACTION, "connect")


class Counting:
    """A proxy on 127.0.0.1 that counts messages that require a response, by operation and kind."""

    def __init__(self, port: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.texts: Counter[tuple[str, str]] = Counter()
        self._operation = ""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def at(self, operation: str) -> Iterator[None]:
        """Count the round trips of the block for `operation`."""
        self._operation = operation
        yield
        self._operation = ""

    def clear(self) -> None:
        """Reset the counts."""
        self.counts.clear()
        self.texts.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        unread, typed = b"", False
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                unread, typed = self._count(unread + data, typed)
                server.sendall(data)
        _close(server)

    def _count(self, data: bytes, typed: bool) -> tuple[bytes, bool]:
        """Count the whole messages in `data`; returns the rest, and whether messages are typed by now."""
        while True:
            if not typed:
                if len(data) < 8:
                    return data, typed
                length, code = struct.unpack("!II", data[:8])
                if len(data) < length:
                    return data, typed
                self._add("connect", "")
                typed = code not in (_UNTYPED_SSL, _UNTYPED_GSS)
                data = data[length:]
                continue
            if len(data) < _HEAD_BYTES:
                return data, typed
            length = 1 + struct.unpack("!I", data[1:5])[0]
            if len(data) < length:
                return data, typed
            self._add_typed(data[:1], data[_HEAD_BYTES:length])
            data = data[length:]

    def _add_typed(self, kind: bytes, body: bytes) -> None:
        match kind:
            case b"Q":
                text = body.rstrip(b"\0").decode()
                word = text.split(maxsplit=1)[0].rstrip(";").upper()
                self._add(word if word in _TRANSACTION else "statement", text)
            case b"S":  # the end of an extended query
                self._add("statement", "")
            case b"p":  # a password
                self._add("connect", "")

    def _add(self, kind: str, text: str) -> None:
        self.counts[self._operation, kind] += 1
        self.texts[self._operation, " ".join(text.split())[:110]] += 1


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _close(target)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _table(title: str, counts: Counter[tuple[str, str]], n_trials: int) -> str:
    lines = [f"| {title} | {' | '.join(KINDS)} | all |", "| --- " * (len(KINDS) + 2) + "|"]
    operations = list(dict.fromkeys(operation for operation, _ in counts))
    rows = {operation: [counts[operation, kind] / n_trials for kind in KINDS] for operation in operations}
    beats = {name: rows.pop(name) for name in list(rows) if "heart" in name}
    rows["a trial"] = [sum(row[i] for row in rows.values()) for i in range(len(KINDS))]
    for operation, row in {**rows, **beats}.items():
        lines.append(f"| {operation} | {' | '.join(f'{n:g}' for n in (*row, sum(row)))} |")
    return "\n".join(lines)


def measure(n_finished: int, n_trials: int, *, texts: bool) -> None:
    """Print a table per system for a study with `n_finished` trials, per trial over `n_trials`."""
    with server.running(max_connections=20) as watched:
        watched.fill("study", n_finished)
        for title in ("Optuna", "tlopt"):
            with watched.copy("study") as url:
                proxy = Counting(watched.server.port)
                through = url.replace(f":{watched.server.port}/", f":{proxy.port}/")
                worker = (
                    Ours(open_storage(through), beating=False)
                    if title == "tlopt"
                    else Stock(optuna.storages.get_storage(through))
                )
                worker.trial(proxy)  # the first trial reads the whole study, once per worker
                proxy.clear()
                for _ in range(n_trials):
                    worker.trial(proxy)
                    if isinstance(worker, Ours):
                        worker.beat(proxy)
                print(_table(title, proxy.counts, n_trials), end="\n\n")
                for (operation, text), n in proxy.texts.items() if texts else ():
                    print(f"{n / n_trials:6g}  {operation}: {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finished", type=int, default=100, help="finished trials in the study")
    parser.add_argument("--trials", type=int, default=5, help="trials counted")
    parser.add_argument("--texts", action="store_true", help="also print the statements")
    arguments = parser.parse_args()
    print(f"{N_PARAMS} parameters, {N_EPOCHS} epochs, {arguments.finished} finished trials, one worker\n")
    measure(arguments.finished, arguments.trials, texts=arguments.texts)
