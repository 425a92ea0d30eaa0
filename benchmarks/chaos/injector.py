"""Execution of a schedule of faults: signals, broken connections, server stops."""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.schedule import SERVER, Fault
from benchmarks.chaos.server import Database, Link
from benchmarks.chaos.workers import Slot


@dataclass
class FaultInjector:
    """Start and end the faults of a schedule.

    Attributes:
        hit: Faults that met a running process, by kind.
        missed: Faults whose worker was not running.
    """

    faults: Sequence[Fault]
    database: Database
    links: Sequence[Link]
    slots: Sequence[Slot]
    hit: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    _next: int = 0
    _active: list[Fault] = field(default_factory=list)

    def tick(self, now: float) -> None:
        """Start and end the faults that are due `now` seconds after the start."""
        for fault in [f for f in self._active if f.until <= now]:
            self._active.remove(fault)
            self._end(fault)
        while self._next < len(self.faults) and self.faults[self._next].at <= now:
            fault = self.faults[self._next]
            self._next += 1
            if fault.slot != SERVER and not self.slots[fault.slot].alive:
                self.missed += 1
                continue
            self.hit[fault.kind] += 1
            self._begin(fault)
            self._active.append(fault)

    def end_all(self) -> None:
        """End every active fault."""
        for fault in self._active:
            self._end(fault)
        self._active.clear()

    def _begin(self, fault: Fault) -> None:
        match fault.kind:
            case "SIGKILL":
                self.slots[fault.slot].signal(signal.SIGKILL)
            case "SIGTERM":
                self.slots[fault.slot].signal(signal.SIGTERM)
            case "SIGSTOP, short" | "SIGSTOP, beyond the grace":
                self.slots[fault.slot].signal(signal.SIGSTOP)
            case "connections killed":
                self.database.terminate(f"slot{fault.slot}.")
            case "connections reset":
                self.links[fault.slot].reset()
            case "black hole" | "black hole, then forgotten":
                self.links[fault.slot].cut()
            case "black hole for all":
                for link in self.links:
                    link.cut()
            case "server restarted, fast" | "server restarted, immediate":
                self.database.stop(fault.kind.rpartition(" ")[2])
            case "server paused":
                self.database.pause()

    def _end(self, fault: Fault) -> None:
        match fault.kind:
            case "SIGSTOP, short" | "SIGSTOP, beyond the grace":
                self.slots[fault.slot].signal(signal.SIGCONT)
            case "black hole":
                self.links[fault.slot].heal()
            case "black hole, then forgotten":
                self.links[fault.slot].forget()
            case "black hole for all":
                for link in self.links:
                    link.heal()
            case "server restarted, fast" | "server restarted, immediate":
                self.database.start()
            case "server paused":
                self.database.resume()
