"""Graceful shutdown on SIGTERM and SIGINT: finish the current step, then save and requeue the trial.

Time since the signal:

0 s     no new trial is started
1.5 s   a step that has not finished is abandoned; the last checkpoint remains valid
8 s     a checkpoint that has not been written is abandoned
9.5 s   the process exits, even from within a system call
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STEP_SECONDS = 1.5
SAVE_SECONDS = 8.0
EXIT_SECONDS = 9.5
_POLL_SECONDS = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """Raised after a stop request; a BaseException, so that `except Exception` does not catch it."""


class Interrupt:
    """A stop request, which raises `Interrupted` only where that is safe.

    A second signal exits at once, with the status that shells report for it. The death of the launching
    process counts as SIGTERM.

    Args:
        parent_pid: process id of the launcher; 0: none.
    """

    def __init__(self, parent_pid: int = 0) -> None:
        self._parent_pid = parent_pid
        self._asked_at: float | None = None
        self._interruptible = False
        self._until_seconds = 0.0
        self._on_request: Callable[[], None] | None = None
        self._released = threading.Event()

    @property
    def requested(self) -> bool:
        """True if a stop has been requested."""
        return self._asked_at is not None or self._orphaned()

    def install(self) -> None:
        """Install handlers for SIGTERM and SIGINT; call this from the main thread."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        # Written by the C-level handler, even while Python's handler waits for the main thread.
        self._fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(
            target=self._enforce_deadline, args=(reader,), name="tlopt-stop", daemon=True
        ).start()

    def release(self) -> None:
        """Restore the previous handlers."""
        self._released.set()
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the main thread when a stop is requested, or now if it has been."""
        self._on_request = callback
        if self._asked_at is not None:
            callback()

    @contextmanager
    def interruptible(self, until_seconds: float = 0.0) -> Iterator[None]:
        """Within the block, raise `Interrupted` `until_seconds` after a stop request."""
        if self.requested and self._left(until_seconds) <= 0:
            raise Interrupted
        self._interruptible, self._until_seconds = True, until_seconds
        try:
            if self.requested:
                self._set_alarm()
            yield
        finally:
            self._interruptible = False
            if until_seconds > 0:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _left(self, until_seconds: float) -> float:
        asked_at = time.monotonic() if self._asked_at is None else self._asked_at
        return asked_at + until_seconds - time.monotonic()

    def _set_alarm(self) -> None:
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._left(self._until_seconds)))

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if self._interruptible:
            self._interruptible = False
            raise Interrupted

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._asked_at is not None:
            os._exit(128 + number)
        self._asked_at = time.monotonic()
        if self._on_request is not None:
            self._on_request()
        if self._interruptible and self._until_seconds > 0:
            self._set_alarm()
        elif self._interruptible:
            self._interruptible = False
            raise Interrupted

    def _orphaned(self) -> bool:
        return self._parent_pid > 0 and os.getppid() != self._parent_pid

    def _enforce_deadline(self, reader: int) -> None:
        """Thread that exits the process at the deadline, whatever the main thread does."""
        first: float | None = None
        orphaned = False
        while first is None or time.monotonic() < first + EXIT_SECONDS:
            if self._released.is_set():
                return
            if not orphaned and self._orphaned():
                orphaned = True
                os.kill(os.getpid(), signal.SIGTERM)
            for number in self._signals(reader):
                if first is not None:
                    os._exit(128 + number)
                first = time.monotonic()
        os._exit(0)

    @staticmethod
    def _signals(reader: int) -> list[int]:
        ready, _, _ = select.select([reader], [], [], _POLL_SECONDS)
        with suppress(OSError):
            return [n for n in os.read(reader, 64) if n in _SIGNALS] if ready else []
        return []
