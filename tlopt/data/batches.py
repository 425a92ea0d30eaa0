"""Batches of decoded images on a device, gathered by index."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.data.pixels import Pixels
from tlopt.data.views import epoch_draws, eval_views, training_views
from tlopt.spec.point import Point, seed_for

RESIDENT_SHARE = 0.25  # of free GPU memory, for each of two image sizes; the network needs the rest
_MOVED_BYTES = 1 << 26  # of pixels per copy to a device


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Pixels with some of the images in device memory."""

    pixels: Tensor  # uint8 (n, S, S, 3)
    rows: NDArray[np.int64]  # (N,), index into `pixels` of each image, -1 if it is not on the device
    others: Pixels


PixelSource = NDArray[np.uint8] | Pixels | Resident


@dataclass(frozen=True, kw_only=True)
class Images:
    """Decoded images of one data set.

    Training crops come from `training_pixels`, uint8 (N, S, S, 3). `eval_pixels` are center-cropped for
    validation and for training without augmentation. `labels` are int64 (N,). With `n_views` above 0, each
    epoch uses one of that many views, drawn from `views_seed` and shared by all runs; with 0, each run draws
    its own views and uses them once.
    """

    training_pixels: PixelSource
    eval_pixels: PixelSource
    labels: NDArray[np.int64]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    n_views: int = 0
    views_seed: int = 0
    # (N,), equal for images that stay on one side of every split; None: all differ
    units: NDArray[np.int64] | None = None

    def training_view(self, epoch: int, point: Point, seed: int) -> "View":
        """The view of each image in `epoch` of a run of `point` with `seed`."""
        if point.augmentation == 0 and not self.flip:
            return CENTER_CROP
        if self.n_views == 0:
            return View("", epoch_draws(seed_for(seed, "views"), epoch, len(self.labels)))
        which = epoch % self.n_views
        flip = "-flip" if self.flip else ""
        name = f"view{which}-of-{self.views_seed:016x}-{point.augmentation:g}{flip}"
        return View(name, epoch_draws(self.views_seed, which, len(self.labels)))

    def views_of(
        self, indices: NDArray[np.int64], view: "View", point: Point, device: torch.device
    ) -> Tensor:
        """`view` of the images at `indices`: float32 (n, 3, resolution, resolution) on `device`."""
        if view.draws is None:
            pixels = gather_pixels(self.eval_pixels, indices, device)
            return eval_views(pixels, resolution=point.resolution, mean=self.mean, std=self.std)
        return training_views(
            gather_pixels(self.training_pixels if point.augmentation else self.eval_pixels, indices, device),
            resolution=point.resolution,
            strength=point.augmentation,
            flip=self.flip,
            mean=self.mean,
            std=self.std,
            draws=moved(view.draws[torch.from_numpy(indices)], device),
        )


@dataclass(frozen=True)
class View:
    """One view of every image: a random crop with random colours, or the center crop."""

    name: str  # equal names mean equal pixels; "" if used only once
    draws: Tensor | None  # (N, DRAWS) rows of `epoch_draws`; None for the center crop


CENTER_CROP = View("center", None)


def gather_pixels(source: PixelSource, indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """The images at `indices`: uint8 (n, S, S, 3) on `device`."""
    if isinstance(source, Resident):
        rows = source.rows[indices]
        if (rows >= 0).all():
            return source.pixels[moved(torch.from_numpy(rows), source.pixels.device)]
        source = source.others
    return moved(torch.from_numpy(source[indices]), device)


def resident(pixels: Pixels, wanted: NDArray[np.int64], device: torch.device) -> Pixels | Resident:
    """`pixels` with the images at `wanted` in GPU memory if there is enough, else unchanged."""
    if device.type != "cuda":
        return pixels
    if len(wanted) * pixels.image_bytes > RESIDENT_SHARE * gpu_bytes_free(device):
        return pixels
    try:
        return put(pixels, wanted, device)
    except torch.OutOfMemoryError:  # another process took the memory meanwhile
        return pixels


def put(pixels: Pixels, wanted: NDArray[np.int64], device: torch.device) -> Resident:
    """`pixels` with the images at `wanted` on `device`."""
    rows = np.full(len(pixels), -1, dtype=np.int64)
    rows[wanted] = np.arange(len(wanted))
    there = torch.empty((len(wanted), *pixels.shape[1:]), dtype=torch.uint8, device=device)
    n_together = max(1, _MOVED_BYTES // math.prod(pixels.shape[1:]))  # bounds the memory of the host
    for at in range(0, len(wanted), n_together):
        there[at : at + n_together] = torch.from_numpy(pixels[wanted[at : at + n_together]])
    return Resident(pixels=there, rows=rows, others=pixels)


def gpu_bytes_free(device: torch.device) -> int:
    """Bytes of GPU memory that this process can still allocate, including what its allocator has reserved."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU `tensor` on `device`, copied to a GPU asynchronously from pinned memory."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def batches(order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Split `order` into batches of `batch_size`; a last batch of one image is merged into the one before it.

    Batch-norm cannot be trained on a single image.
    """
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        end = starts[i + 1] if i + 1 < len(starts) else len(order)
        yield order[start:end]


def n_batches(n_images: int, batch_size: int) -> int:
    """Number of batches that `batches` yields, for a batch size of at least two."""
    return math.ceil((n_images - 1) / batch_size) if n_images > 1 else n_images
