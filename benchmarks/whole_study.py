"""A whole study, the same points for the same epochs without pruning: the plain script against tlopt.

    python benchmarks/whole_study.py path/to/flowers5 --trials 51 --epochs 4 --out /tmp/whole

tlopt's workers begin with an empty cache: imports, decoding, measuring and database are in their time, as
imports and loaders are in the script's. Both have the whole machine, and take turns by thirds of the trials.
The bound is what the operations of what is trained would take, see epochs.py.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from epochs import limit, open_case

from tlopt.cores import n_cores
from tlopt.point import Point
from tlopt.search.records import TrialRecord
from tlopt.session import open_session

THIRDS = 3
STUDY = """
name = "whole"
seed = 3
[data]
source = "{source}"
views = {views}
[model]
backbone = "efficientnet_lite0"
precision = "auto"
layout = "auto"
[budget]
trials = {trials}
epochs = {epochs}
[search]
resolution = {resolution}
transfer_depth = {{ int = [8, 17] }}
freeze_depth = {{ int = [0, 17] }}
lr = {{ log = [1e-4, 1e-2] }}
lr_ratio = {{ log = [0.03, 1.0] }}
[sampler]
kind = "random"
[pruner]
kind = "none"
"""


def run_tlopt(file: Path, folder: Path, n_workers: int) -> float:
    """Seconds that workers take for the study file's budget."""
    environment = os.environ | {
        "TLOPT_CACHE": str(folder / "cache"),
        "TLOPT_STORAGE": f"sqlite:///{folder}/tlopt.db",
    }
    threads = str(max(1, n_cores() // n_workers))
    command = [sys.executable, "-m", "tlopt", "worker", str(file), "--threads", threads]
    start = time.perf_counter()
    workers = [subprocess.Popen(command, cwd=folder, env=environment) for _ in range(n_workers)]
    ended = [worker.wait() for worker in workers]
    if any(ended):
        raise SystemExit("a worker failed")
    return time.perf_counter() - start


def run_plain(data: Path, points: list[Point], folder: Path) -> tuple[float, list[float]]:
    """Seconds that the script takes for `points`, and their values."""
    given, out = folder / "points.json", folder / "plain.jsonl"
    given.write_text(json.dumps([point.as_dict() for point in points]))
    script = Path(__file__).with_name("plain.py")
    command = [sys.executable, script, data, "--points", given, "--out", out]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    return seconds, [json.loads(line)["value"] for line in out.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--trials", type=int, default=51)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--workers", type=int, default=n_cores())
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    file, data = args.out / "whole.toml", args.data.absolute()
    seconds = {"tlopt": 0.0, "plain": 0.0}
    values: list[float] = []
    records: list[TrialRecord] = []
    for third in range(1, THIRDS + 1):
        keys = {"views": args.views, "epochs": args.epochs, "resolution": args.resolution}
        file.write_text(STUDY.format(source=data, trials=third * args.trials // THIRDS, **keys))
        seconds["tlopt"] += run_tlopt(file, args.out, args.workers)
        session = open_session(file, storage_url=f"sqlite:///{args.out}/tlopt.db", runs=args.out / "runs")
        trials = session.optuna_study().get_trials(deepcopy=False)
        new = [TrialRecord.from_frozen(trial) for trial in trials[len(records) :]]
        records += new
        spent, found = run_plain(data, [Point.from_dict(record.point or {}) for record in new], args.out)
        seconds["plain"] += spent
        values += found
        print(third, {name: round(value) for name, value in seconds.items()}, flush=True)
    report(args.out, data, args.resolution, seconds, values, records)


def report(
    folder: Path,
    data: Path,
    resolution: int,
    seconds: dict[str, float],
    values: list[float],
    records: list[TrialRecord],
) -> None:
    """Print the comparison as a table."""
    os.environ["TLOPT_CACHE"] = str(folder / "cache")
    case = open_case(data, "efficientnet_lite0", resolution)
    points = [Point.from_dict(record.point or {}) for record in records]
    depths = sorted({point.freeze_depth for point in points})
    by_depth = {depth: limit(case, depth / 17, 3) for depth in depths}
    bound = sum(point.epochs * by_depth[point.freeze_depth] for point in points)
    ours = np.array([record.value for record in records], dtype=float)
    theirs = np.array(values)
    print("| | plain script | tlopt | bound |\n| --- | --- | --- | --- |")
    print(f"| seconds | {seconds['plain']:.0f} | {seconds['tlopt']:.0f} | {bound:.0f} |")
    print(f"| times the plain script | 1 | {seconds['plain'] / seconds['tlopt']:.2f} |"
          f" {seconds['plain'] / bound:.2f} |")  # fmt: skip
    print(f"| mean validation accuracy, % | {100 * theirs.mean():.1f} | {100 * ours.mean():.1f} | |")
    print(f"| best, % | {100 * theirs.max():.1f} | {100 * ours.max():.1f} | |")
    difference = 100 * (ours - theirs)
    print(f"tlopt minus plain, points: {difference.mean():.1f} ± {difference.std() / len(ours) ** 0.5:.1f};"
          f" rank correlation {np.corrcoef(ours.argsort().argsort(), theirs.argsort().argsort())[0, 1]:.2f};"
          f" {case.chosen}")  # fmt: skip
    rows = [replace(record, started=None, finished=None) for record in records]
    (folder / "whole.json").write_text(
        json.dumps({"seconds": seconds, "bound": bound, "plain": values, "tlopt": [r.value for r in rows]})
    )


if __name__ == "__main__":
    main()
