"""Memory and disk of the caches, how both grow, and how they compare with their bounds.

    python -m benchmarks.speed.caches DATA/flowers5 --out /tmp/caches

Prints Markdown tables. Weights are random, so none are downloaded. Memory is read from /proc/PID/smaps_rollup
(Linux); disk is counted in blocks, as by du.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.planted_weights import plant_weights
from benchmarks.common.processes import module_command, module_environment
from benchmarks.common.study_file import ANY_DEPTH, study_text
from benchmarks.speed.caches_inside import memory_mb

_LOOK_SECONDS = 20.0
BACKBONES = ("mobilenet_v3_small", "resnet18")
PARTS = ["growth", "bound", "workers", "flat", "start"]
GROWTH = ("changed", "images", "blocks kept", "pixels, MB", "features, MB", "planned, MB", "memory more, MB",
          "s to fill", "s to read")  # fmt: skip
BOUND = ("bound, MB", "blocks kept", "planned, MB", "features, MB")
WORKERS = ("workers", "features, MB", "pixels, MB", "RSS of one", "PSS of one", "its own", "PSS of all")
FLAT = ("trials", "RSS, MB", "after malloc_trim", "tensors", "their MB", "objects", "open files", "threads")
START = ("start", "files", "to know them, s of processor", "to have them decoded")
CHOSEN_DEPTHS = ({"choice": [7, 8]}, {"choice": [5, 6, 7, 8]}, ANY_DEPTH)
USUAL: dict[str, Any] = {
    "name": "caches",
    "backbone": BACKBONES[1],
    "views": 2,
    "images": 400,
    "depths": ANY_DEPTH,
    "trials": 1,
    "epochs": 1,
}


def caches_study(source: Path, keys: Mapping[str, Any]) -> str:
    """The study file for `keys`, which replace those of `USUAL`."""
    given = USUAL | dict(keys)
    return study_text(
        given["name"],
        data={"source": source, "views": given["views"], "images_max": given["images"]},
        model={"backbone": given["backbone"]},
        budget={"trials": given["trials"], "epochs": given["epochs"]},
        search={
            "resolution": 48,
            "batch_size": 16,
            "lr": {"log": [1e-4, 1e-2]},
            "freeze_depth": given["depths"],
        },
        more={
            "seed": 5,
            "objective": "log_loss",
            "sampler": {"kind": "random"},
            "pruner": {"kind": "none"},
        },
    )


class Place:
    """A folder with its own study, database and cache; `keys` replace those of `USUAL`."""

    def __init__(self, folder: Path, data: Path, keys: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.cache = folder / "caches.toml", folder / "cache"
        self.name = (USUAL | dict(keys))["name"]
        self.file.write_text(caches_study(data, keys))
        self.environment = module_environment() | {
            "TLOPT_CACHE": str(self.cache),
            "TLOPT_STORAGE": f"sqlite:///{folder}/tlopt.db",
            "OMP_NUM_THREADS": "1",
        }

    def inside(
        self, what: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows that `caches_inside` prints, run on this study."""
        said = subprocess.run(
            module_command("benchmarks.speed.caches_inside", what, self.file, *arguments),
            env=self.environment | dict(environment or {}),
            cwd=self.file.parent,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        return [json.loads(line) for line in said.splitlines()]

    def worker(self) -> "subprocess.Popen[bytes]":
        """Start `tlopt worker` on one thread."""
        command = module_command("tlopt", "worker", self.file, "--device", "cpu", "--threads", "1")
        return subprocess.Popen(
            command, env=self.environment, cwd=self.file.parent, stdout=subprocess.DEVNULL
        )

    def n_seasoned(self) -> int:
        """Number of workers that have finished two trials of the study."""
        logs = (self.file.parent / "runs" / self.name / "trials").glob("*.jsonl")
        events = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
        done = Counter(rows[0]["worker"] for rows in events if rows and rows[-1]["event"] == "end")
        return sum(n >= 2 for n in done.values())

    def disk_mb(self, kind: str) -> float:
        """MB on disk of the cache's subfolder `kind`."""
        paths = [path for path in (self.cache / kind).rglob("*") if path.is_file()]
        return sum(path.stat().st_blocks * 512 for path in paths) / 1e6


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table."""
    names = list(head)
    print("\n| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for row in rows:
        print("| " + " | ".join(map(_cell, row)) + " |", flush=True)


def _cell(value: object) -> str:
    return f"{value:.{1 if value >= 10 else 2}f}" if isinstance(value, float) else str(value)


def growth(data: Path, folder: Path) -> Iterator[tuple[object, ...]]:
    """Rows: disk and memory with everything filled, by images, blocks and views."""
    changes: list[dict[str, Any]] = [
        *({"images": n} for n in (100, 200, 400, 800)),
        {"depths": 8},
        *({"depths": depths} for depths in CHOSEN_DEPTHS),
        *({"views": n} for n in (1, 2, 4, 8)),
    ]
    for index, change in enumerate(changes):
        place = Place(folder / f"growth{index}", data, change)
        (found,) = place.inside("fill")
        ((what, much),) = change.items()
        more = found["after"]["rss"] - found["before"]["rss"]
        yield (
            f"{what} {much}".replace("depths", "freeze_depth"),
            *(found["images"], len(found["kept"]), place.disk_mb("pixels"), place.disk_mb("features")),
            *(found["planned_mb"], more, *found["seconds"]),
        )


def bound(data: Path, folder: Path) -> Iterator[tuple[object, ...]]:
    """Rows: what is cached under each bound."""
    for gb in ("0", "0.005", "0.02", "0.08", "20"):
        place = Place(folder / f"bound{gb}", data, {})
        (found,) = place.inside("fill", environment={"TLOPT_CACHE_GB_MAX": gb})
        kept = ", ".join(map(str, found["kept"])) or "none"
        yield f"{float(gb) * 1e3:g}", kept, found["planned_mb"], place.disk_mb("features")


def workers(data: Path, folder: Path) -> Iterator[tuple[object, ...]]:
    """Rows: memory of 1, 2 and 4 workers on a filled cache."""
    place = Place(folder / "workers", data, {})
    place.inside("fill")
    for n in (1, 2, 4):
        place = Place(folder / "workers", data, {"name": f"caches{n}", "trials": 1000, "epochs": 2})
        running = [place.worker() for _ in range(n)]
        most = _settled(place, running)
        for worker in running:
            worker.terminate()
            worker.wait()
        of_one = (float(np.mean([row[name] for row in most])) for name in ("rss", "pss", "own"))
        yield n, place.disk_mb("features"), place.disk_mb("pixels"), *of_one, sum(row["pss"] for row in most)


def _settled(place: Place, running: list["subprocess.Popen[bytes]"]) -> list[dict[str, float]]:
    """Each worker's peak memory until `_LOOK_SECONDS` after all have finished two trials."""
    most: dict[int, dict[str, float]] = {}
    until = float("inf")
    while time.monotonic() < until and all(worker.poll() is None for worker in running):
        for worker in running:
            now = memory_mb(worker.pid)
            if now["own"] >= most.get(worker.pid, now)["own"]:
                most[worker.pid] = now
        if until == float("inf") and place.n_seasoned() == len(running):
            until = time.monotonic() + _LOOK_SECONDS
        time.sleep(0.5)
    return list(most.values())


def flat(data: Path, folder: Path, budgets: list[int]) -> Iterator[tuple[object, ...]]:
    """Rows: memory of one warm worker after each number of trials in `budgets`, and a trend."""
    place = Place(folder / "flat", data, {"backbone": {"choice": list(BACKBONES)}, "images": 60})
    rows = place.inside("flat", "--trials", *map(str, budgets))
    for row in rows:
        yield (row["trials"], *(float(row[name]) for name in ("rss", "trimmed")), row["tensors"],
               *(row[name] for name in ("tensor_mb", "objects", "files", "threads")))  # fmt: skip
    kb = np.polyfit(budgets[1:], [1e3 * row["trimmed"] for row in rows[1:]], 1)[0]
    yield f"per trial, after malloc_trim, from {budgets[1]} on", f"{kb:.1f} kB"


def start(data: Path, folder: Path, n_files: int) -> Iterator[tuple[object, ...]]:
    """Rows: processor seconds to read a folder of many files, three times, each in a new process."""
    source = copies(data, folder / "many", n_files)
    place = Place(folder / "start", source, {})
    for when in ("first", "second", "third"):
        said = subprocess.run(
            [sys.executable, "-c", READ, source], env=place.environment, stdout=subprocess.PIPE, check=True
        )
        yield when, n_files, *map(float, said.stdout.split())


READ = """
import sys, time
from tlopt.data import load, pixels as store
from tlopt.data.decode import Reading
from tlopt.spec.sections import DataSpec
times = [time.process_time()]
data = load.load_data(DataSpec(source=sys.argv[1]), seed=5)
times.append(time.process_time())
store.pixels(data, size=store.training_size(48), reading=Reading(resize="crop"))
times.append(time.process_time())
print(times[1] - times[0], times[2] - times[1])
"""


def copies(data: Path, folder: Path, n_files: int) -> Path:
    """A folder with `n_files` different files: those of train/ with a number appended to each."""
    files = sorted(path for path in (data / "train").rglob("*") if path.is_file())
    for index in range(n_files):
        file = files[index % len(files)]
        target = folder / "train" / file.parent.name / f"{index:06}{file.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes() + index.to_bytes(4, "big"))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/, and perhaps val/ and test/")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    parser.add_argument("--files", type=int, default=20_000, help="files in the folder of the part `start`")
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 50, 100, 150, 200], help="of `flat`")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, help="tables")
    args = parser.parse_args()
    data, out = args.data.absolute(), args.out.absolute()
    plant_weights(out / "torch", BACKBONES)
    for name in args.only:
        match name:
            case "growth":
                table(GROWTH, growth(data, out))
            case "bound":
                table(BOUND, bound(data, out))
            case "workers":
                table(WORKERS, workers(data, out))
            case "flat":
                table(FLAT, flat(data, out, args.trials))
            case "start":
                table(START, start(data, out, args.files))


if __name__ == "__main__":
    main()
