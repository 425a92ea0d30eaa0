"""What a warm worker keeps from trial to trial: images, weights, device. Torch, and no word of Optuna."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tlopt.data import load as data_load
from tlopt.data import store
from tlopt.data.records import Data, TestSplit
from tlopt.errors import SpecError
from tlopt.model.build import build, check_resolution, n_blocks
from tlopt.model.rates import usual_lr
from tlopt.model.weights import Weights, load_weights
from tlopt.point import Point, seed_for
from tlopt.search.limits import Limits
from tlopt.spec import Study
from tlopt.training.images import Images, resident
from tlopt.training.run import Run, prepare


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A study made ready on one device; `views` holds each resolution's images once they were wanted."""

    study: Study
    data: Data
    weights: Mapping[str, Weights]  # by backbone
    device: torch.device
    progress: bool
    views: dict[tuple[str, int], Images] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """How many classes there are to tell apart."""
        return len(self.data.class_names)

    @property
    def facts(self) -> dict[str, str]:
        """What every worker of the study has to share, by name."""
        digests = [self.weights[name].digest for name in sorted(self.weights)]
        return {"data": self.data.fingerprint, "weights": "+".join(digests)}

    @property
    def limits(self) -> Limits:
        """What the search space needs to know of the backbones."""
        return Limits(
            n_blocks={name: n_blocks(name) for name in self.weights},
            transferable=any(weights.state for weights in self.weights.values()),
            resolution={name: weights.resolution for name, weights in self.weights.items()},
            plain_lr={name: usual_lr(name) for name in self.weights},
        )


def devices() -> list[str]:
    """Names of the devices here, fastest kind first: CUDA GPUs, Apple's GPU, the CPU."""
    mps = torch.backends.mps.is_available()
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["mps"] * mps + ["cpu"]


def choose_device(wanted: str = "auto") -> torch.device:
    """The device called `wanted`, or the first of `devices` for "auto".

    Raises:
        SpecError: there is no such device here; lists those that there are.
    """
    name = {"auto": devices()[0], "cuda": "cuda:0"}.get(wanted, wanted)
    if name not in devices():
        raise SpecError(f"there is no device {wanted!r} here; there are {', '.join(devices())}")
    return torch.device(name)


def set_threads(n_threads: int) -> None:
    """Let torch use so many threads of this process; 0 leaves all cores to it."""
    torch.set_num_threads(n_threads or os.cpu_count() or 1)


def open_bench(study: Study, device: torch.device, *, progress: bool = False) -> Bench:
    """Images read and checked, weights loaded.

    Raises:
        DataError, WeightsError, SpecError: what cannot be used, and what to do.
    """
    weights = {name: load_weights(name, study.model.weights) for name in study.model.backbones}
    data = data_load.load(study.data, seed=study.seed, progress=progress)
    return Bench(study=study, data=data, weights=weights, device=device, progress=progress)


def images_for(bench: Bench, point: Point) -> Images:
    """The study's training and validation images as `point` sees them, decoded at most once."""
    check_resolution(bench.weights[point.backbone], point.resolution)
    key = (point.backbone, point.resolution)
    if key not in bench.views:
        bench.views[key] = _images(bench, bench.data, point)
    return bench.views[key]


def test_images(bench: Bench, test: TestSplit, point: Point) -> Images:
    """The held-out images as `point` sees them."""
    return _images(bench, test, point)


def start_run(bench: Bench, point: Point, *, seed: int, train: NDArray[np.int64]) -> Run:
    """A run of `point` at its start; the same seed gives the same bits.

    Args:
        seed: of fresh weights, batch order, views and dropout.
        train: indices of the training images, for class weights.
    """
    weights = bench.weights[point.backbone]
    network = build(point, n_classes=bench.n_classes, weights=weights, seed=seed_for(seed, "fresh"))
    return prepare(
        network,
        point,
        pretrained=weights.state,
        labels=bench.data.labels[train],
        seed=seed,
        device=bench.device,
        n_classes=bench.n_classes,
    )


def save_weights(run: Run, path: Path) -> None:
    """Write the network's tensors under the library's own names; whole or not at all."""
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in run.network.net.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(state, unfinished)
    unfinished.replace(path)


def _images(bench: Bench, source: Data | TestSplit, point: Point) -> Images:
    spec = bench.study.data
    size = store.store_size(point.resolution)
    pixels = store.pixels(source, size=size, resize=spec.resize, progress=bench.progress)
    weights = bench.weights[point.backbone]
    return Images(
        pixels=resident(pixels, bench.device),
        labels=source.labels,
        mean=weights.mean,
        std=weights.std,
        flip=spec.flip,
    )
