"""Cost of a trial without its training, for 1 to 64 workers: tlopt, Optuna alone, Optuna's gRPC proxy.

Workers are processes that share one PostgreSQL server and train nothing, see `benchmarks.service.trials`.
The systems take turns, so that other load on the machine falls on all of them. The proxy is left out if
the package grpcio is missing.

    python -m benchmarks.service.overhead
    python -m benchmarks.service.overhead --start      # 64 workers at once, an empty database, 80 connections
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from benchmarks.service import server
from benchmarks.service.server import Connections, Watched
from benchmarks.service.workers import Outcome, first_start, proxy, run_worker

System = Literal["Optuna", "gRPC proxy", "tlopt"]
SYSTEMS: tuple[System, ...] = ("Optuna", "gRPC proxy", "tlopt")
_START_SECONDS_MAX = 300.0
_RUN_SECONDS_MAX = 500.0
_CONNECTIONS_MAX = 200  # of the server: enough for two per worker of Optuna's 64
_context = multiprocessing.get_context("fork")  # the libraries are loaded once


@dataclass(frozen=True)
class Cell:
    """One row of the table: `trials` by each worker, measured `repeats` times."""

    n_finished: int
    n_workers: int
    trials: int
    repeats: int


CELLS = (
    Cell(100, 1, 5, 3),
    Cell(100, 8, 2, 2),
    Cell(100, 32, 1, 1),
    Cell(100, 64, 1, 1),
    Cell(1_000, 1, 5, 3),
    Cell(1_000, 8, 2, 2),
    Cell(1_000, 32, 1, 1),
    Cell(1_000, 64, 1, 1),
    Cell(10_000, 1, 3, 2),
    Cell(10_000, 8, 1, 1),
)


def run_cell(watched: Watched, system: System, cell: Cell) -> dict[str, float]:
    """Measure one system in one cell, on a fresh copy of the database."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(watched.copy(f"finished_{cell.n_finished}"))
        connections = stack.enter_context(Connections(watched.server))
        served = stack.enter_context(proxy(_context, url, wanted=system == "gRPC proxy"))
        ready, go = _context.Barrier(cell.n_workers + 1), _context.Barrier(cell.n_workers + 1)
        results: Any = _context.SimpleQueue()
        address: str | int = url if served is None else served.port
        rest = (system, address, cell.trials, ready, go, results)
        workers = [_context.Process(target=run_worker, args=rest) for _ in range(cell.n_workers)]
        for worker in workers:
            worker.start()
        ready.wait(_START_SECONDS_MAX)
        before = watched.cpu_seconds(), 0.0 if served is None else served.cpu_seconds()
        began = time.monotonic()
        outcomes = [Outcome(**json.loads(_next(results, workers))) for _ in workers]
        seconds = time.monotonic() - began
        after = watched.cpu_seconds(), 0.0 if served is None else served.cpu_seconds()
        rss = 0.0 if served is None else served.rss_mb()
        go.wait(_START_SECONDS_MAX)
        for worker in workers:
            worker.join()
    for text in sorted({o.error for o in outcomes if o.error}):
        print(f"{system}: {text}", file=sys.stderr, flush=True)
    n_trials = cell.n_workers * cell.trials
    return {
        "wall": statistics.median(o.wall_seconds / cell.trials for o in outcomes) * 1e3,
        "trials_a_second": n_trials / seconds,
        "client": sum(o.cpu_seconds for o in outcomes) / n_trials * 1e3,
        "proxy": (after[1] - before[1]) / n_trials * 1e3,
        "server": (after[0] - before[0]) / n_trials * 1e3,
        "connections": connections.most,
        "errors": sum(bool(o.error) for o in outcomes),
        "cold": statistics.median(o.cold_seconds for o in outcomes),
        "rss": max(o.rss_mb for o in outcomes),
        "proxy_rss": rss,
    }


def _next(results: Any, workers: list[Any]) -> str:
    """The next worker's outcome.

    Raises:
        TimeoutError: No worker finished in time.
    """
    until = time.monotonic() + _RUN_SECONDS_MAX
    while time.monotonic() < until:
        if results._poll(1.0):
            return str(results.get())
        if not any(worker.is_alive() for worker in workers):
            break
    raise TimeoutError("a worker did not respond")


