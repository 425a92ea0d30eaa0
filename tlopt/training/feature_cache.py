"""The feature cache: outputs of frozen blocks, on the device where they are few, in files that workers share.

What is cached is what would be computed, bit for bit (see `frozen_prefix`), so that nothing here changes a
trial: a row that is missing or damaged is computed, whoever else may be at it, and a full disk costs time
only.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.cache.eviction import FolderLock
from tlopt.cache.folder import unwritable
from tlopt.cache.record_file import RecordFile
from tlopt.data.batches import CENTER_CROP, Images, View, moved
from tlopt.training.feature_cache_plan import CostModel, best_start
from tlopt.training.frozen_prefix import CHUNK, Form, Frozen, SplitPoint, advance

_RESIDENT_ROW_BYTES = 1 << 16  # on a CPU wider rows take far longer to train on than to read
_LOOK_AHEAD = 8 * CHUNK  # images that are looked through for company

Indices = NDArray[np.int64]


@dataclass
class CachedBlock:
    """One block's outputs for one view: rows in a file, and perhaps on the device."""

    form: Form
    n_rows: int
    file: RecordFile
    resident: Tensor | None
    there: NDArray[np.bool_]  # rows that are resident; without residence, those once seen in the file

    def read(self, rows: Indices, device: torch.device) -> tuple[Tensor, NDArray[np.bool_]]:
        """Features (n, ...) of `rows`, and which of them are known; the others are undefined."""
        if self.resident is not None and self.there[rows].all():
            return self.resident[moved(torch.from_numpy(rows), device)], np.ones(len(rows), dtype=bool)
        raw = np.empty((len(rows), self.form.row_bytes), dtype=np.uint8)
        found = self.file.read(rows, raw)
        features = moved(self.form.from_rows(raw), device)
        if self.resident is not None:
            held = ~found & self.there[rows]
            features[torch.from_numpy(held)] = self.resident[torch.from_numpy(rows[held])]
            self.resident[torch.from_numpy(rows[found])] = features[torch.from_numpy(found)]
            found |= held
        self.there[rows] |= found
        return features, found

    def write(self, rows: Indices, features: Tensor) -> None:
        """Keep `features` of `rows`."""
        self.file.write(rows, self.form.to_rows(features))
        if self.resident is not None:
            self.resident[torch.from_numpy(rows)] = features
        self.there[rows] = True

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device."""
        return 0 if self.resident is None else self.n_rows * self.form.row_bytes


@dataclass(kw_only=True)
class FeatureStore:
    """The kept features of one set of images under one backbone, resolution and numerics.

    Args:
        folder: has a folder for each block, with a file for each view.
        images: whose features they are.
        keeps_training: whether views of training are kept, beside the middle that validation sees.
        cuts: of all blocks.
        kept: blocks whose outputs are kept.
        rates: of this machine.
        resident_bytes_max: for what is kept on the device.
        resides: whether anything may be there.
    """

    folder: FolderLock
    images: Images
    keeps_training: bool
    cuts: tuple[SplitPoint, ...]
    kept: frozenset[int]
    rates: CostModel
    resident_bytes_max: int
    resides: bool = True
    _open: dict[tuple[int, str], CachedBlock] = field(default_factory=dict)

    def outputs(self, frozen: Frozen, view: View, indices: Indices, cut: int, upcoming: Indices) -> Tensor:
        """As `Frozen.outputs`, from what is kept where it is.

        Args:
            upcoming: images that will be wanted next; computed as well where a chunk has room for them.
        """
        kept = self.kept if view is CENTER_CROP or (view.name and self.keeps_training) else ()
        start = best_start(cut, kept, self.cuts, self.rates)
        if start == 0:
            return frozen.outputs(self.images, view, indices, cut)
        features = self._stored(frozen, view, indices, start, upcoming)
        return advance(frozen.network, features, start, cut, frozen.numerics)

    def _stored(self, frozen: Frozen, view: View, indices: Indices, block: int, upcoming: Indices) -> Tensor:
        kept = self._kept(block, view, frozen.device)
        features, found = kept.read(indices, frozen.device)
        if found.all():
            return features
        absent = indices[~found]
        wanted = np.concatenate([absent, _company(kept, len(absent), upcoming, frozen.device)])
        computed = self._computed(frozen, view, wanted, block)
        kept.write(wanted, computed)
        features[torch.from_numpy(~found).to(frozen.device)] = computed[: len(absent)]
        return features

    def _computed(self, frozen: Frozen, view: View, indices: Indices, block: int) -> Tensor:
        """From the nearest earlier block's kept outputs where all are there, else from the images."""
        earlier = {at for at in self.kept if at < block and os.path.exists(self._path(at, view))}
        start = best_start(block, earlier, self.cuts, self.rates)
        if start:
            kept = self._kept(start, view, frozen.device)
            features, found = kept.read(indices, frozen.device)
            if found.all():
                return advance(frozen.network, features, start, block, frozen.numerics)
        return frozen.outputs(self.images, view, indices, block)

    def _path(self, block: int, view: View) -> Path:
        return self.folder.path / f"block{block:03d}" / f"{view.name}.rows"

    def _kept(self, block: int, view: View, device: torch.device) -> CachedBlock:
        if (found := self._open.get((block, view.name))) is not None:
            return found
        form, n_rows = self.cuts[block - 1].form, len(self.images.labels)
        made = CachedBlock(
            form=form,
            n_rows=n_rows,
            file=RecordFile(self._path(block, view), n_rows=n_rows, row_bytes=form.row_bytes),
            resident=self._room(form, n_rows, device),
            there=np.zeros(n_rows, dtype=bool),
        )
        self._open[block, view.name] = made
        return made

    def _room(self, form: Form, n_rows: int, device: torch.device) -> Tensor | None:
        if not self._may_reside(form, n_rows * form.row_bytes, device):
            return None
        try:
            with torch.inference_mode(False):  # filled while evaluating or not, it is read by training
                return form.empty(n_rows, device)
        except torch.OutOfMemoryError:  # somebody else has taken it meanwhile
            return None

    def _may_reside(self, form: Form, size: int, device: torch.device) -> bool:
        """Whether `size` more bytes fit on the device; makes room by giving up what was opened first."""
        too_wide = device.type == "cpu" and form.row_bytes > _RESIDENT_ROW_BYTES
        if too_wide or not self.resides or size > self.resident_bytes_max:
            return False
        for kept in self._open.values():
            if self.resident_bytes + size <= self.resident_bytes_max:
                break
            kept.resident, kept.there = None, np.zeros(kept.n_rows, dtype=bool)
        return True

    def close(self) -> None:
        """Let go of memory and folder; what is in the files stays."""
        self._open.clear()
        self.folder.close()

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device."""
        return sum(kept.resident_bytes for kept in self._open.values())

    def go_on(self, images: Images, *, resides: bool) -> None:
        """Begin another trial: write again where that has failed, for there may be room by now.

        Args:
            images: the same ones, wherever they lie now.
            resides: whether anything may be on the device from now on.
        """
        if resides != self.resides:
            self._open.clear()
        self.images, self.resides = images, resides
        for kept in self._open.values():
            kept.file.full = None

    @property
    def complaints(self) -> list[str]:
        """Why rows are not written any more, a line for each cause."""
        return sorted({unwritable(kept.file.full) for kept in self._open.values() if kept.file.full})


def _company(kept: CachedBlock, n: int, upcoming: Indices, device: torch.device) -> Indices:
    """Those of `upcoming` that nobody has computed, as many as fill up the chunks of `n` images."""
    near = upcoming[:_LOOK_AHEAD]
    near = near[~kept.there[near]][: 2 * CHUNK]
    if n % CHUNK == 0 or not len(near):
        return near[:0]
    _, found = kept.read(near, device)  # another worker may have been at them
    return near[~found][: -n % CHUNK]
