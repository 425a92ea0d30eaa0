r"""Ten minutes of faults: workers killed and stopped, the database restarted, paused and cut off.

    python -m benchmarks.chaos.run --trials 220 --minutes 10 --workers 4 --seed 2 --out /tmp/chaos

Runs a study of short trials with tlopt's workers, then with Optuna alone under the same schedule of faults,
lets each finish undisturbed, and checks the database by SQL and by replaying every trial. Prints a Markdown
table. Workers are restarted a second after they end, as by a container's restart policy; every other one
runs in its own process namespace if this user may create them. Needs Linux and PostgreSQL's binaries.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos.check import examine
from benchmarks.chaos.injector import FaultInjector
from benchmarks.chaos.monitor import Monitor
from benchmarks.chaos.report import Outcome, System, table
from benchmarks.chaos.schedule import schedule
from benchmarks.chaos.server import Database, Link
from benchmarks.chaos.workers import Slot, can_contain
from benchmarks.common import postgres
from benchmarks.common.processes import module_command
from benchmarks.common.study_file import study_text

GRACE_SECONDS = 5
EPOCHS = 6
START_SECONDS = 120.0  # until the first trial is under way
STUCK_SECONDS = 120.0  # without a report after the faults
FINISH_SECONDS = 1500.0  # after the faults, at most


def chaos_study(seed: int, trials: int) -> str:
    """The study file: short trials from scratch on handwritten digits."""
    return study_text(
        "chaos",
        data={"source": "digits", "images_max": 60, "repeats": 1},
        model={"backbone": "mobilenet_v3_small", "weights": "none"},
        budget={"trials": trials, "epochs": EPOCHS},
        search={
            "resolution": 32,
            "batch_size": 12,
            "lr": {"log": [1e-3, 1e-1]},
            "l2": {"log": [1e-4, 1e-1]},
        },
        more={
            "seed": seed,
            "objective": "log_loss",
            "pruner": {"kind": "median", "min_epochs": 4},
            "service": {"grace_seconds": GRACE_SECONDS, "crashes_max": 20, "failures_max": 20},
        },
    )


def run(system: System, options: argparse.Namespace) -> Outcome:
    """Run one study under faults and examine its database afterwards."""
    folder: Path = options.out / system
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "study.toml"
    file.write_text(chaos_study(options.seed, options.trials))
    with ExitStack() as stack:
        database = Database(stack.enter_context(postgres.server()))
        links = [Link(database.server.port) for _ in range(options.workers)]
        for link in links:
            stack.callback(link.close)
            link.start()
        monitor = Monitor(database, options.trials)
        stack.callback(monitor.close)
        slots = _slots(system, folder, file, database, links)
        for slot in slots:
            stack.callback(slot.end)
        monitor.start()
        began = time.monotonic()
        _begin(slots, monitor)
        faults = schedule(options.seed, options.minutes, options.workers)
        injector = FaultInjector(faults, database, links, slots)
        fault_seconds = _disturb(injector, slots, monitor, options.minutes * 60)
        hung = _finish(slots, monitor)
        seconds = time.monotonic() - began
        n_left = sum([slot.end() for slot in slots])
        _say(f"{system}: {seconds:.0f} s, {n_left} processes left, {dict(monitor.states)}; replaying")
        url = database.url(database.server.port, "check")
        findings = examine(
            database.server, database.name, url, file, folder / "runs", tlopt=system == "tlopt"
        )
    return Outcome(
        system=system,
        trials=options.trials,
        workers=options.workers,
        seed=options.seed,
        faults=dict(injector.hit),
        missed=injector.missed,
        fault_seconds=fault_seconds,
        seconds=seconds,
        exits=dict(sum((slot.exits for slot in slots), Counter[str]())),
        stop_seconds=[s for slot in slots for s in slot.stop_seconds],
        hung=hung,
        connections_max=monitor.connections_max,
        findings=findings,
    )


def _slots(system: System, folder: Path, file: Path, database: Database, links: list[Link]) -> list[Slot]:
    runs, checkpoints = folder / "runs", folder / "checkpoints"
    runs.mkdir()
    stock = module_command("benchmarks.chaos.stock", file, "--runs", runs)
    ours = module_command("tlopt", "worker", file, "--runs", runs, "--checkpoints", checkpoints)
    ours += ["--device", "cpu", "--threads", "1"]
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
    """Run one worker until the first trial is running.

    Raises:
        SystemExit: No trial started in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not (monitor.audited.is_set() and monitor.states):
        if time.monotonic() > deadline:
            raise SystemExit(f"no trial began; see {slots[0].log}")
        slots[0].tick(is_over=False)
        time.sleep(0.1)


def _disturb(injector: FaultInjector, slots: list[Slot], monitor: Monitor, seconds: float) -> float:
    """Inject faults for `seconds` or until the study is over; return the number of seconds."""
    began = said = time.monotonic()
    while (now := time.monotonic()) - began < seconds and not monitor.is_over:
        injector.tick(now - began)
        for slot in slots:
            slot.tick(monitor.is_over)
        if now - said > 30:
            said = now
            _say(f"{now - began:.0f} s: {monitor.states}, {sum(injector.hit.values())} faults")
        time.sleep(0.05)
    injector.end_all()
    return time.monotonic() - began


def _finish(slots: list[Slot], monitor: Monitor) -> int:
    """Wait without faults until all workers have ended or nothing changes; return how many are left."""
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=220)
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
        (options.out / f"{system}.json").write_text(json.dumps(asdict(outcome), indent=1, default=str))
        _say(f"{system}: {outcome.faults}, {outcome.exits}, {outcome.findings.differing[:10]}")
    print(table(outcomes))


if __name__ == "__main__":
    main()