_COLUMNS = {
    "wall": "wall, ms",
    "trials_a_second": "trials/s",
    "client": "client CPU, ms",
    "proxy": "proxy CPU, ms",
    "server": "server CPU, ms",
    "connections": "connections",
    "errors": "errors",
    "cold": "first read, s",
    "rss": "RSS, MB",
    "proxy_rss": "proxy RSS, MB",
}
_DECIMALS = {"trials_a_second": 1, "cold": 2}
_HEAD = f"| finished | workers | | {' | '.join(_COLUMNS.values())} |\n" + "| --- " * (3 + len(_COLUMNS)) + "|"


def _line(cell: Cell, system: System, rows: list[dict[str, float]]) -> str:
    mid = {name: statistics.median(row[name] for row in rows) for name in _COLUMNS}
    numbers = " | ".join(f"{number:.{_DECIMALS.get(name, 0)}f}" for name, number in mid.items())
    return f"| {cell.n_finished} | {cell.n_workers} | {system} | {numbers} |"


def _systems() -> tuple[System, ...]:
    """`SYSTEMS`, without the proxy, and with a message on stderr, if its package is missing."""
    if find_spec("grpc") is not None:
        return SYSTEMS
    print("Optuna's gRPC proxy is left out: pip install grpcio protobuf", file=sys.stderr, flush=True)
    return tuple(system for system in SYSTEMS if system != "gRPC proxy")


def measure(cells: list[Cell], out: Path | None) -> None:
    """Print a row per cell and system, medians over repeats."""
    rows: dict[tuple[Cell, System], list[dict[str, float]]] = defaultdict(list)
    systems = _systems()
    print(_HEAD, flush=True)
    with server.running(_CONNECTIONS_MAX) as watched:
        for n_finished in dict.fromkeys(cell.n_finished for cell in cells):
            watched.fill(f"finished_{n_finished}", n_finished)
        for cell in cells:
            for _ in range(cell.repeats):
                for system in systems:
                    rows[cell, system].append(run_cell(watched, system, cell))
            for system in systems:
                print(_line(cell, system, rows[cell, system]), flush=True)
    if out is not None:
        kept = [{"cell": vars(cell), "system": system, "rows": r} for (cell, system), r in rows.items()]
        out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def start_at_once(n_workers: int, max_connections: int) -> None:
    """Print how many workers open their study when all start at once on an empty database."""
    with server.running(max_connections) as watched:
        for system in ("tlopt", "Optuna"):
            url = watched.make(f"empty_{system.lower()}")
            ready, go = _context.Barrier(n_workers), _context.Barrier(n_workers + 1)
            results: Any = _context.SimpleQueue()
            with Connections(watched.server) as connections:
                rest = (system, url, ready, go, results)
                workers = [_context.Process(target=first_start, args=rest) for _ in range(n_workers)]
                for worker in workers:
                    worker.start()
                said = [json.loads(_next(results, workers)) for _ in workers]
                go.wait(_START_SECONDS_MAX)
                for worker in workers:
                    worker.join()
            failed = [text for _, text in said if text]
            print(f"{system}: {n_workers - len(failed)} of {n_workers} opened the study and ran a trial,")
            print(f"  the last after {max(s for s, _ in said):.1f} s; at most {connections.most} connections")
            for text in sorted(set(failed))[:5]:
                print(f"  {failed.count(text)} x {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--start", action="store_true", help="measure the start on an empty database instead")
    parser.add_argument("--finished", type=int, nargs="*", help="only cells with so many finished trials")
    parser.add_argument("--workers", type=int, nargs="*", help="only cells with so many workers")
    parser.add_argument("--repeats", type=int, help="runs per cell")
    parser.add_argument("--out", type=Path, help="JSON file for every run's figures")
    arguments = parser.parse_args()
    chosen = [
        Cell(c.n_finished, c.n_workers, c.trials, arguments.repeats or c.repeats)
        for c in CELLS
        if c.n_finished in (arguments.finished or [c.n_finished])
        and c.n_workers in (arguments.workers or [c.n_workers])
    ]
    if arguments.start:
        start_at_once(64, max_connections=80)
    else:
        measure(chosen, arguments.out)
