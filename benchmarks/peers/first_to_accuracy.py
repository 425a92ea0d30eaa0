"""Seconds until a search has found a point of a given confirmed accuracy: Optuna, Ray, Syne Tune, tlopt.

    python -m benchmarks.peers.first_to_accuracy DATA/flowers5 DATA/trash6 DATA/rsscn7 --out /tmp/first

Needs benchmarks/peers/requirements.txt. Each system searches the same space on the same images for the same
time, with its own sampler and pruner and empty caches; systems take turns. The best so far is, for all of
them, the complete trial with the best validation accuracy after its last epoch. Afterwards a referee trains
every such point again and evaluates it on test images, see `benchmarks.peers.referee`. The target is the
plain script's final accuracy, the median over seeds. A second start continues the first: there is one file
per search and one line per evaluation.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.common.images import link_images
from benchmarks.common.planted_weights import BUNDLED, plant_weights
from benchmarks.peers.job import Size, untuned_point
from benchmarks.peers.referee import Case, referee
from benchmarks.peers.report import incumbents, report
from benchmarks.peers.search import SYSTEMS, Search, run_search, save
from tlopt import spec

PACKAGES = ("torch", "optuna", "ray", "syne-tune")
NEEDS = {"ray": "ray", "syne": "syne-tune"}  # package of a system


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
    names = ("train", "val", "judge", "planted")
    given = asdict(size_of(args)) | {name: getattr(args, name) for name in names}
    settings = given | {"semantics": spec.SEMANTICS_VERSION} | versions(args.systems)
    file: Path = args.out / "settings.json"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise SystemExit(f"{args.out} was begun with other settings: {file.read_text()}")
    file.write_text(json.dumps(settings))


def search_all(args: argparse.Namespace, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The results of every system on each set with each seed; missing searches are run."""
    found = []
    for seed in range(args.seeds):
        for name, folder in folders.items():
            # another order for each seed: later systems find files in memory that earlier ones read
            order = [args.systems[(i + seed) % len(args.systems)] for i in range(len(args.systems))]
            for system in order:
                file = args.out / f"{name}-{seed}-{system}.json"
                if not file.exists():
                    search = Search(data=folder, system=system, seed=seed, size=size_of(args))
                    save(file, search, run_search(search))
                found.append(json.loads(file.read_text()))
                trials = found[-1]["trials"]
                print(file.stem, len(trials), sum(t["complete"] for t in trials), flush=True)
    return found


def judge_all(args: argparse.Namespace, folders: dict[str, Path], runs: list[dict[str, Any]]) -> None:
    """Have the referee judge plain fine-tuning and every point that was the best of its search."""
    cases = [Case(folder, untuned_point(size_of(args))) for folder in folders.values()]
    cases += [
        Case(folders[run["data"]], point)
        for run in runs
        for _, point in incumbents(run["trials"], args.seconds)
    ]
    referee(cases, args.out / "referee.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/, val/ and test/")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3, help="searches by each system on each set")
    parser.add_argument("--seconds", type=float, default=180.0, help="per search, its start included")
    parser.add_argument("--epochs", type=int, default=6, help="per trial, at most")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--planted", action="store_true", help="random weights instead of pretrained ones")
    parser.add_argument("--train", type=int, default=240, help="images to train on")
    parser.add_argument("--val", type=int, default=120, help="validation images per epoch of a search")
    parser.add_argument("--judge", type=int, default=400, help="test images for the referee")
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
    counts = {"train": args.train, "val": args.val, "test": args.judge}
    with tempfile.TemporaryDirectory() as name:
        folders = {data.name: link_images(data, Path(name) / data.name, counts) for data in args.data}
        runs = search_all(args, folders)
        if not args.searches_only:
            judge_all(args, folders, runs)
            report(args.out, args.plot or args.out / "first_to_accuracy.png")


if __name__ == "__main__":
    main()
