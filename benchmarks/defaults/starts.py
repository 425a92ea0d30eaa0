"""Accuracy of points to start a search from: the defaults, and some that freeze blocks or keep statistics.

    python -m benchmarks.defaults.starts DATA/flowers5 DATA/trash6 DATA/rsscn7 --images 150 --seeds 3

Accuracy on all validation images after the last epoch, the mean over seeds. Share s transfers and freezes
the first s of the blocks; the other blocks start from fresh weights. Norm n is plain fine-tuning that
keeps batch-norm statistics in the first n of the blocks, ratio r its `lr_ratio`. Prints a Markdown table, one
row per set.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.images import link_images
from benchmarks.common.planted_weights import BUNDLED
from benchmarks.common.study_file import ANY_DEPTH, FASTEST, study_text
from benchmarks.defaults.views import accuracy
from tlopt import spec
from tlopt.search.defaults import defaults
from tlopt.search.space import resolve
from tlopt.spec.point import Point
from tlopt.training.devices import configure_process
from tlopt.trial.workspace import Workspace

VIEWS = 8


def starts_study(source: Path, args: argparse.Namespace) -> str:
    """The study file: any depths, fastest numerics."""
    return study_text(
        "starts",
        data={"source": source, "views": VIEWS},
        model={"backbone": args.backbone, **FASTEST},
        budget={"trials": 1, "epochs": args.epochs},
        search={
            "resolution": args.resolution,
            "batch_size": args.batch_size,
            "transfer_depth": ANY_DEPTH,
            "freeze_depth": ANY_DEPTH,
            "lr": {"log": [1e-5, 1.0]},
        },
    )


def starts(workspace: Workspace, args: argparse.Namespace) -> Iterator[tuple[str, Point]]:
    """The points compared, with their names."""
    yield from ((row.label, row.point) for row in defaults(workspace.study, workspace.facts))
    fixed = {"resolution": args.resolution, "batch_size": args.batch_size}
    for share in args.shares:
        for lr in args.rates:
            values = {"transfer_depth": share, "freeze_depth": share, "lr": lr, **fixed}
            yield f"{share:.2f}, {lr:g}", resolve(values, args.backbone, args.epochs, workspace.facts)
    for norm in args.norms:
        for ratio in args.ratios:
            values = {"norm_depth": norm, "lr_ratio": ratio, **fixed}
            yield (
                f"norm {norm:g}, ratio {ratio:g}",
                resolve(values, args.backbone, args.epochs, workspace.facts),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/ and val/")
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--images", type=int, default=150, help="training images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.6, 0.7, 0.8, 0.9], help="of the blocks")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3], help="learning rates")
    parser.add_argument("--norms", type=float, nargs="*", default=[], help="shares that keep statistics")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 1.0], help="lr_ratio of these")
    args = parser.parse_args()
    configure_process(1)
    for number, source in enumerate(args.data):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TLOPT_CACHE"] = f"{folder}/cache"
            data = link_images(source, Path(folder) / "data", {"train": args.images, "val": None})
            workspace = Workspace.open(
                spec.loads(starts_study(data, args), "starts.toml"), torch.device("cpu")
            )
            compared = dict(starts(workspace, args))
            if number == 0:
                print("| images | " + " | ".join(compared) + " |")
                print("| --- |" + " --- |" * len(compared))
            print(
                f"| {source.name} | " + " | ".join(_cells(workspace, compared, args.seeds)) + " |", flush=True
            )


def _cells(workspace: Workspace, compared: dict[str, Point], n_seeds: int) -> Iterator[str]:
    """Cells: mean accuracy of each point in percent."""
    for point in compared.values():
        own = replace(workspace)
        found = [accuracy(own, point, VIEWS, seed) for seed in range(n_seeds)]
        yield f"{100 * statistics.mean(found):.1f}"


if __name__ == "__main__":
    main()
