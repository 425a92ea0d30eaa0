"""Processes for measuring overhead: workers that do not train, and Optuna's gRPC proxy."""

import contextlib
import json
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from benchmarks.common.postgres import free_port
from benchmarks.service import server
from benchmarks.service.trials import STUDY, NoTally, Ours, Stock
from tlopt import spec
from tlopt.storage.studies import create_or_open, open_storage

_HOST = "127.0.0.1"
_PROXY_SECONDS_MAX = 30
_STUDY_FILE = f"""
name = "{STUDY}"
[data]
source = "images"
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1000
epochs = 30
[search]
lr = {{ log = [1e-3, 1e-1] }}
"""


@dataclass(frozen=True)
class Outcome:
    """One worker's measurements."""

    wall_seconds: float  # all its trials
    cpu_seconds: float  # this process, heartbeat included
    cold_seconds: float  # first read of the study
    rss_mb: float  # peak
    error: str  # of the first trial that failed; "" if none did


@dataclass(frozen=True)
class Proxy:
    """The process of a gRPC proxy."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """Processor time since its start."""
        return server.cpu_seconds(self.pid)

    def rss_mb(self) -> float:
        """Peak memory so far."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@contextlib.contextmanager
def proxy(context: Any, url: str, *, wanted: bool) -> Iterator[Proxy | None]:
    """A proxy that serves `url` within the block; None if it is not `wanted`."""
    if not wanted:
        yield None
        return
    port = free_port()
    process = context.Process(target=_serve, args=(url, port), daemon=True)
    process.start()
    try:
        yield Proxy(process.pid, port)
    finally:
        process.kill()
        process.join()


def _serve(url: str, port: int) -> None:
    optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(url), host=_HOST, port=port)


def _open(system: str, address: str | int) -> BaseStorage:
    if system == "tlopt":
        return open_storage(str(address))
    if system == "Optuna":
        return optuna.storages.get_storage(str(address))
    storage = optuna.storages.GrpcStorageProxy(host=_HOST, port=int(address))
    storage.wait_server_ready(timeout=_PROXY_SECONDS_MAX)
    return storage


def _worker(system: str, storage: BaseStorage, *, beating: bool = True) -> Ours | Stock:
    return Ours(storage, beating=beating) if system == "tlopt" else Stock(storage)


def run_worker(system: str, address: str | int, n_trials: int, ready: Any, go: Any, results: Any) -> None:
    """Read the study, wait at `ready`, run trials, put an `Outcome` into `results`, and stay until `go`."""
    worker, error, began = None, "", time.monotonic()
    try:
        worker = _worker(system, _open(system, address))
        began = time.monotonic()
        worker.study.get_trials(deepcopy=False)
    except Exception as failure:
        error = _first_line(failure)
    cold = time.monotonic() - began
    ready.wait()
    start, cpu = time.monotonic(), time.process_time()
    try:
        for _ in range(n_trials if worker is not None else 0):
            worker.trial(NoTally())  # type: ignore[union-attr]
    except Exception as failure:
        error = error or _first_line(failure)
    outcome = Outcome(
        wall_seconds=time.monotonic() - start,
        cpu_seconds=time.process_time() - cpu,
        cold_seconds=cold,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        error=error,
    )
    results.put(json.dumps(asdict(outcome)))
    go.wait()
    os._exit(0)  # skips closing pools and channels one by one


def first_start(system: str, url: str, ready: Any, go: Any, results: Any) -> None:
    """Open the study together with the others on an empty database; put seconds and error into `results`."""
    ready.wait()
    start, error = time.monotonic(), ""
    try:
        storage = _open(system, url)
        if system == "tlopt":
            create_or_open(storage, spec.loads(_STUDY_FILE, "file"), file_text=_STUDY_FILE, fingerprints={})
        else:
            optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)
        _worker(system, storage).trial(NoTally())
    except Exception as failure:
        error = _first_line(failure)
    results.put(json.dumps([time.monotonic() - start, error]))
    go.wait()
    os._exit(0)


def _first_line(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0][:150]}"
