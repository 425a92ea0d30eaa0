"""The feature cache: outputs of frozen blocks, in files shared by workers and in part on the device.

Cached features equal computed ones bit for bit (see `frozen_prefix`), so the cache never changes a result. A
missing or damaged row is computed, possibly by several workers at once, and a full disk costs only time.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.cache.eviction import FolderLock
from tlopt.cache.folder import unwritable_message
from tlopt.cache.record_file import RecordFile
from tlopt.data.batches import CENTER_CROP, Images, View, moved
from tlopt.training.feature_cache_plan import CostModel, cheapest_start
from tlopt.training.frozen_prefix import CHUNK_IMAGES, FeatureFormat, FrozenPrefix, SplitPoint, forward_blocks

_RESIDENT_ROW_BYTES = 1 << 16  # on a CPU, training on wider rows takes far longer than reading them
_LOOK_AHEAD = 8 * CHUNK_IMAGES  # upcoming images searched for ones that fill up a chunk

Indices = NDArray[np.int64]


@dataclass
class CachedBlock:
    """One block's outputs for one view: rows in a file, optionally mirrored on the device."""

    feature_format: FeatureFormat
    n_rows: int
    file: RecordFile
    resident: Tensor | None
    known: NDArray[np.bool_]  # rows on the device, or if none are kept there, rows seen in the file

    def read(self, rows: Indices, device: torch.device) -> tuple[Tensor, NDArray[np.bool_]]:
        """Features (n, ...) of `rows`, and a mask of those available; the others are undefined."""
        if self.resident is not None and self.known[rows].all():
            return self.resident[moved(torch.from_numpy(rows), device)], np.ones(len(rows), dtype=bool)
        raw = np.empty((len(rows), self.feature_format.row_bytes), dtype=np.uint8)
        found = self.file.read(rows, raw)
        features = moved(self.feature_format.from_rows(raw), device)
        if self.resident is not None:
            held = ~found & self.known[rows]
            features[torch.from_numpy(held)] = self.resident[torch.from_numpy(rows[held])]
            self.resident[torch.from_numpy(rows[found])] = features[torch.from_numpy(found)]
            found |= held
        self.known[rows] |= found
        return features, found

    def write(self, rows: Indices, features: Tensor) -> None:
        """Store `features` of `rows`."""
        self.file.write(rows, self.feature_format.to_rows(features))
        if self.resident is not None:
            self.resident[torch.from_numpy(rows)] = features
        self.known[rows] = True

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device."""
        return 0 if self.resident is None else self.n_rows * self.feature_format.row_bytes


@dataclass(kw_only=True)
class FeatureStore:
    """Cached features of one set of images for one backbone, resolution and numerics.

    Args:
        folder: holds a folder per block with a file per view.
        images: the images whose features are cached.
        caches_training_views: whether training views are cached, besides the centre crops for validation.
        split_points: one per block.
        cached_blocks: blocks whose outputs are cached.
        cost_model: cost of computing and reading features on this machine.
        resident_bytes_max: upper bound for features on the device.
        allow_resident: whether features may be kept on the device.
    """

    folder: FolderLock
    images: Images
    caches_training_views: bool
    split_points: tuple[SplitPoint, ...]
    cached_blocks: frozenset[int]
    cost_model: CostModel
    resident_bytes_max: int
    allow_resident: bool = True
    _open: dict[tuple[int, str], CachedBlock] = field(default_factory=dict)

    def outputs(
        self, prefix: FrozenPrefix, view: View, indices: Indices, split_depth: int, upcoming: Indices
    ) -> Tensor:
        """Like `FrozenPrefix.outputs`, but read from the cache where possible.

        Args:
            upcoming: images needed next; computed along where a chunk has room for them.
        """
        available = (
            self.cached_blocks if view is CENTER_CROP or (view.name and self.caches_training_views) else ()
        )
        start = cheapest_start(split_depth, available, self.split_points, self.cost_model)
        if start == 0:
            return prefix.outputs(self.images, view, indices, split_depth)
        features = self._stored(prefix, view, indices, start, upcoming)
        return forward_blocks(prefix.network, features, start, split_depth, prefix.numerics)

    def _stored(
        self, prefix: FrozenPrefix, view: View, indices: Indices, block: int, upcoming: Indices
    ) -> Tensor:
        cached = self._cached_block(block, view, prefix.device)
        features, found = cached.read(indices, prefix.device)
        if found.all():
            return features
        absent = indices[~found]
        wanted = np.concatenate([absent, _chunk_fillers(cached, len(absent), upcoming, prefix.device)])
        computed = self._computed(prefix, view, wanted, block)
        cached.write(wanted, computed)
        features[torch.from_numpy(~found).to(prefix.device)] = computed[: len(absent)]
        return features

    def _computed(self, prefix: FrozenPrefix, view: View, indices: Indices, block: int) -> Tensor:
        """Compute outputs from an earlier cached block if it has all of them, else from the images."""
        earlier = {at for at in self.cached_blocks if at < block and os.path.exists(self._path(at, view))}
        start = cheapest_start(block, earlier, self.split_points, self.cost_model)
        if start:
            cached = self._cached_block(start, view, prefix.device)
            features, found = cached.read(indices, prefix.device)
            if found.all():
                return forward_blocks(prefix.network, features, start, block, prefix.numerics)
        return prefix.outputs(self.images, view, indices, block)

    def _path(self, block: int, view: View) -> Path:
        return self.folder.path / f"block{block:03d}" / f"{view.name}.rows"

    def _cached_block(self, block: int, view: View, device: torch.device) -> CachedBlock:
        if (found := self._open.get((block, view.name))) is not None:
            return found
        feature_format, n_rows = self.split_points[block - 1].feature_format, len(self.images.labels)
        made = CachedBlock(
            feature_format=feature_format,
            n_rows=n_rows,
            file=RecordFile(self._path(block, view), n_rows=n_rows, row_bytes=feature_format.row_bytes),
            resident=self._room(feature_format, n_rows, device),
            known=np.zeros(n_rows, dtype=bool),
        )
        self._open[block, view.name] = made
        return made

    def _room(self, feature_format: FeatureFormat, n_rows: int, device: torch.device) -> Tensor | None:
        if not self._may_reside(feature_format, n_rows * feature_format.row_bytes, device):
            return None
        try:
            with torch.inference_mode(False):  # may be filled during evaluation and read during training
                return feature_format.empty(n_rows, device)
        except torch.OutOfMemoryError:  # taken by another process meanwhile
            return None

    def _may_reside(self, feature_format: FeatureFormat, size: int, device: torch.device) -> bool:
        """Return whether `size` more bytes fit on the device; drops the earliest opened blocks from it."""
        too_wide = device.type == "cpu" and feature_format.row_bytes > _RESIDENT_ROW_BYTES
        if too_wide or not self.allow_resident or size > self.resident_bytes_max:
            return False
        for cached in self._open.values():
            if self.resident_bytes + size <= self.resident_bytes_max:
                break
            cached.resident, cached.known = None, np.zeros(cached.n_rows, dtype=bool)
        return True

    def close(self) -> None:
        """Free the memory and unlock the folder; the files stay."""
        self._open.clear()
        self.folder.close()

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device."""
        return sum(cached.resident_bytes for cached in self._open.values())

    def begin_trial(self, images: Images, *, allow_resident: bool) -> None:
        """Prepare for another trial, and retry writing where it has failed: there may be room by now.

        Args:
            images: the same images, possibly stored elsewhere now.
            allow_resident: whether features may be kept on the device from now on.
        """
        if allow_resident != self.allow_resident:
            self._open.clear()
        self.images, self.allow_resident = images, allow_resident
        for cached in self._open.values():
            cached.file.write_error = None

    @property
    def write_warnings(self) -> list[str]:
        """Reasons why rows are no longer written, one message per cause."""
        return sorted(
            {
                unwritable_message(cached.file.write_error)
                for cached in self._open.values()
                if cached.file.write_error
            }
        )


def _chunk_fillers(cached: CachedBlock, n: int, upcoming: Indices, device: torch.device) -> Indices:
    """Uncached images of `upcoming`, as many as fill up the last chunk of `n` images."""
    near = upcoming[:_LOOK_AHEAD]
    near = near[~cached.known[near]][: 2 * CHUNK_IMAGES]
    if n % CHUNK_IMAGES == 0 or not len(near):
        return near[:0]
    _, found = cached.read(near, device)  # another worker may have stored them
    return near[~found][: -n % CHUNK_IMAGES]
