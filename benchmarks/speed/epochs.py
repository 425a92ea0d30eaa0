"""Duration of a training epoch by freeze depth: the plain script, then tlopt's means one by one.

    python -m benchmarks.speed.epochs DATA/flowers5 --images 128 --repeats 3

The variants alternate epoch by epoch in one process; first epochs, which fill the caches, are left out.
Prints a Markdown table of medians as ratios to the limit: the operations of forward and backward passes
through what is trained, at this machine's rate for the whole network with nothing frozen and decoded images.
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

from benchmarks.common.images import link_images
from benchmarks.common.plain_script import Machine, train_batches
from benchmarks.common.planted_weights import plant_weights
from benchmarks.common.study_file import ANY_DEPTH, study_text
from benchmarks.speed.compute_bound import prefix_flops, step_seconds
from tlopt import spec
from tlopt.search.space import resolve
from tlopt.spec.point import Point
from tlopt.system.memory import keep_freed_memory
from tlopt.training.loop import train_epochs
from tlopt.training.numerics import Numerics, usual_numerics
from tlopt.trial.autotune import fastest_numerics
from tlopt.trial.workspace import Workspace

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
WAYS = ("plain script", "decoded once, batched", "+ memory kept", "+ fastest numbers", "+ kept features")
VIEWS = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of glibc's malloc.h


def epochs_study(source: Path, backbone: str, resolution: int) -> str:
    """The study file: default values, any freeze depth."""
    return study_text(
        "epochs",
        data={"source": source, "views": VIEWS},
        model={"backbone": backbone},
        budget={"trials": 1, "epochs": 99},
        search={"resolution": resolution, "freeze_depth": ANY_DEPTH},
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One backbone on one set of images."""

    data: Path  # folder with train/, all of whose images are used
    workspace: Workspace
    train: NDArray[np.int64]
    chosen: Numerics


def open_case(data: Path, backbone: str, resolution: int) -> Case:
    """The case, with this machine's fastest numerics."""
    allocate(True)
    text = epochs_study(data, backbone, resolution)
    workspace = Workspace.open(spec.loads(text, "epochs.toml"), torch.device("cpu"))
    found = workspace.weights[backbone]
    point = point_of(workspace, 0.0)
    run = workspace.start_run(point, seed=0, train=workspace.data.splits[0].train)
    chosen = fastest_numerics(
        found,
        usual_numerics(run.network, workspace.device),
        precision=None,
        layout=None,
        resolution=resolution,
        n_classes=workspace.n_classes,
        batch_size=point.batch_size,
        device=workspace.device,
    )
    return Case(data=data, workspace=workspace, train=workspace.data.splits[0].train, chosen=chosen)


def point_of(workspace: Workspace, share: float) -> Point:
    """The default point with `share` of the blocks frozen."""
    backbone = workspace.study.model.backbones[0]
    resolution = workspace.study.search["resolution"].value  # type: ignore[union-attr]
    return resolve({"freeze_depth": share, "resolution": resolution}, backbone, 99, workspace.facts)


def way(case: Case, share: float, name: str) -> Iterator[float]:
    """Train in one of the ways; yield the seconds of each epoch."""
    point, workspace = point_of(case.workspace, share), case.workspace
    if name == WAYS[0]:
        epochs: Iterator[object] = train_batches(case.data, point, Machine())
    else:
        keeps, numerics = name == WAYS[4], case.chosen if name in WAYS[3:] else Numerics()
        data = workspace.study.data.model_copy(update={"views": VIEWS if keeps else 0})
        own = replace(
            workspace,
            study=workspace.study.model_copy(update={"data": data}),
            numerics={point.backbone: numerics},
        )
        run, images = own.start_run(point, seed=0, train=case.train), own.images(point)
        kept = own.feature_store(run, images) if keeps else None
        epochs = train_epochs(run, images, case.train, None, kept)
    start = time.perf_counter()
    for _ in epochs:
        yield time.perf_counter() - start
        start = time.perf_counter()


def allocate(keeps: bool) -> None:
    """Keep freed memory, or restore the thresholds at which glibc arrives by itself after a few steps."""
    keep_freed_memory()
    if not keeps:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def limit(case: Case, share: float) -> float:
    """Seconds of an epoch at the whole network's rate of operations."""
    own = replace(case.workspace, numerics={case.workspace.study.model.backbones[0]: case.chosen})
    run = own.start_run(point_of(case.workspace, 0.0), seed=0, train=case.train)
    prefix = prefix_flops(run)
    suffix = 1 - prefix[point_of(case.workspace, share).freeze_depth] / prefix[-1]
    return float(suffix * step_seconds(run) * len(case.train) / run.point.batch_size)


def measure(case: Case, share: float, repeats: int) -> dict[str, float]:
    """Median seconds of an epoch by way, and the limit."""
    running = {name: way(case, share, name) for name in WAYS}
    for _ in range(VIEWS):  # all views are cached afterwards
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--images", type=int, default=256, help="training images")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLOPT_CACHE"] = f"{folder}/cache"
        plant_weights(Path(folder) / "torch", args.backbones)
        data = link_images(args.data, Path(folder) / "data", {"train": args.images, "val": None})
        print("| backbone | frozen | limit, s | " + " | ".join(WAYS) + " | plain / kept |")
        print("| --- | --- | --- |" + " --- |" * (len(WAYS) + 1))
        for backbone in args.backbones:
            case = open_case(data, backbone, args.resolution)
            for share in SHARES:
                found = measure(case, share, args.repeats)
                rows.append({"backbone": backbone, "share": share, "numerics": str(case.chosen), **found})
                # only the head is trained, and its limit is near 0: seconds instead of ratios
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
