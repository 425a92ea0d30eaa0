"""SIGTERM and SIGINT as a request: the step under way may end, then the trial is saved and requeued.

After the signal:

0 s     no further trial is begun
1.5 s   a step that has not ended is abandoned: the last checkpoint stands
8 s     a checkpoint that is not written yet is abandoned
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
    """Raised when the worker was asked to stop; no error, and no `except Exception` may swallow it."""


class Interrupt:
    """A requested stop, which raises `Interrupted` only where that is safe.

    A second signal ends the process at once, with the exit status a shell shows for that signal. The death of
    the launcher counts as SIGTERM.

    Args:
        parent_pid: the launcher's process; 0: none.
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
        """Whether a stop was requested."""
        return self._asked_at is not None or self._orphaned()

    def install(self) -> None:
        """Handle SIGTERM and SIGINT in this process; call it from the main thread."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        # Written to by the system's own handler, also while Python's waits for the main thread to come back.
        self._fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(
            target=self._enforce_deadline, args=(reader,), name="tlopt-stop", daemon=True
        ).start()

    def release(self) -> None:
        """Restore the handlers from before."""
        self._released.set()
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the main thread once a stop is requested, or now if it was."""
        self._on_request = callback
        if self._asked_at is not None:
            callback()

    @contextmanager
    def interruptible(self, until_seconds: float = 0.0) -> Iterator[None]:
        """A block in which `Interrupted` is raised `until_seconds` after a stop was requested."""
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
        """The body of a thread: exit at the deadline, whatever the main thread does."""
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
