"""Accuracy at the end of a search, and seconds to a given one: Optuna, Ray, Syne Tune, NePS, tlopt.

    python -m benchmarks.peers.compare DATA/{dtd10,fashion10,flowers5,rsscn7,signdigits,trash6} \\
        --out /tmp/peers

Needs benchmarks/peers/requirements.txt. Each system searches the same space on the same images for the same
time on one core, with empty caches; as many searches run side by side as there are cores, and systems take
turns. Afterwards a referee trains again what each search ended with, and what was its best before, and
evaluates it on images that no search has seen, see `benchmarks.peers.referee`. A second start continues the
first: there is one file per search and one line per evaluation.
"""

import argparse
import itertools
import json
import os
import queue
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.common.images import link_drawn
from benchmarks.common.planted_weights import BUNDLED, plant_weights
from benchmarks.peers.curves import steps
from benchmarks.peers.job import Size, untuned_points
from benchmarks.peers.referee import SEEDS, Case, referee
from benchmarks.peers.report import held_points, report
from benchmarks.peers.search import SYSTEMS, Search, propose, run_search, save
from tlopt import spec

PACKAGES = ("torch", "optuna", "ray", "syne-tune", "neural-pipeline-search")
NEEDS = {"ray": "ray", "syne": "syne-tune", "neps": "neural-pipeline-search"}  # package of a system
COUNTS = ("train", "val", "test")
Cases = list[tuple[Case, int]]


def size_of(args: argparse.Namespace) -> Size:
    """The settings of every search."""
    return Size(seconds=args.seconds, epochs=args.epochs, resolution=args.resolution, backbone=args.backbone)


def versions(systems: Iterable[str]) -> dict[str, str | None]:
    """Versions of `PACKAGES`, None for those that are not installed.

    Raises:
        SystemExit: A package of one of `systems` is not installed.
    """
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if missing := [name for name in map(NEEDS.get, systems) if name and found[name] is None]:
        cure = "pip install -r benchmarks/peers/requirements.txt, or choose --systems"
        raise SystemExit(f"not installed: {', '.join(missing)}; {cure}")
    return found


def settle(args: argparse.Namespace) -> None:
    """Write the settings of all searches into `--out`.

    Raises:
        SystemExit: `--out` was begun with other settings.
    """
    given = asdict(size_of(args)) | {"images": args.images, "planted": args.planted}
    settings = given | {"semantics": spec.SEMANTICS_VERSION} | versions(args.systems)
    file: Path = args.out / "settings.json"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise SystemExit(f"{args.out} was begun with other settings: {file.read_text()}")
    file.write_text(json.dumps(settings))


def linked(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Folders of train/ and val/ by set; test/ is beside them, where no search looks."""
    counts = dict(zip(COUNTS, args.images, strict=True))
    searched = {name: n for name, n in counts.items() if name != "test"}
    for data in args.data:
        link_drawn(data, folder / data.name, searched, seed=0)
        link_drawn(data, folder / "judge" / data.name, counts, seed=0)
    return {data.name: folder / data.name for data in args.data}


def proposals(args: argparse.Namespace, folders: Mapping[str, Path]) -> dict[str, str]:
    """The study file that `tlopt init` writes for each set; written once, as it measures times."""
    found = {}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # for this thread and the processes that it starts
    for name, folder in folders.items():
        file: Path = args.out / f"{name}.toml"
        if not file.exists():
            # without the folder of this run, so that the file can be read later
            file.write_text(propose(folder, size_of(args)).replace(str(folder), name))
        found[name] = file.read_text().replace(f'source = "{name}"', f'source = "{folder}"')
    os.sched_setaffinity(0, cores)
    return found


def order(args: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Set, seed and system of every search, in another order of systems for each set and seed."""
    for turn, (seed, data) in enumerate(itertools.product(range(args.seeds), args.data)):
        for place in range(len(args.systems)):
            yield data.name, seed, args.systems[(place + turn) % len(args.systems)]


def search_all(args: argparse.Namespace, folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The results of every system on each set with each seed; missing searches are run, one per core."""
    proposed, todo = proposals(args, folders), queue.SimpleQueue[tuple[Path, Search]]()
    files = {
        args.out / f"{name}-{seed}-{system}.json": (name, seed, system) for name, seed, system in order(args)
    }
    for file, (name, seed, system) in files.items():
        if not file.exists():
            keys: dict[str, Any] = {"data": folders[name], "proposed": proposed[name], "system": system}
            todo.put((file, Search(**keys, seed=seed, size=size_of(args))))
    failures: list[BaseException] = []
    cores = sorted(os.sched_getaffinity(0))
    threads = [threading.Thread(target=_work, args=(core, todo, failures)) for core in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [json.loads(file.read_text()) for file in files]


def _work(core: int, todo: "queue.SimpleQueue[tuple[Path, Search]]", failures: list[BaseException]) -> None:
    """Run searches on one core until none is left or one has failed."""
    os.sched_setaffinity(0, {core})  # of this thread, which the processes that it starts inherit
    while not failures:
        try:
            file, search = todo.get_nowait()
        except queue.Empty:
            return
        try:
            found = run_search(search)
        except (SystemExit, OSError) as error:
            failures.append(error)
            return
        save(file, search, found)
        trials = found["trials"]
        print(file.stem, len(trials), sum(t["complete"] for t in trials), flush=True)


def cases(args: argparse.Namespace, folders: Mapping[str, Path], runs: Sequence[dict[str, Any]]) -> Cases:
    """Every point that the referee judges, and with how many seeds."""
    study = spec.load(next(iter(sorted(args.out.glob("*.toml")))))
    judges = {name: folder.parent / "judge" / name for name, folder in folders.items()}
    found = [
        (Case(folder, point), SEEDS) for folder in judges.values() for point in untuned_points(study).values()
    ]
    for run in runs:
        own = judges[run["data"]]
        found += [(Case(own, point), SEEDS) for _, point in steps(run, args.seconds)[-1:]]
        found += [
            (Case(own, point), args.seeds_before) for point in held_points(run, {"seconds": args.seconds})
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/, val/ and test/")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3, help="searches by each system on each set")
    parser.add_argument("--seconds", type=float, default=100.0, help="per search, its start included")
    parser.add_argument("--epochs", type=int, default=6, help="per trial, at most")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--planted", action="store_true", help="random weights instead of pretrained ones")
    parser.add_argument(
        "--images", nargs=3, type=int, default=[96, 64, 400], help="to train, validate, judge"
    )
    parser.add_argument(
        "--seeds-before", type=int, default=1, help="of the referee, for points before the last"
    )
    parser.add_argument("--searches-only", action="store_true", help="leave the referee to a second start")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for results; a second start continues"
    )
    parser.add_argument("--plot", type=Path, help="PNG; default: in --out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settle(args)
    if args.planted:
        plant_weights(args.out.absolute() / "torch", [args.backbone])
    with tempfile.TemporaryDirectory() as name:
        folders = linked(args, Path(name))
        runs = search_all(args, folders)
        if not args.searches_only:
            referee(cases(args, folders, runs), args.out / "referee.jsonl")
            report(args.out, args.plot or args.out / "peers.png")


if __name__ == "__main__":
    main()
