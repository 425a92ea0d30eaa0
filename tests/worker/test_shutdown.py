"""Signals are requests: a step may end, then a stop is raised where that is safe; none is forgotten."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlopt.worker.shutdown import Interrupt, Interrupted


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def asked(request: pytest.FixtureRequest) -> signal.Signals:
    number: signal.Signals = request.param
    return number


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    made = Interrupt()
    made.install()
    yield made
    made.release()


def test_nothing_is_asked_for_at_first() -> None:
    assert not Interrupt().requested


def test_a_signal_outside_an_armed_block_is_remembered_and_stops_the_next(
    asked: signal.Signals, interrupt: Interrupt
) -> None:
    with interrupt.interruptible():
        pass
    signal.raise_signal(asked)  # raises nothing

    assert interrupt.requested
    with pytest.raises(Interrupted), interrupt.interruptible():
        raise AssertionError("nothing is begun")


def test_a_signal_in_a_block_without_patience_stops_it_at_once(
    asked: signal.Signals, interrupt: Interrupt
) -> None:
    lines = []

    def block() -> None:
        lines.append("before")
        signal.raise_signal(asked)
        lines.append("after")

    with pytest.raises(Interrupted), interrupt.interruptible():
        block()

    assert lines == ["before"]


def test_a_block_with_patience_may_end_after_a_signal(asked: signal.Signals, interrupt: Interrupt) -> None:
    lines = []

    with interrupt.interruptible(60.0):
        signal.raise_signal(asked)
        lines.append("after")

    assert lines == ["after"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # no alarm is left


def test_a_block_whose_patience_ends_is_stopped(asked: signal.Signals, interrupt: Interrupt) -> None:
    def block() -> None:
        signal.raise_signal(asked)
        time.sleep(60)

    with pytest.raises(Interrupted), interrupt.interruptible(0.05):
        block()


def test_patience_counts_from_the_signal_not_from_the_block(
    asked: signal.Signals, interrupt: Interrupt
) -> None:
    signal.raise_signal(asked)
    time.sleep(0.02)

    with pytest.raises(Interrupted), interrupt.interruptible(0.01):
        raise AssertionError("nothing is begun")


def test_whoever_wants_to_know_is_told_of_a_stop_before_or_after(
    asked: signal.Signals, interrupt: Interrupt
) -> None:
    told = []
    interrupt.on_request(lambda: told.append("first"))

    signal.raise_signal(asked)
    interrupt.on_request(lambda: told.append("second"))

    assert told == ["first", "second"]


def test_an_error_in_a_block_comes_through_and_disarms(asked: signal.Signals, interrupt: Interrupt) -> None:
    with pytest.raises(ZeroDivisionError), interrupt.interruptible():
        raise ZeroDivisionError

    signal.raise_signal(asked)  # raises nothing

    assert interrupt.requested


def test_no_except_exception_swallows_a_stop() -> None:
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    code = (
        "import signal, sys; from tlopt.worker.shutdown import Interrupt; i = Interrupt(); i.install();"
        f"signal.raise_signal({number}); print('once', flush=True); signal.raise_signal({number});"
        "print('twice')"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "once\n", "")


# As in `tlopt worker`, with the last second brought forward.
WORKER = """
import sys, time
from tlopt.worker import shutdown
shutdown.EXIT_SECONDS = 0.5
i = shutdown.Interrupt(int(sys.argv[1]))
i.install()
print("ready", flush=True)
"""
# A call into the system that Python's signal handlers cannot interrupt.
HUNG = "import ctypes; libc = ctypes.CDLL(None); [libc.sleep(60) for _ in range(9)]"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_hangs_in_the_system_ends_all_the_same(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER + HUNG, "0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        process.send_signal(number)

        assert process.wait(timeout=30) == 0


def test_a_process_whose_launcher_dies_is_asked_to_stop() -> None:
    stops = "while not i.requested: time.sleep(0.05)\nprint('stops', flush=True)"
    launcher = (
        "import os, subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {WORKER + stops!r}, str(os.getpid())])"
    )

    ended = subprocess.run([sys.executable, "-c", launcher], capture_output=True, text=True, timeout=60)

    assert ended.stdout.split()[-1] == "stops"  # the pipe closes when the orphan has ended


def test_a_worker_whose_launcher_lives_goes_on() -> None:
    assert not Interrupt(os.getppid()).requested


def test_a_worker_whose_launcher_is_gone_is_asked_to_stop() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert Interrupt(gone.pid).requested


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_still_loading_ends_in_order(number: signal.Signals, tmp_path: Path) -> None:
    """A module of its own, which the command line loads last, stands in for those that take their time."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tlopt.cli.main':\n"
        "            print('loading', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    command = [sys.executable, "-m", "tlopt", "worker", "study.toml"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        said = process.stdout.read()

    assert (process.returncode, said) == (0, "0 trials finished here; asked to stop\n")
