"""A seeded schedule of faults: their kinds, frequencies, targets and durations."""

import random
from dataclasses import dataclass

SERVER = -1  # in place of a worker's number: the fault hits the server
GAP_SECONDS = 4.5  # mean time between two faults
FIRST_SECONDS = 3.0
KILL_AFTER_SECONDS = 10.0  # from SIGTERM to SIGKILL, as container runtimes do by default

# kind: share in percent, whether it hits the server, shortest and longest duration in seconds
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
    """One fault."""

    at: float  # seconds after the start
    kind: str
    slot: int  # number of the worker, or SERVER
    seconds: float  # duration

    @property
    def until(self) -> float:
        return self.at + self.seconds


def schedule(seed: int, minutes: float, n_workers: int) -> list[Fault]:
    """The faults of `minutes` minutes; none hits a target that is still down or has just recovered."""
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
