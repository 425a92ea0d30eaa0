"""What a warm worker keeps from trial to trial: images, weights, device. Torch, and no word of Optuna."""

import gc
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlopt.cache.eviction import features_bytes_max
from tlopt.data import load as data_load
from tlopt.data.batches import Images, Resident, Source
from tlopt.data.dataset import Data
from tlopt.errors import SpecError
from tlopt.model.build import build, check_resolution, n_blocks
from tlopt.model.facts import Limits
from tlopt.model.rates import usual_lr
from tlopt.model.weights import Weights, load_weights
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import bounds
from tlopt.spec.point import Point, seed_for
from tlopt.system.cpus import n_cores
from tlopt.system.memory import keep_freed_memory
from tlopt.training.compiled import check_compiler
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run, prepare
from tlopt.trial.autotune import asked
from tlopt.trial.feature_policy import open_features


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A study made ready on one device.

    `views` holds pixels, by their size, for the resolution that was last wanted, `features` the outputs of
    frozen blocks for the backbone and resolution that were."""

    study: Study
    data: Data
    weights: Mapping[str, Weights]  # by backbone
    device: torch.device
    progress: bool
    views: dict[int, Source] = field(default_factory=dict)
    features: dict[tuple[str, int], FeatureStore | None] = field(default_factory=dict)
    numerics: dict[str, Numerics] = field(default_factory=dict)  # by backbone, as far as the study has chosen

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
    def images_words(self) -> str:
        """What there is to learn from."""
        data, split = self.data, self.data.splits[0]
        splits = f", {len(data.splits)} splits" if len(data.splits) > 1 else ""
        return (
            f"{self.study.data.source}: {len(split.train)} to train, {len(split.val)} for validation{splits},"
            f" {data.n_test} locked away, {self.n_classes} classes"
        )

    def on(self, device: torch.device) -> "Bench":
        """The same study made ready on another device."""
        return replace(self, device=device, views={}, features={})

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
    """Names of the devices here, in the order of preference: CUDA GPUs, the CPU, Apple's GPU.

    Apple's GPU comes last, to be asked for by name, for as long as nobody has measured it.
    """
    mps = torch.backends.mps.is_available()
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cpu"] + ["mps"] * mps


def choose_device(wanted: str = "auto") -> torch.device:
    """The device called `wanted`, or the first of `devices` for "auto".

    Raises:
        SpecError: there is no such device here; lists those that there are.
    """
    name = {"auto": devices()[0], "cuda": "cuda:0"}.get(wanted, wanted)
    if name not in devices():
        raise SpecError(f"there is no device {wanted!r} here; there are {', '.join(devices())}")
    return torch.device(name)


def settle_process(n_threads: int) -> None:
    """Let torch use so many threads of this process, 0 for all cores, and memory stay from step to step.

    With TLOPT_DETERMINISTIC=1 torch takes deterministic kernels alone, which GPUs need for equal bits.
    """
    torch.set_num_threads(n_threads or n_cores())
    keep_freed_memory()
    if os.environ.get("TLOPT_DETERMINISTIC") == "1":
        torch.use_deterministic_algorithms(True)


def open_bench(study: Study, device: torch.device, *, progress: bool = False) -> Bench:
    """Images read and checked, weights loaded.

    Raises:
        DataError, WeightsError, SpecError: what cannot be used, and what to do.
    """
    features_bytes_max()  # a setting that is wrong is said now and not in every trial
    if study.model.compile:
        check_compiler(device)
    weights = {name: load_weights(name, study.model.weights) for name in study.model.backbones}
    data = data_load.load(study.data, seed=study.seed, progress=progress)
    return Bench(study=study, data=data, weights=weights, device=device, progress=progress)


def check_resolutions(bench: Bench) -> None:
    """Check every resolution that the study may draw against every backbone's weights.

    Raises:
        SpecError: a network does not take one; says what it takes.
    """
    wanted = bench.study.search.get("resolution")
    if wanted is None or isinstance(wanted, PerOptimizer):
        return
    for resolution in bounds(wanted):
        for weights in bench.weights.values():
            check_resolution(weights, int(resolution))


def start_run(bench: Bench, point: Point, *, seed: int, train: NDArray[np.int64], n_micro: int = 1) -> Run:
    """A run of `point` at its start; the same seed gives the same bits.

    Args:
        seed: of fresh weights, batch order, views and dropout.
        train: indices of the training images, for class weights.
        n_micro: pieces at most in which a batch goes through the network.
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
        n_micro=n_micro,
        numerics=bench.numerics.get(point.backbone) or asked(bench.study, network, bench.device),
        compiles=bench.study.model.compile,
    )


def make_way(bench: Bench, point: Point) -> None:
    """Let go of features that are of no use to `point`, before anything is put in their place."""
    for key, store in list(bench.features.items()):
        # a store that does not stand: somebody has deleted the cache
        if key != (point.backbone, point.resolution) or (store is not None and not store.held.stands):
            _forget(bench, key)


def leave_device(bench: Bench) -> bool:
    """Let go of images and features on the device; whether there were any."""
    stores = [store for store in bench.features.values() if store is not None]
    residents = {size: source for size, source in bench.views.items() if isinstance(source, Resident)}
    any_there = bool(residents) or any(store.resident_bytes for store in stores)
    bench.views.update({size: source.others for size, source in residents.items()})
    for key in list(bench.features):
        _forget(bench, key)
    return any_there


def _forget(bench: Bench, key: tuple[str, int]) -> None:
    store = bench.features.pop(key)
    if store is not None:
        store.close()


def features_for(bench: Bench, run: Run, images: Images, *, resides: bool = True) -> FeatureStore | None:
    """What is kept of frozen blocks for the backbone and resolution of `run`.

    Args:
        run: at its start.
        images: as `images_for` gave them for its point.
        resides: whether features may lie on the device.
    """
    key = (run.point.backbone, run.point.resolution)
    if key not in bench.features:
        digest = bench.weights[run.point.backbone].digest
        bench.features[key] = open_features(bench.study, bench.data, digest, run, images, resides=resides)
    known = bench.features[key]
    if known is not None:
        known.go_on(images, resides=resides)
    return known


def save_weights(bench: Bench, run: Run, path: Path) -> None:
    """Write the network's tensors under the library's own names; whole or not at all."""
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in run.network.net.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(state, unfinished, metadata={_MADE_BY: identity(bench, run.point, (run.seed,))})
    unfinished.replace(path)


def load_trained(bench: Bench, run: Run, path: Path) -> bool:
    """Give `run` the tensors in `path` if they are this very run's, trained; returns whether they are."""
    if not path.is_file():
        return False
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get(_MADE_BY) != identity(bench, run.point, (run.seed,)):
            return False
    run.network.net.load_state_dict(load_file(path))
    return True


def release_memory(device: torch.device) -> None:
    """Give back what a trial that ended early has left on the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


_MADE_BY = "tlopt:run"


def identity(bench: Bench, point: Point, seeds: Sequence[int]) -> str:
    """What decides the result of a point: its values, the seeds, the images, the pretrained weights."""
    numerics = bench.numerics.get(point.backbone, (bench.study.model.precision, bench.study.model.layout))
    seen = {"views": bench.study.data.views, "numerics": str(numerics)}
    if bench.study.model.compile:
        seen["compile"] = True
    what = {"point": point.as_dict(), "seeds": list(seeds), **seen, **bench.facts}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
