"""Images as batches on the device: the decoded store, gathered by index."""

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

RESIDENT_SHARE = 0.25  # of the GPU's free memory, for each of two sizes; the rest is for the network
_MOVED_BYTES = 1 << 26  # at a time, of pixels that come to lie on a device


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Pixels of some images on a device, of the others where they were."""

    pixels: Tensor  # uint8 (n, S, S, 3)
    places: NDArray[np.int64]  # (N,), where in `pixels` each image lies; -1: it does not
    others: Pixels


Source = NDArray[np.uint8] | Pixels | Resident


@dataclass(frozen=True, kw_only=True)
class Images:
    """Decoded images of one data set.

    `training_pixels`, uint8 (N, S, S, 3), are what training crops are cut from; of `eval_pixels` the middle
    is shown, for validation and where training sees no crops; `labels` are int64 (N,). With `n_views` above 0
    an epoch shows one of so many views, drawn from `views_seed` and the same to every run; with 0 it shows
    views of the run's own that nobody sees again.
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
        """What `epoch` shows of each image to a run of `point` with `seed`."""
        if point.augmentation == 0 and not self.flip:
            return MIDDLE
        if self.n_views == 0:
            return View("", epoch_draws(seed_for(seed, "views"), epoch, len(self.labels)))
        which = epoch % self.n_views
        flip = "-flip" if self.flip else ""
        name = f"view{which}-of-{self.views_seed:016x}-{point.augmentation:g}{flip}"
        return View(name, epoch_draws(self.views_seed, which, len(self.labels)))

    def seen(self, indices: NDArray[np.int64], view: "View", point: Point, device: torch.device) -> Tensor:
        """float32 (n, 3, resolution, resolution) on `device`: `view` of the images at `indices`."""
        if view.draws is None:
            middles = gather(self.eval_pixels, indices, device)
            return eval_views(middles, resolution=point.resolution, mean=self.mean, std=self.std)
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
    """One view of every image: a crop with its colours, or for validation the middle."""

    name: str  # equal names show equal pixels; "": nobody sees it again
    draws: Tensor | None  # (N, DRAWS) rows of `epoch_draws`; None: the middle


MIDDLE = View("middle", None)


def gather(source: Source, indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """uint8 (n, S, S, 3) on `device`: the images at `indices`."""
    if isinstance(source, Resident):
        places = source.places[indices]
        if (places >= 0).all():
            return source.pixels[moved(torch.from_numpy(places), source.pixels.device)]
        source = source.others
    return moved(torch.from_numpy(source[indices]), device)


def resident(pixels: Pixels, wanted: NDArray[np.int64], device: torch.device) -> Pixels | Resident:
    """`pixels` with those at `wanted` on a GPU where its free memory has room to spare, else unchanged."""
    if device.type != "cuda":
        return pixels
    if len(wanted) * pixels.image_bytes > RESIDENT_SHARE * gpu_bytes_free(device):
        return pixels
    try:
        return put(pixels, wanted, device)
    except torch.OutOfMemoryError:  # somebody else has taken the room meanwhile
        return pixels


def put(pixels: Pixels, wanted: NDArray[np.int64], device: torch.device) -> Resident:
    """`pixels` with those at `wanted` on `device`."""
    places = np.full(len(pixels), -1, dtype=np.int64)
    places[wanted] = np.arange(len(wanted))
    there = torch.empty((len(wanted), *pixels.shape[1:]), dtype=torch.uint8, device=device)
    n_together = max(1, _MOVED_BYTES // math.prod(pixels.shape[1:]))  # the host need not hold them all
    for at in range(0, len(wanted), n_together):
        there[at : at + n_together] = torch.from_numpy(pixels[wanted[at : at + n_together]])
    return Resident(pixels=there, places=places, others=pixels)


def gpu_bytes_free(device: torch.device) -> int:
    """Bytes of a GPU that this process could still take, what its allocator has in reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, which is on the CPU, on `device`; to a GPU from pinned memory, so that nobody waits."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def batches(order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """`order` in pieces of `batch_size`; a last piece of one image joins the piece before it.

    Batch-norm cannot be trained on one image.
    """
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        end = starts[i + 1] if i + 1 < len(starts) else len(order)
        yield order[start:end]


def n_batches(n_images: int, batch_size: int) -> int:
    """How many pieces `batches` gives, for batches of at least two images."""
    return math.ceil((n_images - 1) / batch_size) if n_images > 1 else n_images
