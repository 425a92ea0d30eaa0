r"""Ten minutes of faults: workers killed and stopped, the database restarted, paused and cut off.

    python benchmarks/chaos.py --trials 320 --minutes 10 --workers 4 --seed 2 --out /tmp/chaos

Runs a study of short trials, first with tlopt's workers, then with Optuna alone under the same schedule of
faults, lets each finish undisturbed, and checks by SQL and by replay. Prints a Markdown table. Workers are
started again a second after they end, as a container's restart policy does; half of them live in process
namespaces of their own, where this user may make some. Needs Linux and PostgreSQL's binaries.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from chaos_check import Findings, examine
from chaos_faults import Hands, schedule
from chaos_server import Database, Link
from chaos_workers import Monitor, Slot, can_contain

System = Literal["tlopt", "stock"]
GRACE_SECONDS = 5
EPOCHS = 6
START_SECONDS = 120.0  # until the first trial is under way
STUCK_SECONDS = 120.0  # without a report, after the faults
FINISH_SECONDS = 1500.0  # after the faults, at most
STUDY = """
name = "chaos"
seed = {seed}
objective = "log_loss"
[data]
source = "digits"
images_max = 60
repeats = 1
[model]
backbone = "mobilenet_v3_small"
weights = "none"
[budget]
trials = {trials}
epochs = {epochs}
[search]
resolution = 32
batch_size = 12
lr = {{ log = [1e-3, 1e-1] }}
l2 = {{ log = [1e-4, 1e-1] }}
[pruner]
kind = "median"
min_epochs = 4
[service]
grace_seconds = {grace}
crashes_max = 20
failures_max = 20
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One system's run."""

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
    hung: int  # workers that did not end after the study, or that no report came from
    connections_max: int
    findings: Findings


def run(system: System, options: argparse.Namespace) -> Outcome:
    """Run one study under faults and examine what it has left."""
    folder: Path = options.out / system
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "study.toml"
    file.write_text(
        STUDY.format(seed=options.seed, trials=options.trials, epochs=EPOCHS, grace=GRACE_SECONDS)
    )
    database = Database()
    links: list[Link] = []
    slots: list[Slot] = []
    monitor = Monitor(database, options.trials)
    try:
        database.start()
        database.create()
        links = [Link(database.server.port) for _ in range(options.workers)]
        for link in links:
            link.start()
        slots = _slots(system, folder, file, database, links)
        monitor.start()
        began = time.monotonic()
        _begin(slots, monitor)
        hands = Hands(schedule(options.seed, options.minutes, options.workers), database, links, slots)
        fault_seconds = _disturb(hands, slots, monitor, options.minutes * 60)
        hung = _finish(slots, monitor)
        seconds = time.monotonic() - began
        n_left = sum([slot.end() for slot in slots])
        _say(f"{system}: {seconds:.0f} s, {n_left} processes left, {dict(monitor.states)}; replaying")
        url = database.url(database.server.port, "check")
        findings = examine(
            database.server, database.name, url, file, folder / "runs", tlopt=system == "tlopt"
        )
        exits: dict[str, int] = {}
        for slot in slots:
            for how, n in slot.exits.items():
                exits[how] = exits.get(how, 0) + n
        return Outcome(
            system=system,
            trials=options.trials,
            workers=options.workers,
            seed=options.seed,
            faults=dict(hands.hit),
            missed=hands.missed,
            fault_seconds=fault_seconds,
            seconds=seconds,
            exits=exits,
            stop_seconds=[s for slot in slots for s in slot.stop_seconds],
            hung=hung,
            connections_max=monitor.connections_max,
            findings=findings,
        )
    finally:
        for slot in slots:
            slot.end()
        monitor.close()
        for link in links:
            link.close()
        database.close()


