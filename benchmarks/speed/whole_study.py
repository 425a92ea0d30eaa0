"""Duration of a whole study without pruning: tlopt beside the plain script on the same points.

    python -m benchmarks.speed.whole_study DATA/flowers5 --trials 51 --epochs 4 --rounds 3 --out /tmp/whole

Each round is a study with its own seed: first tlopt's workers with an empty cache, then the script on
the points they drew. Each has the whole machine. tlopt's time includes imports, decoding, measuring, features
and database; the script's includes imports and loaders. A second start runs the rounds that are missing. Both
are compared with the bound of `benchmarks.speed.compute_bound`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.planted_weights import BUNDLED, plant_weights
from benchmarks.common.processes import module_command, module_environment
from benchmarks.common.study_file import ANY_DEPTH, FASTEST, study_text
from benchmarks.speed.compute_bound import Bound, bound
from tlopt.app.handle import open_session
from tlopt.spec.point import Point
from tlopt.storage.attributes import TrialRecord
from tlopt.system.cpus import n_cores


def whole_study(args: argparse.Namespace, seed: int) -> str:
    """The study file of one round: random points, no pruning."""
    return study_text(
        "whole",
        data={"source": args.data.absolute(), "views": args.views},
        model={"backbone": args.backbone, **FASTEST},
        budget={"trials": args.trials, "epochs": args.epochs},
        search={
            "resolution": args.resolution,
            "transfer_depth": {"uniform": [0.5, 1.0]},
            "freeze_depth": ANY_DEPTH,
            "lr": {"log": [1e-4, 1e-2]},
            "lr_ratio": {"log": [0.03, 1.0]},
        },
        more={"seed": seed, "sampler": {"kind": "random"}, "pruner": {"kind": "none"}},
    )


def processor_seconds() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_tlopt(
    file: Path, folder: Path, n_workers: int, device: str
) -> tuple[float, list[TrialRecord], list[float]]:
    """Seconds that the workers take for the study, its trials, and the seconds after which each ended."""
    environment = module_environment() | {
        "TLOPT_CACHE": str(folder / "cache"),
        "TLOPT_STORAGE": f"sqlite:///{folder}/tlopt.db",
    }
    threads = str(max(1, n_cores() // n_workers))
    command = module_command("tlopt", "worker", file, "--threads", threads, "--device", device)
    start = time.time()
    workers = [subprocess.Popen(command, cwd=folder, env=environment) for _ in range(n_workers)]
    ended = [worker.wait() for worker in workers]
    seconds = time.time() - start
    if any(ended):
        raise SystemExit("a worker failed")
    session = open_session(file, storage_url=f"sqlite:///{folder}/tlopt.db", runs=folder / "runs")
    trials = session.optuna_study().get_trials(deepcopy=False)
    ends = [trial.datetime_complete.timestamp() - start for trial in trials if trial.datetime_complete]
    return seconds, [TrialRecord.from_frozen(trial) for trial in trials], ends


def run_plain(
    data: Path, points: list[Point], folder: Path, device: str
) -> tuple[float, list[dict[str, float]]]:
    """Seconds that the script takes for `points`; end and value of each."""
    given, out = folder / "points.json", folder / "plain.jsonl"
    given.write_text(json.dumps([point.as_dict() for point in points]))
    arguments: list[str | Path] = [data, "--points", given, "--out", out, "--device", device]
    command = module_command("benchmarks.common.plain_script", *arguments)
    start = time.perf_counter()
    subprocess.run(command, check=True, env=module_environment())
    return time.perf_counter() - start, [json.loads(line) for line in out.read_text().splitlines()]


def one_round(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Measure tlopt and the script on one study; returns what the report needs."""
    folder = args.out / f"round{seed}"
    folder.mkdir()
    file, data = folder / "whole.toml", args.data.absolute()
    file.write_text(whole_study(args, seed))
    began = processor_seconds()
    seconds, records, ends = run_tlopt(file, folder, args.workers, args.device)
    ours = processor_seconds() - began
    points = [Point.from_dict(record.point or {}) for record in records]
    plain_seconds, plain = run_plain(data, points, folder, args.device)
    theirs = processor_seconds() - began - ours
    found = bound(file, folder, points, n_workers=args.workers, device=args.device)
    return {
        "tlopt": {
            "seconds": seconds,
            "processor": ours,
            "ends": ends,
            "values": [record.value for record in records],
        },
        "plain": {
            "seconds": plain_seconds,
            "processor": theirs,
            "ends": [row["seconds"] for row in plain],
            "values": [row["value"] for row in plain],
        },
        "bound": found.as_dict(),
    }


