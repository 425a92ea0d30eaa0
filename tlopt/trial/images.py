"""A study's images at the sizes that its trials need, decoded at most once."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt.data import pixels
from tlopt.data.batches import Images, PixelSource, Resident, resident
from tlopt.data.dataset import Data, TestSplit
from tlopt.data.decode import Reading
from tlopt.model.weights import Weights
from tlopt.search.repeated_views import dimension_of, trains_uncropped
from tlopt.spec import Study
from tlopt.spec.dimensions import bounds
from tlopt.spec.point import seed_for


class PixelStores:
    """Decoded images by size, for one resolution at a time, so that a searched one does not fill the memory.

    Args:
        device: device on which pixels may be kept if there is room.
        progress: whether to show a progress bar on stderr while decoding.
    """

    def __init__(self, study: Study, data: Data, device: torch.device, *, progress: bool) -> None:
        self._study, self._data, self._device, self._progress = study, data, device, progress
        self._stores: dict[int, PixelSource] = {}

    def images(self, resolution: int, weights: Weights, *, allow_resident: bool) -> Images:
        """Training and validation images for a network with `weights` at `resolution`.

        Args:
            allow_resident: whether they may be kept on a GPU.

        Raises:
            DataError: an image has changed or disappeared since `load_data`.
        """
        wanted = self._indices_by_size(resolution)
        for other in set(self._stores).difference(wanted):
            del self._stores[other]
        for size, which in wanted.items():
            store = self._stores[size] if size in self._stores else self._open(size, which)
            self._stores[size] = self._placed(store, which, allow_resident=allow_resident)
        eval_pixels, *crops = (self._stores[size] for size in wanted)
        return self._images_of(self._data, eval_pixels, crops[0] if crops else eval_pixels, weights)

    def test_images(self, test: TestSplit, resolution: int, weights: Weights) -> Images:
        """Test images for a network with `weights` at `resolution`."""
        size = pixels.eval_size(resolution)
        store = pixels.pixels(test, size=size, reading=Reading.of(self._study.data), progress=self._progress)
        return self._images_of(test, store, store, weights)

    def decode(self, resolutions: Iterable[int]) -> None:
        """Decode the images for these resolutions now, so that no trial has to wait for it."""
        for resolution in resolutions:
            for size, which in self._indices_by_size(resolution).items():
                self._open(size, which)

    @property
    def sizes(self) -> set[int]:
        """Sizes of the open stores, in pixels per side."""
        return set(self._stores)

    def free_device_memory(self) -> bool:
        """Remove the pixels from the device; return whether there were any."""
        residents = {size: store for size, store in self._stores.items() if isinstance(store, Resident)}
        self._stores.update({size: store.others for size, store in residents.items()})
        return bool(residents)

    def _indices_by_size(self, resolution: int) -> dict[int, NDArray[np.int64]]:
        """Indices of the images needed, by size: the evaluation size, then that of training crops, if any."""
        everything = np.arange(len(self._data.images))
        uncropped = everything if trains_uncropped(self._study) else self._data.ever_val
        crops_any = any(bounds(dimension_of(self._study, "augmentation")))
        crops = {pixels.training_size(resolution): self._data.ever_train} if crops_any else {}
        return {pixels.eval_size(resolution): uncropped} | crops

    def _open(self, size: int, wanted: NDArray[np.int64]) -> pixels.Pixels:
        return pixels.pixels(
            self._data,
            size=size,
            reading=Reading.of(self._study.data),
            wanted=wanted,
            progress=self._progress,
        )

    def _placed(self, store: PixelSource, wanted: NDArray[np.int64], *, allow_resident: bool) -> PixelSource:
        """`store`, moved to the GPU if allowed and there is room, or off it."""
        match store:
            case Resident():
                return store if allow_resident else store.others
            case pixels.Pixels():
                store.resume_writing()
                return resident(store, wanted, self._device) if allow_resident else store
            case _:
                return store

    def _images_of(
        self,
        source: Data | TestSplit,
        eval_pixels: PixelSource,
        training_pixels: PixelSource,
        weights: Weights,
    ) -> Images:
        return Images(
            training_pixels=training_pixels,
            eval_pixels=eval_pixels,
            labels=source.labels,
            mean=weights.mean,
            std=weights.std,
            flip=self._study.data.flip,
            n_views=self._study.data.views,
            views_seed=seed_for(self._study.seed, "views"),
            units=np.unique([image.unit for image in source.images], return_inverse=True)[1].astype(np.int64),
        )
