"""Seconds until a search holds a point of a given confirmed accuracy: a plain script, Ray, Syne Tune, tlopt.

    python benchmarks/first_to_accuracy.py DATA/flowers5 DATA/trash6 DATA/rsscn7 --out /tmp/first

Needs benchmarks/requirements-peers.txt. Each system searches the same space on the same images for the same
seconds, with its own sampler and pruner and nothing in its caches; systems take turns. The best so far is,
for all, the trial with the best validation accuracy after its last epoch among those that trained all their
epochs. Afterwards a referee trains every such point anew and judges it on test images, see
`peers_referee.py`. The target is the median over seeds of what the plain script ends with. A second start
goes on where the first ended: one file a search, one line a refereed training.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from peers_job import Size, limits, study_text
from peers_referee import Case, referee
from peers_report import curve, draw, incumbents, table
from peers_run import SYSTEMS, Search, run_search, save
from planted import BUNDLED, plant_weights

from tlopt import spec
from tlopt.search.space import defaults

PACKAGES = ("torch", "optuna", "ray", "syne-tune")


def subset(data: Path, folder: Path, counts: dict[str, int]) -> Path:
    """A folder with links to so many images of each split of `data`, spread over the classes."""
    for split, n_images in counts.items():
        files = sorted(file for file in (data / split).rglob("*") if file.is_file())
        for index in np.linspace(0, len(files) - 1, min(n_images, len(files))).astype(int):
            target = folder / files[index].relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(files[index].absolute())
    return folder


def size_of(args: argparse.Namespace) -> Size:
    """Of every search."""
    return Size(seconds=args.seconds, epochs=args.epochs, resolution=args.resolution, backbone=args.backbone)


def settle(args: argparse.Namespace) -> None:
    """Write down what searches have in common, or compare it with what `--out` was begun with."""
    names = ("train", "val", "judge", "planted")
    given = asdict(size_of(args)) | {name: getattr(args, name) for name in names}
    settings = given | {"semantics": spec.SEMANTICS_VERSION} | {name: version(name) for name in PACKAGES}
    file: Path = args.out / "settings.json"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise SystemExit(f"{args.out} was begun with other settings: {file.read_text()}")
    file.write_text(json.dumps(settings))


def search_all(args: argparse.Namespace, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """What every system came to on each set with each seed; those that are missing are run."""
    found = []
    for seed in range(args.seeds):
        for name, folder in folders.items():
            # another order each time: who comes first finds files in memory that others have read
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


def report(args: argparse.Namespace, folders: dict[str, Path], runs: list[dict[str, Any]]) -> None:
    """Referee what the runs found; print the table, and draw."""
    study = spec.loads(study_text(args.out, 0, size_of(args)), "the study")
    _, untuned = defaults(study, limits(study))
    plain = {name: Case(folder, untuned.point) for name, folder in folders.items()}
    cases = [
        Case(folders[run["data"]], point)
        for run in runs
        for _, point in incumbents(run["trials"], args.seconds)
    ]
    judged = referee([*plain.values(), *cases], args.out / "referee.jsonl")
    curves = [curve(run, judged, args.seconds) for run in runs]
    print(table(curves, {name: statistics.mean(judged[case.key]) for name, case in plain.items()}))
    draw(curves, args.seconds, args.plot or args.out / "first_to_accuracy.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/, val/ and test/")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3, help="searches by each system on each set")
    parser.add_argument("--seconds", type=float, default=180.0, help="of a search, its start included")
    parser.add_argument("--epochs", type=int, default=6, help="of a trial, at most")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--planted", action="store_true", help="random weights: none are fetched")
    parser.add_argument("--train", type=int, default=240, help="images to train on")
    parser.add_argument("--val", type=int, default=120, help="images that searches see after each epoch")
    parser.add_argument("--judge", type=int, default=400, help="images of test/ that the referee sees")
    parser.add_argument("--searches-only", action="store_true", help="leave the referee to a second start")
    parser.add_argument("--out", type=Path, required=True, help="a folder, to be gone on with")
    parser.add_argument("--plot", type=Path, help="PNG; default: in --out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settle(args)
    if args.planted:
        plant_weights(args.out.absolute() / "torch", [args.backbone])
    counts = {"train": args.train, "val": args.val, "test": args.judge}
    with tempfile.TemporaryDirectory() as name:
        folders = {data.name: subset(data, Path(name) / data.name, counts) for data in args.data}
        runs = search_all(args, folders)
        if not args.searches_only:
            report(args, folders, runs)


if __name__ == "__main__":
    main()
