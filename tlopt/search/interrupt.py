"""SIGTERM and SIGINT as a request: the epoch under way ends at once, everything else is let finish."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Interrupted(BaseException):
    """The worker was asked to stop; not an error, and no `except Exception` may swallow it."""


class Interrupt:
    """Remembers that a stop was asked for, and raises `Interrupted` only where that is safe.

    A second signal ends the process at once, with the exit status a shell shows for that signal. A worker
    whose launcher is gone is asked to stop, too.

    Args:
        parent_pid: the launcher's process; 0 where there is none to outlive.
    """

    def __init__(self, parent_pid: int = 0) -> None:
        self._parent_pid = parent_pid
        self._signalled = False
        self._armed = False

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self._signalled or (self._parent_pid > 0 and os.getppid() != self._parent_pid)

    def install(self) -> None:
        """Take over SIGTERM and SIGINT of this process; from its main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """A block in which a signal raises `Interrupted` at once; so does one that came before."""
        if self.requested:
            raise Interrupted
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def guard(self, items: Iterator[T]) -> Iterator[T]:
        """`items`; while the next one is being made, and only then, a signal raises `Interrupted`."""
        while True:
            try:
                with self.armed():
                    item = next(items)
            except StopIteration:
                return
            yield item

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            os._exit(128 + number)
        self._signalled = True
        if self._armed:
            self._armed = False
            raise Interrupted
