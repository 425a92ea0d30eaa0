"""Local workers: their number, devices and threads; and none survives its block."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tlopt.worker import local
from tlopt.worker.local import Slot, Workers, local_workers, slots

PRINT_ENVIRONMENT = """
import os, sys
print(sys.argv[1:])
print(*(os.environ[name] for name in ("TLOPT_STORAGE", "OMP_NUM_THREADS")), sep="|")
"""


@pytest.mark.parametrize(
    ("n_workers", "devices", "n_cores", "expected"),
    [
        (0, ["cpu"], 1, [("cpu", 1)]),
        (1, ["cpu"], 8, [("cpu", 8)]),
        (2, ["cpu"], 8, [("cpu", 4)] * 2),
        (3, ["cpu"], 8, [("cpu", 2)] * 3),
        (4, ["cpu"], 2, [("cpu", 1)] * 4),
        (0, ["cuda:0", "cuda:1", "cpu"], 8, [("cuda:0", 4), ("cuda:1", 4)]),
        (3, ["cuda:0", "cuda:1", "cpu"], 6, [("cuda:0", 2), ("cuda:1", 2), ("cuda:0", 2)]),
        (1, ["cuda:0", "cuda:1", "cpu"], 6, [("cuda:0", 6)]),
        (1, ["cpu", "mps"], 8, [("cpu", 8)]),
    ],
)
def test_slots_spread_workers_over_devices_and_share_out_the_cores(
    n_workers: int, devices: list[str], n_cores: int, expected: list[tuple[str, int]]
) -> None:
    found = slots(n_workers, devices, n_cores)

    assert [(slot.device, slot.n_threads) for slot in found] == expected


def test_without_a_gpu_the_cores_are_used_up_to_a_few_workers() -> None:
    found = slots(0, ["cpu"], 64)

    assert found == (Slot(device="cpu", n_threads=16),) * 4


# Processes

Starter = Callable[[str], subprocess.Popen[bytes]]


SLOT = Slot(device="cpu", n_threads=1)


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts a process that runs the given Python code after it has said so."""
    started = []

    def run(code: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", f"import signal, time; {code}; print(1, flush=True); time.sleep(60)"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def made(*processes: subprocess.Popen[bytes]) -> Workers:
    """Workers that are these processes, started one after the other."""
    successors = iter(processes)
    return Workers(lambda slot: next(successors), [SLOT] * len(processes))


def test_a_worker_that_was_killed_is_replaced_and_one_that_failed_is_not(start: Starter) -> None:
    killed, successor = start("pass"), start("pass")
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    queue = iter([killed, failed, successor])
    workers = Workers(lambda slot: next(queue), [SLOT] * 2)
    killed.kill()
    killed.wait()
    failed.wait()

    workers.replace_killed()

    assert workers.processes == (successor, failed)


def test_a_worker_that_dies_again_and_again_at_once_stays_down() -> None:
    n_started = 0

    def dead(slot: Slot) -> subprocess.Popen[bytes]:
        nonlocal n_started
        n_started += 1
        process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
        process.wait()
        return process

    workers = Workers(dead, [SLOT])
    for _ in range(10):
        workers.replace_killed()

    assert n_started == 1 + local.QUICK_DEATHS_MAX
    assert workers.failures == (-signal.SIGKILL,)


def test_workers_that_are_asked_to_stop_have_ended(start: Starter) -> None:
    workers = made(start("pass"), start("pass"))
    assert workers.n_alive == 2

    workers.stop()

    assert workers.n_alive == 0
    assert {process.returncode for process in workers.processes} == {-signal.SIGTERM}


def test_a_worker_that_does_not_stop_is_ended(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "STOP_SECONDS", 0.3)
    workers = made(start("signal.signal(signal.SIGTERM, signal.SIG_IGN)"), start("pass"))
    began = time.monotonic()

    workers.stop()

    assert [process.returncode for process in workers.processes] == [-signal.SIGKILL, -signal.SIGTERM]
    assert time.monotonic() - began < 5


def test_failures_are_the_statuses_of_those_that_ended_badly() -> None:
    processes = tuple(subprocess.Popen([sys.executable, "-c", f"raise SystemExit({n})"]) for n in (0, 3))
    for process in processes:
        process.wait()

    assert made(*processes).failures == (3,)


def test_a_worker_is_started_with_its_slot_and_the_url_in_its_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tlopt.py").write_text(PRINT_ENVIRONMENT)  # stands in for the command
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "runs" / "workers.log"
    at = [Slot(device="cuda:1", n_threads=3)]

    with local_workers(["x.toml"], at, "postgresql://u:secret@h/d", log) as workers:
        workers.processes[0].wait(timeout=60)

    arguments, environment = log.read_text().splitlines()
    expected = ["worker", "x.toml", "--device", "cuda:1", "--threads", "3", "--parent"]
    assert arguments.startswith(str(expected)[:-1])
    assert environment == "postgresql://u:secret@h/d|3"


def test_workers_are_stopped_when_the_block_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tlopt.py").write_text("import time; time.sleep(60)")
    monkeypatch.chdir(tmp_path)
    at = [Slot(device="cpu", n_threads=1)] * 2

    with pytest.raises(KeyboardInterrupt), local_workers(["x"], at, "sqlite:///x.db", tmp_path / "log") as w:
        raise KeyboardInterrupt

    assert w.n_alive == 0
