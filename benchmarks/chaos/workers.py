"""The workers of the fault run: processes that are restarted when they end."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.monitor import LOOK_SECONDS
from benchmarks.chaos.schedule import KILL_AFTER_SECONDS
from benchmarks.common.postgres import children, die_with_parent
from benchmarks.common.processes import module_environment

RESTART_SECONDS = 1.0  # between the end of a process and the start of the next
_SURE_SECONDS = 3 * LOOK_SECONDS  # until the monitor has seen what a worker has seen


@dataclass
class Slot:
    """One worker of the run: a process that is replaced by another when it ends.

    Attributes:
        command: Command that starts a process.
        environment: Extra environment variables for the n-th process.
        contained: Whether processes run in their own process namespace, as in a container.
        over: Whether the last process ended by itself after the study, so that it is not replaced.
        exits: Number of processes by how they ended.
        stop_seconds: Seconds between SIGTERM and the end of the process.
    """

    number: int
    command: Sequence[str]
    environment: Callable[[int], dict[str, str]]
    log: Path
    contained: bool
    over: bool = False
    n_started: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    stop_seconds: list[float] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _told: int = 0  # signal sent to end this process, 0 for none
    _told_at: float = 0.0
    _ended_at: float = 0.0  # 0: not yet

    @property
    def alive(self) -> bool:
        """Whether a process is running that can be signalled."""
        return self._pid() is not None

    def _pid(self) -> int | None:
        if self._process is None or self._process.poll() is not None:
            return None
        if not self.contained:
            return self._process.pid
        return next(iter(children(self._process.pid)), None)

    def signal(self, number: int) -> None:
        """Send a signal to the worker."""
        pid = self._pid()
        if pid is None:
            return
        if number in (signal.SIGTERM, signal.SIGKILL) and not self._told:
            self._told, self._told_at = number, time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def tick(self, is_over: bool) -> None:
        """Record how the last process ended, and start the next one when it is due."""
        now = time.monotonic()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if self._told == signal.SIGTERM and now - self._told_at > KILL_AFTER_SECONDS:
                    self.exits["did not end within 10 s of SIGTERM"] += 1
                    self._told = signal.SIGKILL
                    self.signal(signal.SIGKILL)
                return
            self._ended_at = self._ended_at or now
            if code == 0 and not self._told and not is_over and now - self._ended_at < _SURE_SECONDS:
                return
            self._note(code, self._ended_at, is_over)
            self._process = None
        if self._process is None and not self.over and now - self._ended_at > RESTART_SECONDS:
            self._start()

    def _note(self, code: int, now: float, is_over: bool) -> None:
        if self._told == signal.SIGKILL:
            self.exits["killed"] += 1
        elif self._told == signal.SIGTERM:
            self.stop_seconds.append(now - self._told_at)
            self.exits["SIGTERM, exit 0" if code == 0 else f"SIGTERM, exit {code}"] += 1
        elif code == 0:
            self.exits["ended" if is_over else "ended too early"] += 1
            self.over = is_over
        else:
            self.exits["error of its own"] += 1

    def _start(self) -> None:
        unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if self.contained else []
        self._told, self._ended_at = 0, 0.0
        with self.log.open("ab") as log:
            log.write(f"--- {self.number}.{self.n_started}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [*unshare, *self.command],
                env=module_environment() | self.environment(self.n_started),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self.n_started += 1

    def end(self) -> bool:
        """Kill the process if it is still running; return whether it was."""
        if self._process is None or self._process.poll() is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return True


def can_contain() -> bool:
    """Whether this user may create process namespaces."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "true"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0