def report(rounds: list[dict[str, Any]]) -> None:
    """Print a table with a row per round, and medians."""
    columns = "round | plain, s | tlopt, s | plain / tlopt | bound, s | bound / tlopt | of it training"
    print(f"| {columns} | mean accuracy, %: plain | tlopt | difference | rank correlation |")
    print("| --- |" + " --- |" * 10)
    ratios = []
    for number, row in enumerate(rounds, 1):
        plain, ours = row["plain"], row["tlopt"]
        a, b = np.array(plain["values"], dtype=float), np.array(ours["values"], dtype=float)
        limit = Bound(**row["bound"])
        ratios.append((plain["seconds"] / ours["seconds"], limit.seconds / ours["seconds"]))
        difference = 100 * (b - a)
        print(
            f"| {number} | {plain['seconds']:.0f} | {ours['seconds']:.0f} | {ratios[-1][0]:.2f}"
            f" | {limit.seconds:.0f} | {ratios[-1][1]:.2f} | {limit.training / limit.seconds:.2f}"
            f" | {100 * a.mean():.1f} | {100 * b.mean():.1f}"
            f" | {difference.mean():+.1f} ± {difference.std() / len(a) ** 0.5:.1f}"
            f" | {np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1]:.2f} |"
        )
    gain, share = (statistics.median(column) for column in zip(*ratios, strict=True))
    numerics = rounds[0]["bound"]["numerics"]
    hours = [[row[name]["seconds"] / 3600 for row in rounds] for name in ("plain", "tlopt")]
    a_trial = [statistics.median(row) / len(rounds[0]["plain"]["values"]) for row in hours]
    print(f"\ntrials per hour: {1 / a_trial[0]:.0f} plain, {1 / a_trial[1]:.0f} tlopt")
    print(f"median: {gain:.2f} times the plain script, {share:.0%} of the bound; {numerics}")
    used = [row["plain"]["processor"] / row["tlopt"]["processor"] for row in rounds]
    print(f"in processor time: {', '.join(f'{each:.2f}' for each in used)} times")


def plot(rounds: list[dict[str, Any]], path: Path) -> None:
    """Draw the best accuracy so far against time, a line per round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, colour in (("plain", "#c1272d"), ("tlopt", "#0071bc")):
        for number, row in enumerate(rounds):
            order = np.argsort(row[name]["ends"])
            ends = np.array(row[name]["ends"])[order]
            best = np.maximum.accumulate(np.array(row[name]["values"], dtype=float)[order])
            label = {"plain": "plain script", "tlopt": "tlopt"}[name] if number == 0 else None
            axes.step(ends, 100 * best, where="post", color=colour, alpha=0.8, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("best validation accuracy so far, %")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--planted", action="store_true", help="random weights instead of pretrained ones")
    parser.add_argument("--trials", type=int, default=51)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=n_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder for studies and results")
    parser.add_argument("--plot", type=Path, help="PNG")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.planted:
        plant_weights(args.out.absolute() / "torch", [args.backbone])
    rounds = []
    for seed in range(1, args.rounds + 1):
        done = args.out / f"round{seed}.json"
        if not done.exists():
            done.write_text(json.dumps(one_round(args, seed)))
        rounds.append(json.loads(done.read_text()))
        print(seed, {name: round(rounds[-1][name]["seconds"]) for name in ("tlopt", "plain")}, flush=True)
    report(rounds)
    if args.plot:
        plot(rounds, args.plot)


if __name__ == "__main__":
    main()
