"""Points to start a search from: lower blocks kept and frozen, the rest trained anew; and the two defaults.

    python benchmarks/starts.py DATA/flowers5 DATA/trash6 DATA/rsscn7 --images 150 --seeds 3

Accuracy on all of the source's validation images after the last epoch, as the mean over seeds. A share of s
keeps and freezes the first s of the blocks; the blocks behind them start from fresh weights. Prints a
Markdown table, a row for each set of images.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from epochs import subset
from views import accuracy

from tlopt import spec
from tlopt.search.space import defaults, resolve
from tlopt.spec.point import Point
from tlopt.trial.workspace import Bench, open_bench, settle_process

STUDY = """
name = "starts"
[data]
source = "{source}"
views = 8
[model]
backbone = "{backbone}"
precision = "auto"
layout = "auto"
[budget]
trials = 1
epochs = {epochs}
[search]
resolution = {resolution}
batch_size = {batch_size}
transfer_depth = {{ uniform = [0.0, 1.0] }}
freeze_depth = {{ uniform = [0.0, 1.0] }}
lr = {{ log = [1e-5, 1.0] }}
"""


def starts(bench: Bench, args: argparse.Namespace) -> Iterator[tuple[str, Point]]:
    """What is compared, by name."""
    yield from ((row.label, row.point) for row in defaults(bench.study, bench.limits))
    fixed = {"resolution": args.resolution, "batch_size": args.batch_size}
    for share in args.shares:
        for lr in args.rates:
            values = {"transfer_depth": share, "freeze_depth": share, "lr": lr, **fixed}
            yield f"{share:.2f}, {lr:g}", resolve(values, args.backbone, args.epochs, bench.limits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/ and val/")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=150, help="to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    args = parser.parse_args()
    settle_process(1)
    for number, source in enumerate(args.data):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TLOPT_CACHE"] = f"{folder}/cache"
            data = subset(source, Path(folder) / "data", args.images)
            keys = {"epochs": args.epochs, "resolution": args.resolution, "batch_size": args.batch_size}
            text = STUDY.format(source=data, backbone=args.backbone, **keys)
            bench = open_bench(spec.loads(text, "starts.toml"), torch.device("cpu"))
            compared = dict(starts(bench, args))
            if number == 0:
                print("| images | " + " | ".join(compared) + " |")
                print("| --- |" + " --- |" * len(compared))
            print(f"| {source.name} | " + " | ".join(_cells(bench, compared, args.seeds)) + " |", flush=True)


def _cells(bench: Bench, compared: dict[str, Point], n_seeds: int) -> Iterator[str]:
    """Mean accuracies in percent."""
    for point in compared.values():
        own = replace(bench, features={})
        found = [accuracy(own, point, 8, seed) for seed in range(n_seeds)]
        yield f"{100 * statistics.mean(found):.1f}"


if __name__ == "__main__":
    main()