def _slots(system: System, folder: Path, file: Path, database: Database, links: list[Link]) -> list[Slot]:
    runs, checkpoints = folder / "runs", folder / "checkpoints"
    runs.mkdir()
    stock = [sys.executable, str(Path(__file__).with_name("chaos_stock.py")), str(file), "--runs", str(runs)]
    ours = [sys.executable, "-m", "tlopt", "worker", str(file), "--runs", str(runs)]
    ours += ["--checkpoints", str(checkpoints), "--device", "cpu", "--threads", "1"]
    contains = can_contain()

    def environment(slot: int, link: Link, n: int) -> dict[str, str]:
        url = database.url(link.port, f"slot{slot}.{n}")
        return {"TLOPT_STORAGE": url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    return [
        Slot(
            number=i,
            command=ours if system == "tlopt" else stock,
            environment=lambda n, i=i, link=link: environment(i, link, n),  # type: ignore[misc]
            log=folder / f"worker{i}.log",
            contained=contains and i % 2 == 1,
        )
        for i, link in enumerate(links)
    ]


def _begin(slots: list[Slot], monitor: Monitor) -> None:
    """One worker until its first trial is under way, then all."""
    deadline = time.monotonic() + START_SECONDS
    while not (monitor.audited.is_set() and monitor.states):
        if time.monotonic() > deadline:
            raise SystemExit(f"no trial began; see {slots[0].log}")
        slots[0].tick(is_over=False)
        time.sleep(0.1)


def _disturb(hands: Hands, slots: list[Slot], monitor: Monitor, seconds: float) -> float:
    """Faults for so long, or until the study is over; returns for how long."""
    began = said = time.monotonic()
    while (now := time.monotonic()) - began < seconds and not monitor.is_over:
        hands.tick(now - began)
        for slot in slots:
            slot.tick(monitor.is_over)
        if now - said > 30:
            said = now
            _say(f"{now - began:.0f} s: {monitor.states}, {sum(hands.hit.values())} faults")
        time.sleep(0.05)
    hands.heal()
    return time.monotonic() - began


def _finish(slots: list[Slot], monitor: Monitor) -> int:
    """Undisturbed, until all workers have ended or nothing moves; returns how many have not ended."""
    began = said = time.monotonic()
    monitor.moved_at = began
    while not all(slot.over for slot in slots):
        now = time.monotonic()
        if now - monitor.moved_at > STUCK_SECONDS or now - began > FINISH_SECONDS:
            break
        for slot in slots:
            slot.tick(monitor.is_over)
        if now - said > 30:
            said = now
            _say(f"undisturbed, {now - began:.0f} s: {monitor.states}")
        time.sleep(0.05)
    return sum(not slot.over for slot in slots)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
    """The cells of one system, as `ROWS`."""
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
    """Markdown, one column a system."""
    names = {"tlopt": "tlopt worker", "stock": "Optuna alone"}
    lines = ["| | " + " | ".join(names[o.system] for o in outcomes) + " |"]
    lines.append("| --- |" + " --- |" * len(outcomes))
    for name, *cells in zip(ROWS, *(column(o) for o in outcomes), strict=True):
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=320)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder for logs and results")
    parser.add_argument("--tlopt", action="store_true", help="tlopt alone")
    parser.add_argument("--stock", action="store_true", help="Optuna alone")
    options = parser.parse_args()
    options.out = options.out.absolute()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # unwinds, and ends all processes
    both: tuple[System, ...] = ("tlopt", "stock")
    wanted = [s for s in both if getattr(options, s)] or list(both)
    os.environ.setdefault("TLOPT_CACHE", str(options.out / "cache"))
    outcomes = []
    for system in wanted:
        outcome = run(system, options)
        outcomes.append(outcome)
        record: dict[str, Any] = asdict(outcome)
        (options.out / f"{system}.json").write_text(json.dumps(record, indent=1, default=str))
        _say(f"{system}: {outcome.faults}, {outcome.exits}, {outcome.findings.differing[:10]}")
    print(table(outcomes))


if __name__ == "__main__":
    main()
