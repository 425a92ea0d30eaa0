"""A lower bound of a study's duration: its operations at the machine's rate for the network."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt import spec
from tlopt.spec.point import Point
from tlopt.system.cpus import n_cores
from tlopt.training.devices import configure_process
from tlopt.training.frozen_prefix import find_split_points
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run
from tlopt.training.step import take_step
from tlopt.trial.autotune import measure_numerics
from tlopt.trial.workspace import Workspace

STEP_PASSES = 3  # operations of a training step in forward passes: one forward, two backward
_N_STEPS = 7


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Seconds with all workers busy, at the rate of a training step of the whole network.

    Attributes:
        training: Forward and backward passes through what each trial trains.
        validation: Forward passes through the same after each epoch.
        features: Forward passes through the frozen blocks, once per image and view.
        numerics: Precision and layout.
    """

    training: float
    validation: float
    features: float
    numerics: str

    @property
    def seconds(self) -> float:
        """The sum of all parts."""
        return self.training + self.validation + self.features

    def as_dict(self) -> dict[str, float | str]:
        """The bound as a JSON object."""
        return asdict(self)


def bound(file: Path, folder: Path, points: list[Point], *, n_workers: int, device: str) -> Bound:
    """The bound for `points`, by the steps of one worker while the others take steps as well."""
    os.environ["TLOPT_CACHE"] = str(folder / "cache")
    configure_process(max(1, n_cores() // n_workers))
    workspace = Workspace.open(spec.load(file), torch.device(device))
    workspace.numerics.update(
        measure_numerics(
            workspace.study, workspace.weights, n_classes=workspace.n_classes, device=workspace.device
        )
    )
    point = replace(points[0], freeze_depth=0)
    run = workspace.start_run(point, seed=0, train=workspace.data.splits[0].train)
    prefix = prefix_flops(run)
    with _others(n_workers - 1, file, workspace, point):
        seconds = step_seconds(run)
    rate = n_workers * STEP_PASSES * point.batch_size * prefix[-1] / seconds
    n_train, n_val = len(workspace.data.splits[0].train), len(workspace.data.splits[0].val)
    suffix = sum(each.epochs * (prefix[-1] - prefix[each.freeze_depth]) for each in points)
    return Bound(
        training=n_train * STEP_PASSES * suffix / rate,
        validation=n_val * suffix / rate,
        features=_n_views(workspace, points, n_train, n_val) * prefix[-1] / rate,
        numerics=str(run.numerics),
    )


@contextmanager
def _others(n: int, file: Path, workspace: Workspace, point: Point) -> Iterator[None]:
    """Run the same steps in `n` other processes within the block: workers share memory bandwidth."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(n + 1)
    what = (file, workspace.device, dict(workspace.numerics), point, torch.get_num_threads(), ready)
    processes = [context.Process(target=_keep_stepping, args=what, daemon=True) for _ in range(n)]
    for process in processes:
        process.start()
    try:
        ready.wait(timeout=120)
        yield
    finally:
        for process in processes:
            process.terminate()


def _keep_stepping(
    file: Path,
    device: torch.device,
    numerics: dict[str, Numerics],
    point: Point,
    n_threads: int,
    ready: Barrier,
) -> None:
    configure_process(n_threads)
    workspace = Workspace.open(spec.load(file), device)
    workspace.numerics.update(numerics)
    run = workspace.start_run(point, seed=0, train=workspace.data.splits[0].train)
    step_seconds(run)
    ready.wait()
    while True:
        step_seconds(run)


def _n_views(workspace: Workspace, points: list[Point], n_train: int, n_val: int) -> int:
    """Views to compute features for: one per validation image, the longest trial's per training image."""
    return n_val + min(workspace.study.data.views, max(point.epochs for point in points)) * n_train


def prefix_flops(run: Run) -> NDArray[np.float64]:
    """Operations of one image's forward pass up to block 0, 1, ..., B.

    Only forward passes are counted: torch's counter takes the backward pass of a grouped convolution for
    that of a dense one.
    """
    side = run.point.resolution
    image = torch.zeros(1, 3, side, side, device=run.device).contiguous(
        memory_format=run.numerics.memory_format
    )
    run.network.eval()
    return np.array([0.0, *(cut.flops for cut in find_split_points(run.network, image, run.numerics))])


def step_seconds(run: Run) -> float:
    """Median seconds of a training step with nothing frozen; changes the weights of `run`."""
    side = run.point.resolution
    x = torch.randn(run.point.batch_size, 3, side, side, device=run.device)
    x = x.contiguous(memory_format=run.numerics.memory_format)
    labels = torch.zeros(len(x), dtype=torch.int64, device=run.device)
    run.network.set_mode(0)
    seconds = []
    for _ in range(_N_STEPS):
        start = time.perf_counter()
        take_step(run, x, labels, 0, 0)[0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
