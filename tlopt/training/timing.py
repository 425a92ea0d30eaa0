"""The hardware of this machine, and measured costs of training on it."""

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
from tlopt.training.loop import train_epochs
from tlopt.training.numerics import Numerics
from tlopt.training.run import prepare_run

_STEPS = {"cpu": 1, "cuda": 8}  # per timed epoch
_TIMED_EPOCHS = 2


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The hardware of this machine that a study would use."""

    device: str  # the fastest: "cuda:0" or "cpu"
    device_name: str
    n_devices: int
    n_cores: int  # available to this process

    @property
    def on_cpu(self) -> bool:
        """True if the CPU is the fastest device."""
        return self.device == "cpu"

    @property
    def n_workers(self) -> int:
        """Default number of workers: one per GPU; on a CPU one per core, with one thread each, up to 4."""
        return min(CPU_WORKERS_MAX, self.n_cores) if self.on_cpu else self.n_devices


def detect_machine() -> Machine:
    """Detect the fastest kind of device: CUDA GPUs or the CPU; Apple's GPU is used only on request."""
    on_gpu = torch.cuda.is_available()
    return Machine(
        device="cuda:0" if on_gpu else "cpu",
        device_name=torch.cuda.get_device_name(0) if on_gpu else _processor(),
        n_devices=torch.cuda.device_count() if on_gpu else 1,
        n_cores=n_cores(),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Cost of training for one worker, in seconds; on a CPU with one thread on a core of its own."""

    full: float  # per image and training step, nothing frozen
    half: float  # the same with half of the blocks frozen
    frozen: float  # the same with all blocks frozen; about the cost of validation
    build: float  # per network: building it and its optimiser
    load_factor: float = 1.0  # wall-clock time per working time while measuring; above 1 on a busy machine

    @property
    def mean_over_depths(self) -> float:
        """Mean cost per image over all freeze depths, by Simpson's rule."""
        return (self.full + 4 * self.half + self.frozen) / 6

    def interpolated(self, other: "TrainingCost", share: float) -> "TrainingCost":
        """Interpolate linearly toward `other`, and extrapolate for `share` > 1; at least half of self."""

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
    """Measure the cost at each of the ascending `resolutions` in pixels; takes seconds.

    Measured at the lowest resolution and at the highest other one up to 128 pixels. Other costs are linear in
    the number of pixels, within 10 % for EfficientNet-Lite0 up to 224 pixels.
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
    """Seconds per image of a training step with nothing frozen, using this process's threads."""
    point = _point(weights.backbone, resolution, n_blocks(weights.backbone), batch_size)
    return _time(point, weights, n_classes, device, numerics).step


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Measured seconds of one run."""

    step: float  # per image, in the fastest epoch
    build: float  # before the first epoch
    wall: float  # wall-clock time of all timed epochs
    worked: float  # on a CPU, processor time of all timed epochs


def _time(
    point: Point, weights: Weights, n_classes: int, device: torch.device, numerics: Numerics | None = None
) -> _Timed:
    """Time the training loop, on a CPU by processor time, which excludes other programs' load."""
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
    ends = [(clock(), time.perf_counter()) for _ in train_epochs(run, images, np.arange(n_images), None)]
    # the first epoch is a warm-up
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
        "backbone_depth": 0,
        "transfer_depth": n,
        "anchor_depth": n,
        "lr": 1e-5,
        "l2": 0.02,
        "l2_anchored": 0.02,  # costs as much as l2_sp and needs no pretrained weights
        "epochs": 1 + _TIMED_EPOCHS,
        "batch_size": batch_size,
    }
    return Point.from_dict({"backbone": backbone, **values})


def _processor() -> str:
    """The processor's name according to the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names[0] if names else platform.processor() or platform.machine()).split())
