"""`Workspace`: the images, weights and caches that a worker keeps between trials."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from tlopt.cache.eviction import features_bytes_max
from tlopt.data import load as data_load
from tlopt.data.batches import Images
from tlopt.data.dataset import Data, TestSplit
from tlopt.data.training_set import training_set
from tlopt.errors import SpecError, Unwritable
from tlopt.model.build import build, check_resolution, n_blocks, untrained_network
from tlopt.model.facts import BackboneFacts
from tlopt.model.rates import has_batch_norm, usual_lr
from tlopt.model.weights import Weights, load_weights
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import Fixed, Int, bounds
from tlopt.spec.objectives import excess_words
from tlopt.spec.point import Point, seed_for
from tlopt.system.atomic import write_atomically
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.kernels import check_compiler
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run, prepare_run
from tlopt.trial.autotune import numerics_of_study
from tlopt.trial.feature_policy import open_feature_store
from tlopt.trial.images import PixelStores
from tlopt.trial.inference_cost import CostMeter

_MADE_BY = "tlopt:run"


@dataclass(kw_only=True, eq=False)
class Workspace:
    """A study prepared on one device: images and weights, with caches kept between trials."""

    study: Study
    data: Data
    weights: Mapping[str, Weights]  # by backbone
    device: torch.device
    progress: bool  # whether long steps show a progress bar on stderr
    numerics: dict[str, Numerics] = field(default_factory=dict)  # by backbone; empty until chosen
    _pixels: PixelStores = field(init=False)
    _feature_stores: dict[tuple[str, int], FeatureStore | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._pixels = PixelStores(self.study, self.data, self.device, progress=self.progress)

    @classmethod
    def open(cls, study: Study, device: torch.device, *, progress: bool = False) -> "Workspace":
        """Load and check the study's images and weights.

        Raises:
            DataError, WeightsError, SpecError: something cannot be used; the message gives the cure.
        """
        features_bytes_max()  # report a wrong setting now, not in every trial
        if study.model.compile:
            check_compiler(device)
        weights = {name: load_weights(name, study.model.weights) for name in study.model.backbones}
        data = data_load.load_data(study.data, seed=study.seed, progress=progress)
        return cls(study=study, data=data, weights=weights, device=device, progress=progress)

    def as_split_by_file_copies(self, fingerprint: str) -> "Workspace":
        """The study with its images split as in earlier versions, if that gives `fingerprint`; else itself.

        Earlier versions recognised copies by equal bytes only, not by equal pixels.
        """
        keys = self.study.data.model_copy(update={"copies": "files"})
        data = data_load.load_data(keys, seed=self.study.seed)
        if data.fingerprint != fingerprint:
            return self
        return replace(self, study=self.study.model_copy(update={"data": keys}), data=data)

    def on_device(self, device: torch.device) -> "Workspace":
        """The same study on another device, sharing its chosen numerics."""
        return replace(self, device=device)

    def use_numerics(self, numerics: Mapping[str, str]) -> None:
        """Use the numerics stored with the study, by backbone."""
        self.numerics.update({name: Numerics.parse(text) for name, text in numerics.items()})

    # What the study is

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.data.class_names)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests that must be equal for all workers of the study, by name."""
        digests = [self.weights[name].digest for name in sorted(self.weights)]
        return {"data": self.data.fingerprint, "weights": "+".join(digests)}

    @property
    def images_summary(self) -> str:
        """One-line summary of the images for people."""
        data, split = self.data, self.data.splits[0]
        splits = f", {data.n_trial_splits} splits" if data.n_trial_splits > 1 else ""
        return (
            f"{self.study.data.source}: {len(split.train)} to train, {len(split.val)} for validation{splits},"
            f" {data.n_test} held out for the test, {self.n_classes} classes"
        )

    @property
    def facts(self) -> BackboneFacts:
        """Facts about the backbones that the search space needs."""
        return BackboneFacts(
            n_blocks={name: n_blocks(name) for name in self.weights},
            transferable=any(weights.state for weights in self.weights.values()),
            resolution={name: weights.resolution for name, weights in self.weights.items()},
            batch_norm={name: has_batch_norm(name) for name in self.weights},
            plain_lr={name: usual_lr(name) for name in self.weights},
        )

    def identity(self, point: Point, seeds: Sequence[int]) -> str:
        """Digest of all that determines a point's result: values, seeds, images, pretrained weights."""
        numerics = self.numerics.get(point.backbone, (self.study.model.precision, self.study.model.layout))
        seen = {"views": self.study.data.views, "numerics": str(numerics)}
        if self.study.model.compile:
            seen["compile"] = True
        what = {"point": point.as_dict(), "seeds": list(seeds), **seen, **self.fingerprints}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _cost_meter(self) -> CostMeter:
        return CostMeter(weights=self.weights, n_classes=self.n_classes, device=self.device)

    def inference_cost(self, point: Point) -> dict[str, float]:
        """What the network of `point` costs in use, by name as in `[constraints]`.

        Latency is measured only where the study limits it or searches for it; known after the first call for
        a network of the same structure.
        """
        return self._cost_meter.measure(point, with_latency="latency_ms" in self.study.cost_names)

    def counted_cost(self, point: Point) -> dict[str, float]:
        """Parameters, multiply-adds and bytes of the network of `point`; its latency is not measured."""
        return self._cost_meter.measure(point, with_latency=False)

    def broken_limits(self, point: Point) -> str:
        """The limits of `[constraints]` that the network of `point` breaks, in words; "" if it keeps all."""
        limits = self.study.constraints.limits
        return excess_words(limits, self.inference_cost(point)) if limits else ""

    def check_resolutions(self) -> None:
        """Check every resolution of the search space against every backbone.

        Raises:
            SpecError: a network does not support one; the message says what it supports.
        """
        wanted = self.study.search.get("resolution")
        if wanted is None or isinstance(wanted, PerOptimizer):
            return
        for weights in self.weights.values():
            for resolution in bounds(wanted):
                check_resolution(weights, int(resolution))
            if isinstance(wanted, Int) and weights.resolution_step > 1:
                raise SpecError(
                    f"search.resolution: {weights.backbone} takes multiples of {weights.resolution_step}"
                    " pixels, which a range cannot say; list some: { choice = [...] }"
                )

    def check_train_images(self) -> None:
        """Check every number of training images of the search against every split.

        Raises:
            SpecError: a split has fewer, or there would be fewer than classes; says what is allowed.
        """
        wanted = self.study.search.get("train_images", Fixed(0))
        assert not isinstance(wanted, PerOptimizer), "train_images has one range"
        most = min(len(split.train) for split in self.data.splits)
        for n in map(int, bounds(wanted)):
            if n and not self.n_classes <= n <= most:
                raise SpecError(
                    f"search.train_images: {n} is not allowed: 0 for all, or {self.n_classes} (one of each"
                    f" class) to {most} (the training images of a split)"
                )

    # Images and features

    def images(self, point: Point, *, allow_resident: bool = True) -> Images:
        """Training and validation images for the backbone and resolution of `point`.

        Args:
            allow_resident: whether they may be kept on a GPU.

        Raises:
            DataError: an image has changed or disappeared since it was first read.
            SpecError: the network does not support the resolution.
        """
        weights = self.weights[point.backbone]
        check_resolution(weights, point.resolution)
        return self._pixels.images(point.resolution, weights, allow_resident=allow_resident)

    def test_images(self, test: TestSplit, point: Point) -> Images:
        """Test images for `point`."""
        return self._pixels.test_images(test, point.resolution, self.weights[point.backbone])

    def decode_images(self) -> None:
        """Decode the images now if there is only one resolution, so that no trial has to wait for it."""
        wanted = self.study.search.get("resolution")
        if wanted is None:
            self._pixels.decode({weights.resolution for weights in self.weights.values()})
        elif isinstance(wanted, Fixed):
            self._pixels.decode({int(wanted.value)})

    def feature_store(self, run: Run, images: Images, *, allow_resident: bool = True) -> FeatureStore | None:
        """The feature cache for the backbone and resolution of `run`, or None.

        Args:
            run: a run at its start.
            images: as returned by `images` for its point.
            allow_resident: whether features may be kept on the device.
        """
        key = (run.point.backbone, run.point.resolution)
        if key not in self._feature_stores:
            digest = self.weights[run.point.backbone].digest
            self._feature_stores[key] = open_feature_store(
                self.study,
                self.data,
                digest,
                self._with_all_blocks(run),
                images,
                allow_resident=allow_resident,
            )
        store = self._feature_stores[key]
        if store is not None:
            store.begin_trial(images, allow_resident=allow_resident)
        return store

    def _with_all_blocks(self, run: Run) -> Run:
        """`run` with an untrained network of all blocks of its backbone, if it has fewer."""
        if not run.point.is_shortened:
            return run
        network = untrained_network(self.weights[run.point.backbone], run.point.resolution, seed=0)
        network.to(run.device).to(memory_format=run.numerics.memory_format)
        return replace(run, network=network)

    @property
    def feature_stores(self) -> tuple[FeatureStore, ...]:
        """The open feature caches."""
        return tuple(store for store in self._feature_stores.values() if store is not None)

    @property
    def pixel_sizes(self) -> set[int]:
        """Sizes of the open stores of decoded images, in pixels per side."""
        return self._pixels.sizes

    def close_other_feature_stores(self, point: Point) -> None:
        """Close feature caches that `point` cannot use, to free their memory."""
        for key, store in list(self._feature_stores.items()):
            # no longer valid: somebody has deleted the cache
            if key != (point.backbone, point.resolution) or (store is not None and not store.folder.is_valid):
                self._close_feature_store(key)

    def free_device_memory(self) -> bool:
        """Remove images and features from the device; return whether there were any."""
        had_features = any(store.resident_bytes for store in self.feature_stores)
        had_images = self._pixels.free_device_memory()
        for key in list(self._feature_stores):
            self._close_feature_store(key)
        return had_features or had_images

    def _close_feature_store(self, key: tuple[str, int]) -> None:
        store = self._feature_stores.pop(key)
        if store is not None:
            store.close()

    # Runs

    def start_run(
        self, point: Point, *, seed: int, train: NDArray[np.int64], n_micro_batches: int = 1
    ) -> Run:
        """Start a run of `point`; the same seed gives bitwise identical results.

        Args:
            seed: seed of fresh weights, batch order, views and dropout.
            train: indices of the split's training images, for class weights.
            n_micro_batches: maximum number of micro-batches per batch.
        """
        weights = self.weights[point.backbone]
        labels, n_classes = self.data.labels, self.n_classes
        trained = training_set(train, labels, point, seed=seed, n_classes=n_classes)
        network = build(point, n_classes=self.n_classes, weights=weights, seed=seed_for(seed, "fresh"))
        return prepare_run(
            network,
            point,
            pretrained=weights.state,
            labels=trained.labels[trained.indices],
            seed=seed,
            device=self.device,
            n_classes=n_classes,
            n_micro_batches=n_micro_batches,
            numerics=self.numerics.get(point.backbone) or numerics_of_study(self.study, network, self.device),
            compiles=self.study.model.compile,
        )

    def save_weights(self, run: Run, path: Path) -> None:
        """Write the network's tensors atomically, under the library's own names.

        Raises:
            Unwritable: the disk is full, or the folder may not be written to.
        """
        save_tensors(run.network.net.state_dict(), path, made_by=self.identity(run.point, (run.seed,)))

    def load_trained(self, run: Run, path: Path) -> bool:
        """Load the trained tensors in `path` if they are from this run; return whether they are."""
        if not path.is_file():
            return False
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_MADE_BY) != self.identity(run.point, (run.seed,)):
                return False
        run.network.net.load_state_dict(load_file(path))
        return True


def save_tensors(state: Mapping[str, Tensor], path: Path, *, made_by: str) -> None:
    """Write tensors atomically, with what they were made by.

    Raises:
        Unwritable: the disk is full, or the folder may not be written to.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # not by safetensors.torch.save_file, whose files are their owner's alone, whatever the umask is
        write_atomically(path, save(tensors, metadata={_MADE_BY: made_by}))
    except OSError as error:
        why = error.strerror or error
        raise Unwritable(
            f"{path} cannot be written ({why}): free disk space there, or choose another folder with --runs"
        ) from error
