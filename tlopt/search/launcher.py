"""Local workers as processes: one for each GPU, or several on the CPU with its cores shared out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlopt.cores import CPU_WORKERS_MAX

STOP_SECONDS = 15.0  # a worker asked to stop hands its trial back within ten


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one local worker runs."""

    device: str  # "cuda:0", "cpu", ...
    n_threads: int


def slots(n_workers: int, devices: Sequence[str], n_cores: int) -> tuple[Slot, ...]:
    """Slots for `n_workers` spread over `devices`; 0 means one for each GPU, or one for each core of the CPU.

    The cores are shared out: two torch threads in each of several processes on two cores run many times
    slower than one each.
    """
    gpus = [device for device in devices if device.startswith("cuda")]
    n = n_workers or len(gpus) or min(n_cores, CPU_WORKERS_MAX)
    on = gpus or ["cpu"]
    return tuple(Slot(device=on[i % len(on)], n_threads=max(1, n_cores // n)) for i in range(n))


@dataclass(frozen=True)
class Workers:
    """Running local workers."""

    processes: tuple[subprocess.Popen[bytes], ...]

    @property
    def n_alive(self) -> int:
        """How many have not ended."""
        return sum(1 for process in self.processes if process.poll() is None)

    @property
    def failures(self) -> tuple[int, ...]:
        """Exit statuses other than 0 of those that have ended."""
        return tuple(process.returncode for process in self.processes if process.poll())

    def stop(self) -> None:
        """Ask all to stop, wait until they have, and end those that do not."""
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

    The database's URL travels in the environment, never in a process list. What workers print goes to `log`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        workers = Workers(tuple(_start(arguments, slot, url, output.fileno()) for slot in at))
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
