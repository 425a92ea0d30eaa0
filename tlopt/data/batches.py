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

RESIDENT_SHARE = 0.25  # of the GPU's free memory, for each of two image sizes; the network needs the rest
_MOVED_BYTES = 1 << 26  # of pixels copied to a device at a time


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Pixels of which some images lie on a device, the others where they were read from."""

    pixels: Tensor  # uint8 (n, S, S, 3)
    places: NDArray[np.int64]  # (N,), index into `pixels` of each image; -1: it is not there
    others: Pixels


Source = NDArray[np.uint8] | Pixels | Resident


@dataclass(frozen=True, kw_only=True)
class Images:
    """Decoded images of one data set.

    Training crops are cut from `training_pixels`, uint8 (N, S, S, 3). `eval_pixels` are center-cropped for
    validation, and for training without augmentation. `labels` are int64 (N,). With `n_views` above 0, each
    epoch uses one of that many views, drawn from `views_seed` and shared by all runs; with 0, each run draws
    views of its own, used once.
    """

    training_pixels: Source
    eval_pixels: Source
    labels: NDArray[np.int64]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    n_views: int = 0
    views_seed: int = 0

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

    def seen(self, indices: NDArray[np.int64], view: "View", point: Point, device: torch.device) -> Tensor:
        """`view` of the images at `indices`: float32 (n, 3, resolution, resolution) on `device`."""
        if view.draws is None:
            pixels = gather(self.eval_pixels, indices, device)
            return eval_views(pixels, resolution=point.resolution, mean=self.mean, std=self.std)
        return training_views(
            gather(self.training_pixels if point.augmentation else self.eval_pixels, indices, device),
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

    name: str  # equal names mean equal pixels; "": used once
    draws: Tensor | None  # (N, DRAWS) rows of `epoch_draws`; None: the center crop


CENTER_CROP = View("center", None)


def gather(source: Source, indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """The images at `indices`: uint8 (n, S, S, 3) on `device`."""
    if isinstance(source, Resident):
        places = source.places[indices]
        if (places >= 0).all():
            return source.pixels[moved(torch.from_numpy(places), source.pixels.device)]
        source = source.others
    return moved(torch.from_numpy(source[indices]), device)


def resident(pixels: Pixels, wanted: NDArray[np.int64], device: torch.device) -> Pixels | Resident:
    """`pixels` with the images at `wanted` on a GPU if its free memory allows, else unchanged."""
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
    places = np.full(len(pixels), -1, dtype=np.int64)
    places[wanted] = np.arange(len(wanted))
    there = torch.empty((len(wanted), *pixels.shape[1:]), dtype=torch.uint8, device=device)
    n_together = max(
        1, _MOVED_BYTES // math.prod(pixels.shape[1:])
    )  # so that the host never holds all of them
    for at in range(0, len(wanted), n_together):
        there[at : at + n_together] = torch.from_numpy(pixels[wanted[at : at + n_together]])
    return Resident(pixels=there, places=places, others=pixels)


def gpu_bytes_free(device: torch.device) -> int:
    """Bytes of GPU memory that this process can still allocate, its allocator's reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU `tensor` on `device`; copied to a GPU from pinned memory, so that the host does not wait."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def batches(order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Split `order` into batches of `batch_size`; a last batch of one image joins the one before it.

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
