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

QUICK_SECONDS = 60.0  # a worker killed within this time counts as a quick death
QUICK_DEATHS_MAX = 3
STOP_SECONDS = 15.0  # a worker that is asked to stop requeues its trial within ten


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one local worker runs."""

    device: str  # "cuda:0", "cpu", ...
    n_threads: int


def slots(n_workers: int, devices: Sequence[str], n_cores: int, *, n_threads: int = 0) -> tuple[Slot, ...]:
    """Slots for `n_workers` over `devices`; 0 means one per GPU, or one per core of the CPU.

    The cores are divided among them, unless `n_threads` is given: two torch threads in each of several
    processes on two cores run many times slower than one each.
    """
    gpus = [device for device in devices if device.startswith("cuda")]
    n = n_workers or len(gpus) or min(n_cores, CPU_WORKERS_MAX)
    on = gpus or ["cpu"]
    share = n_threads or max(1, n_cores // n)
    return tuple(Slot(device=on[i % len(on)], n_threads=share) for i in range(n))


@dataclass
class _Local:
    """One slot's current worker; earlier ones may have been killed."""

    slot: Slot
    process: subprocess.Popen[bytes]
    began: float
    quick_deaths: int = 0  # in a row


class Workers:
    """Local workers, one per slot; those that are killed are replaced."""

    def __init__(self, start: Callable[[Slot], subprocess.Popen[bytes]], at: Sequence[Slot]) -> None:
        self._start = start
        self._workers = [_Local(slot, start(slot), time.monotonic()) for slot in at]

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """One for each slot."""
        return tuple(worker.process for worker in self._workers)

    @property
    def n_alive(self) -> int:
        """Number of workers that have not ended."""
        return sum(1 for process in self.processes if process.poll() is None)

    @property
    def failures(self) -> tuple[int, ...]:
        """Non-zero exit statuses of the workers that have ended."""
        return tuple(process.returncode for process in self.processes if process.poll())

    def replace_killed(self) -> None:
        """Restart workers that were killed by a signal, unless they die quickly time after time.

        A worker that ended with an error of its own stays down: another one would end the same way.
        """
        for worker in self._workers:
            if (worker.process.poll() or 0) >= 0:
                continue
            lived = time.monotonic() - worker.began
            worker.quick_deaths = worker.quick_deaths + 1 if lived < QUICK_SECONDS else 1
            if worker.quick_deaths <= QUICK_DEATHS_MAX:
                worker.process, worker.began = self._start(worker.slot), time.monotonic()

    def stop(self) -> None:
        """Ask all to stop, wait, and kill those that do not."""
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
    """Workers started with `tlopt worker` and `arguments`, one for each slot; stopped when the block ends.

    The database's URL is passed in the environment, so that no process list shows it. Output goes to `log`.
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
        # a terminal's Ctrl-C reaches the parent alone, which then asks each worker once
        start_new_session=True,
    )
