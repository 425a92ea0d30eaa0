"""Signals are requests: raised only while an epoch is being made, remembered otherwise."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tlopt.search.interrupt import Interrupt, Interrupted


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def asked(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield request.param
    for number, handler in before.items():
        signal.signal(number, handler)


def installed() -> Interrupt:
    interrupt = Interrupt()
    interrupt.install()
    return interrupt


def test_nothing_is_asked_for_at_first() -> None:
    assert not Interrupt().requested


def test_a_signal_between_items_is_remembered_and_stops_before_the_next(asked: signal.Signals) -> None:
    interrupt = installed()
    guarded = interrupt.guard(iter([1, 2]))

    assert next(guarded) == 1
    signal.raise_signal(asked)  # raises nothing
    assert interrupt.requested
    with pytest.raises(Interrupted):
        next(guarded)


def test_a_signal_while_an_item_is_made_stops_at_once(asked: signal.Signals) -> None:
    interrupt = installed()
    lines = []

    def items() -> Iterator[int]:
        lines.append("before")
        signal.raise_signal(asked)
        lines.append("after")
        yield 1

    with pytest.raises(Interrupted):
        next(interrupt.guard(items()))

    assert lines == ["before"]


def test_a_stop_that_was_asked_for_begins_nothing(asked: signal.Signals) -> None:
    interrupt = installed()
    signal.raise_signal(asked)

    with pytest.raises(Interrupted):
        next(interrupt.guard(iter([1])))


def test_undisturbed_items_pass_whole() -> None:
    assert list(Interrupt().guard(iter([1, 2, 3]))) == [1, 2, 3]


def test_an_error_of_the_items_comes_through_and_disarms(asked: signal.Signals) -> None:
    interrupt = installed()
    with pytest.raises(ZeroDivisionError):
        next(interrupt.guard(1 // 0 for _ in range(1)))

    signal.raise_signal(asked)  # raises nothing

    assert interrupt.requested


def test_no_except_exception_swallows_a_stop() -> None:
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    code = (
        "import signal, sys; from tlopt.search.interrupt import Interrupt; i = Interrupt(); i.install();"
        f"signal.raise_signal({number}); print('once', flush=True); signal.raise_signal({number});"
        "print('twice')"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "once\n", "")


def test_a_worker_whose_launcher_lives_goes_on() -> None:
    assert not Interrupt(os.getppid()).requested


def test_a_worker_whose_launcher_is_gone_is_asked_to_stop() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert Interrupt(gone.pid).requested
