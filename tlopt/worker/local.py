"""Local worker processes: one per GPU, or several that share the cores of a CPU."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlopt.system.cpus import CPU_WORKERS_MAX

QUICK_SECONDS = 60.0  # a worker killed sooner than this died quickly
QUICK_DEATHS_MAX = 3
STOP_SECONDS = 15.0  # a worker needs up to 10 to requeue its trial


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Device and threads of one local worker."""

    device: str  # "cuda:0", "cpu", ...
    n_threads: int


def slots(n_workers: int, devices: Sequence[str], n_cores: int, *, n_threads: int = 0) -> tuple[Slot, ...]:
    """Distribute `n_workers` over `devices`; 0: one worker per GPU, or per CPU core.

    Cores are divided among the workers unless `n_threads` is given, because oversubscribed torch threads are
    many times slower.
    """
    gpus = [device for device in devices if device.startswith("cuda")]
    n = n_workers or len(gpus) or min(n_cores, CPU_WORKERS_MAX)
    on = gpus or ["cpu"]
    share = n_threads or max(1, n_cores // n)
    return tuple(Slot(device=on[i % len(on)], n_threads=share) for i in range(n))


@dataclass
class _Local:
    """The current worker of one slot."""

    slot: Slot
    process: subprocess.Popen[bytes]
    began: float
    quick_deaths: int = 0  # in a row


class Workers:
    """Local workers, one per slot; killed ones are replaced."""

    def __init__(self, start: Callable[[Slot], subprocess.Popen[bytes]], at: Sequence[Slot]) -> None:
        self._start = start
        self._workers = [_Local(slot, start(slot), time.monotonic()) for slot in at]

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The current processes, one per slot."""
        return tuple(worker.process for worker in self._workers)

    @property
    def n_alive(self) -> int:
        """Number of workers still running."""
        return sum(1 for process in self.processes if process.poll() is None)

    @property
    def failures(self) -> tuple[int, ...]:
        """Non-zero exit statuses of the workers that have ended."""
        return tuple(process.returncode for process in self.processes if process.poll())

    def replace_killed(self) -> None:
        """Restart workers killed by a signal, unless they die quickly several times in a row.

        A worker that exited with an error is not restarted: a new one would fail the same way.
        """
        for worker in self._workers:
            if (worker.process.poll() or 0) >= 0:
                continue
            lived = time.monotonic() - worker.began
            worker.quick_deaths = worker.quick_deaths + 1 if lived < QUICK_SECONDS else 1
            if worker.quick_deaths <= QUICK_DEATHS_MAX:
                worker.process, worker.began = self._start(worker.slot), time.monotonic()

    def stop(self) -> None:
        """Send SIGTERM to all workers, wait, and kill those still running."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def local_workers(arguments: Sequence[str], at: Sequence[Slot], url: str, log: Path) -> Iterator[Workers]:
    """Run `tlopt worker ARGUMENTS` in each slot during the block, with output to `log`.

    The database's URL is passed in the environment, where no process list shows it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        workers = Workers(lambda slot: _start(arguments, slot, url, output.fileno()), at)
        try:
            yield workers
        finally:
            workers.stop()


def _start(arguments: Sequence[str], slot: Slot, url: str, output: int) -> subprocess.Popen[bytes]:
    threads = str(slot.n_threads)
    environment = os.environ | {"TLOPT_STORAGE": url, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tlopt", "worker", *arguments, "--device", slot.device]
    return subprocess.Popen(
        [*command, "--threads", threads, "--parent", str(os.getpid())],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C in a terminal then reaches only the parent, which signals each worker once
        start_new_session=True,
    )
