"""What caches take of memory and disk beside their bounds, and how both grow: Markdown tables.

    python benchmarks/caches.py path/to/flowers5 --out /tmp/caches

Weights are random numbers, planted where torchvision looks for its own: nothing is fetched. Memory is that of
/proc/PID/smaps_rollup (Linux); disk is blocks, as du counts them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from caches_inside import memory_mb
from planted import plant_weights

_LOOK_SECONDS = 20.0
BACKBONES = ("mobilenet_v3_small", "resnet18")
STUDY = """
name = "{name}"
seed = 5
objective = "log_loss"
[data]
source = "{source}"
views = {views}
images_max = {images}
[model]
backbone = {backbone}
[budget]
trials = {trials}
epochs = {epochs}
[search]
resolution = 48
batch_size = 16
lr = {{ log = [1e-4, 1e-2] }}
freeze_depth = {depths}
[sampler]
kind = "random"
[pruner]
kind = "none"
"""
PARTS = ["growth", "bound", "workers", "flat", "start"]
GROWTH = ("changed", "images", "blocks kept", "pixels, MB", "features, MB", "planned, MB", "memory more, MB",
          "s to fill", "s to read")  # fmt: skip
BOUND = ("bound, MB", "blocks kept", "planned, MB", "features, MB")
WORKERS = ("workers", "features, MB", "pixels, MB", "RSS of one", "PSS of one", "its own", "PSS of all")
FLAT = ("trials", "RSS, MB", "after malloc_trim", "tensors", "their MB", "objects", "open files", "threads")
START = ("start", "files", "to know them, s of processor", "to have them decoded")
ALL_DEPTHS = "{ uniform = [0.0, 1.0] }"
USUAL: dict[str, Any] = {
    "name": "caches",
    "views": 2,
    "images": 400,
    "depths": ALL_DEPTHS,
    "trials": 1,
    "epochs": 1,
}


class Place:
    """A folder with a study, a database and a cache of its own."""

    def __init__(self, folder: Path, data: Path, *, backbone: str = f'"{BACKBONES[1]}"', **keys: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.cache = folder / "caches.toml", folder / "cache"
        given = USUAL | keys
        self.name = given["name"]
        self.file.write_text(STUDY.format(source=data, backbone=backbone, **given))
        self.environment = os.environ | {
            "TLOPT_CACHE": str(self.cache),
            "TLOPT_STORAGE": f"sqlite:///{folder}/tlopt.db",
            "OMP_NUM_THREADS": "1",
        }

    def inside(self, what: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
        """The rows that caches_inside.py prints."""
        script = Path(__file__).with_name("caches_inside.py")
        said = subprocess.run(
            [sys.executable, script, what, self.file, *arguments],
            env=self.environment | environment,
            cwd=self.file.parent,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        return [json.loads(line) for line in said.splitlines()]

    def worker(self) -> "subprocess.Popen[bytes]":
        """`tlopt worker`, on one thread."""
        command = [
            sys.executable,
            "-m",
            "tlopt",
            "worker",
            str(self.file),
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
        return subprocess.Popen(
            command, env=self.environment, cwd=self.file.parent, stdout=subprocess.DEVNULL
        )

    def n_seasoned(self) -> int:
        """Workers that have finished two trials of the study."""
        logs = (self.file.parent / "runs" / self.name / "trials").glob("*.jsonl")
        events = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
        done = Counter(rows[0]["worker"] for rows in events if rows and rows[-1]["event"] == "end")
        return sum(n >= 2 for n in done.values())

    def disk_mb(self, kind: str) -> float:
        """Of what lies in the cache."""
        paths = [path for path in (self.cache / kind).rglob("*") if path.is_file()]
        return sum(path.stat().st_blocks * 512 for path in paths) / 1e6


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table; floats with what digits they need."""
    names = list(head)
    print("\n| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for row in rows:
        print("| " + " | ".join(map(_cell, row)) + " |", flush=True)


def _cell(value: object) -> str:
    return f"{value:.{1 if value >= 10 else 2}f}" if isinstance(value, float) else str(value)


def growth(data: Path, folder: Path) -> Iterator[tuple[object, ...]]:
    """How disk and memory grow with images, blocks and views, with everything filled."""
    changes: list[dict[str, Any]] = [
        *({"images": n} for n in (100, 200, 400, 800)),
        *({"depths": text} for text in ("8", "{ choice = [7, 8] }", "{ choice = [5, 6, 7, 8] }", ALL_DEPTHS)),
        *({"views": n} for n in (1, 2, 4, 8)),
    ]
    for index, change in enumerate(changes):
        place = Place(folder / f"growth{index}", data, **change)
        (found,) = place.inside("fill")
        ((what, much),) = change.items()
        more = found["after"]["rss"] - found["before"]["rss"]
        yield (
            f"{what} {much}".replace("depths", "freeze_depth"),
            *(found["images"], len(found["kept"]), place.disk_mb("pixels"), place.disk_mb("features")),
            *(found["planned_mb"], more, *found["seconds"]),
        )


def bound(data: Path, folder: Path) -> Iterator[tuple[object, ...]]:
    """What is kept under which bound."""
    for gb in ("0", "0.005", "0.02", "0.08", "20"):
        place = Place(folder / f"bound{gb}", data)
        (found,) = place.inside("fill", TLOPT_CACHE_GB_MAX=gb)
        kept = ", ".join(map(str, found["kept"])) or "none"
        yield f"{float(gb) * 1e3:g}", kept, found["planned_mb"], place.disk_mb("features")


def workers(data: Path, folder: Path) -> Iterator[tuple[object, ...]]:
    """What one more worker on the node costs, on a cache that is filled."""
    place = Place(folder / "workers", data)
    place.inside("fill")
    for n in (1, 2, 4):
        place = Place(folder / "workers", data, name=f"caches{n}", trials=1000, epochs=2)
        running = [place.worker() for _ in range(n)]
        most = _settled(place, running)
        for worker in running:
            worker.terminate()
            worker.wait()
        of_one = (float(np.mean([row[name] for row in most])) for name in ("rss", "pss", "own"))
        yield n, place.disk_mb("features"), place.disk_mb("pixels"), *of_one, sum(row["pss"] for row in most)


def _settled(place: Place, running: list["subprocess.Popen[bytes]"]) -> list[dict[str, float]]:
    """Each worker's memory when it was highest, until some seconds after each has finished two trials."""
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
    """Whether a warm worker's memory stays where it is."""
    names = ", ".join(f'"{name}"' for name in BACKBONES)
    place = Place(folder / "flat", data, backbone=f"{{ choice = [{names}] }}", images=60)
    rows = place.inside("flat", "--trials", *map(str, budgets))
    for row in rows:
        yield (row["trials"], *(float(row[name]) for name in ("rss", "trimmed")), row["tensors"],
               *(row[name] for name in ("tensor_mb", "objects", "files", "threads")))  # fmt: skip
    kb = np.polyfit(budgets[1:], [1e3 * row["rss"] for row in rows[1:]], 1)[0]
    yield f"a trial, from {budgets[1]} on", f"{kb:.1f} kB"


def start(data: Path, folder: Path, n_files: int) -> Iterator[tuple[object, ...]]:
    """What reading a folder of many files takes, first and again, in a new process each."""
    source = copies(data, folder / "many", n_files)
    place = Place(folder / "start", source)
    for when in ("first", "second", "third"):
        said = subprocess.run(
            [sys.executable, "-c", READ, source], env=place.environment, stdout=subprocess.PIPE, check=True
        )
        yield when, n_files, *map(float, said.stdout.split())


READ = """
import sys, time
from tlopt.data import load, store
from tlopt.data_keys import DataSpec
times = [time.process_time()]
data = load.load(DataSpec(source=sys.argv[1]), seed=5)
times.append(time.process_time())
store.pixels(data, size=store.training_size(48), resize="crop")
times.append(time.process_time())
print(times[1] - times[0], times[2] - times[1])
"""


def copies(data: Path, folder: Path, n_files: int) -> Path:
    """A folder with `n_files` files like those of train/, no two alike: behind each picture is a number."""
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
    parser.add_argument("--files", type=int, default=20_000, help="for the start")
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 50, 100, 150, 200])
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
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
