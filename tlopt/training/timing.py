"""The devices of this machine, and the measured cost of training on them."""

import itertools
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tlopt.data.batches import Images
from tlopt.data.pixels import training_size
from tlopt.model.build import build, n_blocks
from tlopt.model.weights import Weights
from tlopt.spec.point import Point
from tlopt.spec.search_keys import RULES
from tlopt.system.cpus import CPU_WORKERS_MAX, n_cores
from tlopt.training.loop import fit
from tlopt.training.numerics import Numerics
from tlopt.training.run import prepare_run

_STEPS = {"cpu": 1, "cuda": 8}  # of one timed epoch
_TIMED_EPOCHS = 2


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a study can be run on here."""

    device: str  # "cuda:0" or "cpu": the fastest
    device_name: str
    n_devices: int
    n_cores: int  # that this process may use

    @property
    def on_cpu(self) -> bool:
        """Whether there is nothing faster than the CPU."""
        return self.device == "cpu"

    @property
    def n_workers(self) -> int:
        """The default plan: a worker for each GPU; on a CPU one for each core, with one thread, up to 4."""
        return min(CPU_WORKERS_MAX, self.n_cores) if self.on_cpu else self.n_devices


def detect_machine() -> Machine:
    """The fastest kind of device here: CUDA GPUs or the CPU; Apple's GPU is used only where asked for."""
    on_gpu = torch.cuda.is_available()
    return Machine(
        device="cuda:0" if on_gpu else "cpu",
        device_name=torch.cuda.get_device_name(0) if on_gpu else _processor(),
        n_devices=torch.cuda.device_count() if on_gpu else 1,
        n_cores=n_cores(),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Seconds of one worker; a CPU's worker has one thread, and a core of its own."""

    full: float  # an image of a training step with nothing frozen
    half: float  # the same with half of the blocks frozen
    frozen: float  # the same with all of them frozen: about what validation costs
    build: float  # of making a network ready to train
    load_factor: float = (
        1.0  # wall clock over the seconds above while they were measured: what other programs took
    )

    @property
    def mean_over_depths(self) -> float:
        """The mean over freeze depths from 0 to B, by Simpson's rule."""
        return (self.full + 4 * self.half + self.frozen) / 6

    def interpolated(self, other: "TrainingCost", share: float) -> "TrainingCost":
        """The cost at `share` of the way to `other`; beyond 1 the line goes on, never below half of self."""

        def mix(here: float, there: float) -> float:
            return max(here + share * (there - here), here / 2)

        return TrainingCost(
            full=mix(self.full, other.full),
            half=mix(self.half, other.half),
            frozen=mix(self.frozen, other.frozen),
            build=mix(self.build, other.build),
            load_factor=max(self.load_factor, other.load_factor),
        )


def measure_costs(
    weights: Weights, resolutions: Sequence[int], *, n_classes: int, batch_size: int, device: str
) -> dict[int, TrainingCost]:
    """The cost at each of `resolutions`, pixels per side, ascending; it takes seconds.

    Measured at the lowest and, of the others, at the highest up to 128 pixels; in between and beyond it is a
    line in the number of pixels, from which EfficientNet-Lite0 departs by a tenth up to 224 pixels.
    """
    low = resolutions[0]
    high = max((r for r in resolutions[1:] if r <= 128), default=resolutions[-1])
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = {
            r: _measure(weights, r, n_classes=n_classes, batch_size=batch_size, device=device)
            for r in {low, high}
        }
    finally:
        torch.set_num_threads(n_threads)
    span = max(high**2 - low**2, 1)
    return {r: measured[low].interpolated(measured[high], (r**2 - low**2) / span) for r in resolutions}


def _measure(
    weights: Weights, resolution: int, *, n_classes: int, batch_size: int, device: str
) -> TrainingCost:
    n = n_blocks(weights.backbone)
    point = _point(weights.backbone, resolution, n, batch_size)
    depths = (0, n // 2, n)
    rows = [_time(replace(point, freeze_depth=f), weights, n_classes, torch.device(device)) for f in depths]
    return TrainingCost(
        full=rows[0].step,
        half=rows[1].step,
        frozen=rows[2].step,
        build=min(row.build for row in rows),
        load_factor=sum(row.wall for row in rows) / sum(row.worked for row in rows),
    )


def seconds_per_image(
    weights: Weights,
    resolution: int,
    *,
    n_classes: int,
    batch_size: int,
    device: torch.device,
    numerics: Numerics,
) -> float:
    """Seconds an image of a training step with nothing frozen, with this process's threads."""
    point = _point(weights.backbone, resolution, n_blocks(weights.backbone), batch_size)
    return _time(point, weights, n_classes, device, numerics).step


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Seconds: an image of the fastest epoch, of the start; and of all timed epochs by both clocks."""

    step: float
    build: float
    wall: float
    worked: float


def _time(
    point: Point, weights: Weights, n_classes: int, device: torch.device, numerics: Numerics | None = None
) -> _Timed:
    """The training loop itself, timed on a CPU by the work it does: another program's load passes."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    n_images = point.batch_size * _STEPS[device.type]
    size = training_size(point.resolution)
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), dtype=np.uint8)
    images = Images(
        training_pixels=pixels,
        eval_pixels=pixels,
        labels=np.arange(n_images, dtype=np.int64) % n_classes,
        mean=weights.mean,
        std=weights.std,
        flip=True,
    )
    start = clock()
    run = prepare_run(
        build(point, n_classes=n_classes, weights=weights, seed=0),
        point,
        pretrained=weights.state,
        labels=images.labels,
        seed=0,
        device=device,
        n_classes=n_classes,
        numerics=numerics,
    )
    ready = clock()
    ends = [(clock(), time.perf_counter()) for _ in fit(run, images, np.arange(n_images), None)]
    # the first epoch also warms up
    worked = [after - before for (before, _), (after, _) in itertools.pairwise(ends)]
    return _Timed(
        step=min(worked) / n_images,
        build=ready - start,
        wall=ends[-1][1] - ends[0][1],
        worked=sum(worked),
    )


def _point(backbone: str, resolution: int, n: int, batch_size: int) -> Point:
    values = {name: rule.default for name, rule in RULES.items()} | {
        "resolution": resolution,
        "transfer_depth": n,
        "anchor_depth": n,
        "lr": 1e-5,
        "l2": 0.02,
        "l2_anchored": 0.02,  # as dear as a searched l2_sp, and without pretrained weights
        "epochs": 1 + _TIMED_EPOCHS,
        "batch_size": batch_size,
    }
    return Point.from_dict({"backbone": backbone, **values})


def _processor() -> str:
    """The processor's name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names[0] if names else platform.processor() or platform.machine()).split())
