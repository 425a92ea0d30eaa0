"""The result of a fault run as a Markdown table."""

import statistics
from dataclasses import dataclass
from typing import Literal

from benchmarks.chaos.check import Findings

System = Literal["tlopt", "stock"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Measurements of one system's run.

    Attributes:
        faults: Faults that met a running process, by kind.
        missed: Faults whose worker was not running.
        fault_seconds: Duration of the faults.
        seconds: Duration of the whole study.
        exits: Number of worker processes by how they ended.
        stop_seconds: Seconds between SIGTERM and the end, per process.
        hung: Workers that had to be killed in the end.
        connections_max: Largest number of simultaneous connections of workers seen.
    """

    system: System
    trials: int
    workers: int
    seed: int
    faults: dict[str, int]
    missed: int
    fault_seconds: float
    seconds: float
    exits: dict[str, int]
    stop_seconds: list[float]
    hung: int
    connections_max: int
    findings: Findings


ROWS = (
    "faults that hit, in how many minutes",
    "complete + pruned, of",
    "failed and tried again, as other trials",
    "lost: failed for good, or waiting",
    "left RUNNING",
    "numbers missing, doubled",
    "ends written twice, changed or deleted",
    "reports by a late worker",
    "reports changed afterwards",
    "values and reports that differ from the undisturbed replay, of",
    "epochs trained, of them again",
    "most epochs repeated after one start",
    "processes: killed; SIGTERM and exit 0; own errors",
    "SIGTERM: seconds to the end, median (most); killed after 10 s",
    "workers that needed a person: hung, ended too early",
    "connections of the workers, at most",
)


def column(o: Outcome) -> list[str]:
    """The cells of one system, in the order of `ROWS`."""
    f, state = o.findings, o.findings.states
    stops = o.stop_seconds
    late = o.exits.get("did not end within 10 s of SIGTERM", 0)
    stop = f"{statistics.median(stops):.1f} ({max(stops):.1f})" if stops else "-"
    other = sum(n for how, n in o.exits.items() if how.startswith("SIGTERM, exit") and how[-2:] != " 0")
    return [
        f"{sum(o.faults.values())}, {o.fault_seconds / 60:.1f}",
        f"{state.get('COMPLETE', 0)} + {state.get('PRUNED', 0)}, {o.trials}",
        str(f.retries),
        str(f.lost),
        str(state.get("RUNNING", 0)),
        f"{f.numbers_lost}, {f.numbers_doubled}",
        str(f.ended_twice),
        str(f.late_reports),
        str(f.changed_reports),
        f"{len(f.differing)}, {f.reports_replayed}",
        f"{f.epochs}, {f.epochs_repeated}",
        str(f.repeated_max) if f.repeated_max >= 0 else "all of them",
        f"{o.exits.get('killed', 0)}; {o.exits.get('SIGTERM, exit 0', 0)}"
        + (f" ({other} with another status)" if other else "")
        + f"; {o.exits.get('error of its own', 0)}",
        f"{stop}; {late}",
        f"{o.hung}, {o.exits.get('ended too early', 0)}",
        str(o.connections_max),
    ]


def table(outcomes: list[Outcome]) -> str:
    """A Markdown table, one column per system."""
    names = {"tlopt": "tlopt worker", "stock": "Optuna alone"}
    lines = ["| | " + " | ".join(names[o.system] for o in outcomes) + " |"]
    lines.append("| --- |" + " --- |" * len(outcomes))
    for name, *cells in zip(ROWS, *(column(o) for o in outcomes), strict=True):
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
