"""A training epoch by freeze depth: the plain script, then idea by idea, beside what its operations take.

    python benchmarks/epochs.py path/to/flowers5 --backbones efficientnet_lite0 resnet18 --images 256

The ways take turns, one epoch each, in one process; first epochs, in which caches are filled, are left out.
Prints a Markdown table of medians as ratios to the limit: the operations of forward and backward pass through
what is trained, at this machine's rate for the whole network with nothing frozen and the images at hand.
"""

import argparse
import ctypes
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from plain import Machine, train_batches
from planted import plant_weights
from whole_bound import prefix_flops, step_seconds

from tlopt import spec
from tlopt.search.space import resolve
from tlopt.spec.point import Point
from tlopt.system.memory import keep_freed_memory
from tlopt.training.loop import fit
from tlopt.training.numerics import Numerics, usual
from tlopt.trial.fastest import fastest
from tlopt.trial.images import images_for
from tlopt.trial.workspace import Bench, features_for, open_bench, start_run

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
WAYS = ("plain script", "decoded once, batched", "+ memory kept", "+ fastest numbers", "+ kept features")
VIEWS = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of glibc's malloc.h
STUDY = """
name = "epochs"
[data]
source = "{source}"
views = {views}
[model]
backbone = "{backbone}"
[budget]
trials = 1
epochs = 99
[search]
resolution = {resolution}
freeze_depth = {{ uniform = [0.0, 1.0] }}
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One backbone on one set of images."""

    data: Path  # with train/ of as many images as are trained on
    bench: Bench
    train: NDArray[np.int64]
    chosen: Numerics


def open_case(data: Path, backbone: str, resolution: int) -> Case:
    """The case, with the numerics that this machine is fastest with."""
    allocate(True)
    text = STUDY.format(source=data, views=VIEWS, backbone=backbone, resolution=resolution)
    bench = open_bench(spec.loads(text, "epochs.toml"), torch.device("cpu"))
    found = bench.weights[backbone]
    point = point_of(bench, 0.0)
    run = start_run(bench, point, seed=0, train=bench.data.splits[0].train)
    chosen = fastest(
        found,
        usual(run.network, bench.device),
        precision=None,
        layout=None,
        resolution=resolution,
        n_classes=bench.n_classes,
        batch_size=point.batch_size,
        device=bench.device,
    )
    return Case(data=data, bench=bench, train=bench.data.splits[0].train, chosen=chosen)


def point_of(bench: Bench, share: float) -> Point:
    """Default values but for `freeze_depth`, a share of the blocks."""
    backbone = bench.study.model.backbones[0]
    resolution = bench.study.search["resolution"].value  # type: ignore[union-attr]
    return resolve({"freeze_depth": share, "resolution": resolution}, backbone, 99, bench.limits)


def way(case: Case, share: float, name: str) -> Iterator[float]:
    """Seconds of one training epoch after another."""
    point, bench = point_of(case.bench, share), case.bench
    if name == WAYS[0]:
        epochs: Iterator[object] = train_batches(case.data, point, Machine())
    else:
        keeps, numerics = name == WAYS[4], case.chosen if name in WAYS[3:] else Numerics()
        data = bench.study.data.model_copy(update={"views": VIEWS if keeps else 0})
        own = replace(
            bench,
            study=bench.study.model_copy(update={"data": data}),
            features={},
            numerics={point.backbone: numerics},
        )
        run, images = start_run(own, point, seed=0, train=case.train), images_for(own, point)
        kept = features_for(own, run, images) if keeps else None
        epochs = fit(run, images, case.train, None, kept)
    start = time.perf_counter()
    for _ in epochs:
        yield time.perf_counter() - start
        start = time.perf_counter()


def allocate(keeps: bool) -> None:
    """Keep freed memory, or let glibc do as it does by itself after a few steps."""
    keep_freed_memory()
    if not keeps:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def limit(case: Case, share: float) -> float:
    """Seconds of an epoch if its operations ran at the rate of the whole network's."""
    own = replace(case.bench, features={}, numerics={case.bench.study.model.backbones[0]: case.chosen})
    run = start_run(own, point_of(case.bench, 0.0), seed=0, train=case.train)
    prefix = prefix_flops(run)
    suffix = 1 - prefix[point_of(case.bench, share).freeze_depth] / prefix[-1]
    return float(suffix * step_seconds(run) * len(case.train) / run.point.batch_size)


def measure(case: Case, share: float, repeats: int) -> dict[str, float]:
    """Median seconds of an epoch by way, and the limit."""
    running = {name: way(case, share, name) for name in WAYS}
    for _ in range(VIEWS):  # every view is kept from then on
        for name, epochs in running.items():
            allocate(name in WAYS[2:])
            next(epochs)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, epochs in running.items():
            allocate(name in WAYS[2:])
            seconds[name].append(next(epochs))
    medians = {name: statistics.median(row) for name, row in seconds.items()}
    allocate(True)
    return {**medians, "limit": limit(case, share)}


def subset(data: Path, folder: Path, n_images: int) -> Path:
    """A folder with links to `n_images` of the images in train/, spread over the classes, and to val/."""
    files = sorted(p for p in (data / "train").rglob("*") if p.is_file())
    for index in np.linspace(0, len(files) - 1, min(n_images, len(files))).astype(int):
        target = folder / files[index].relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(files[index].absolute())
    (folder / "val").symlink_to((data / "val").absolute())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--images", type=int, default=256, help="to train on")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLOPT_CACHE"] = f"{folder}/cache"
        plant_weights(Path(folder) / "torch", args.backbones)
        data = subset(args.data, Path(folder) / "data", args.images)
        print("| backbone | frozen | limit, s | " + " | ".join(WAYS) + " | plain / kept |")
        print("| --- | --- | --- |" + " --- |" * (len(WAYS) + 1))
        for backbone in args.backbones:
            case = open_case(data, backbone, args.resolution)
            for share in SHARES:
                found = measure(case, share, args.repeats)
                rows.append({"backbone": backbone, "share": share, "numerics": str(case.chosen), **found})
                # behind the last block the head's operations take next to nothing: seconds instead
                unit = found["limit"] if share < 1 else 1.0
                cells = [f"{found[name] / unit:.2f}" + ("" if share < 1 else " s") for name in WAYS]
                gain = found[WAYS[0]] / found[WAYS[-1]]
                print(
                    f"| {backbone} ({case.chosen}) | {share:.0%} | {found['limit']:.3f} | "
                    + " | ".join(cells)
                    + f" | {gain:.1f} |",
                    flush=True,
                )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
