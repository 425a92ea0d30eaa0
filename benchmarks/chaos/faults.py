"""What goes wrong in `chaos.py`, and when: a seeded schedule, and the hands that carry it out."""

import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos_server import Database, Link
    from chaos_workers import Slot

SERVER = -1  # in the place of a worker's number
GAP_SECONDS = 4.5  # between two faults, in the mean
FIRST_SECONDS = 3.0
KILL_AFTER_SECONDS = 10.0  # that a container has after SIGTERM

# kind: share in percent, whether it hits the server, seconds
KINDS: dict[str, tuple[int, bool, tuple[float, float]]] = {
    "SIGKILL": (27, False, (0, 0)),
    "SIGTERM": (14, False, (0, 0)),
    "SIGSTOP, short": (9, False, (0.5, 3)),
    "SIGSTOP, beyond the grace": (14, False, (8, 16)),
    "connections killed": (10, False, (0, 0)),
    "connections reset": (5, False, (0, 0)),
    "black hole": (5, False, (3, 14)),
    "black hole, then forgotten": (4, False, (3, 8)),
    "black hole for all": (2, True, (3, 9)),
    "server restarted, fast": (3, True, (0, 4)),
    "server restarted, immediate": (4, True, (0, 4)),
    "server paused": (3, True, (3, 10)),
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at: float  # seconds after the beginning
    kind: str
    slot: int  # worker, or SERVER
    seconds: float  # how long it lasts

    @property
    def until(self) -> float:
        return self.at + self.seconds


def schedule(seed: int, minutes: float, n_workers: int) -> list[Fault]:
    """Faults for so many minutes; none hits what another still holds, and a worker has time to come back."""
    draw = random.Random(seed)
    free = dict.fromkeys([SERVER, *range(n_workers)], 0.0)
    faults: list[Fault] = []
    at = FIRST_SECONDS
    while at < minutes * 60:
        kind = draw.choices(list(KINDS), [share for share, *_ in KINDS.values()])[0]
        _, hits_server, (least, most) = KINDS[kind]
        slot = SERVER if hits_server else draw.randrange(n_workers)
        fault = Fault(at, kind, slot, draw.uniform(least, most))
        if free[slot] <= at and fault.until < minutes * 60:
            free[slot] = fault.until + (KILL_AFTER_SECONDS + 2.0 if kind == "SIGTERM" else 3.0)
            faults.append(fault)
        at += draw.expovariate(1 / GAP_SECONDS)
    return faults


@dataclass
class Hands:
    """Carries out what is due; `hit` counts what met something alive, by kind."""

    faults: Sequence[Fault]
    database: "Database"
    links: Sequence["Link"]
    slots: Sequence["Slot"]
    hit: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    _next: int = 0
    _going: list[Fault] = field(default_factory=list)

    def tick(self, now: float) -> None:
        """Begin and end faults, `now` seconds after the beginning."""
        for fault in [f for f in self._going if f.until <= now]:
            self._going.remove(fault)
            self._end(fault)
        while self._next < len(self.faults) and self.faults[self._next].at <= now:
            fault = self.faults[self._next]
            self._next += 1
            if fault.slot != SERVER and not self.slots[fault.slot].alive:
                self.missed += 1
                continue
            self.hit[fault.kind] += 1
            self._begin(fault)
            self._going.append(fault)

    def heal(self) -> None:
        """End all that is going on."""
        for fault in self._going:
            self._end(fault)
        self._going.clear()

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
