"""Images as batches on the device: the decoded store, gathered by index."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.data.augment import epoch_draws, eval_views, training_views
from tlopt.data.store import Pixels
from tlopt.point import Point, seed_for

RESIDENT_SHARE = 0.4  # of the GPU's free memory; the rest is for weights and activations


@dataclass(frozen=True, kw_only=True)
class Images:
    """Decoded images of one data set; `pixels` uint8 (N, S, S, 3), `labels` int64 (N,).

    With `n_views` above 0 an epoch shows one of so many views, drawn from `views_seed` and the same to every
    run; with 0 it shows views of the run's own that nobody sees again.
    """

    pixels: NDArray[np.uint8] | Pixels | Tensor
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
        pixels = self.gather(indices, device)
        if view.draws is None:
            return eval_views(pixels, resolution=point.resolution, mean=self.mean, std=self.std)
        return training_views(
            pixels,
            resolution=point.resolution,
            strength=point.augmentation,
            flip=self.flip,
            mean=self.mean,
            std=self.std,
            draws=view.draws[torch.from_numpy(indices)].to(device, non_blocking=True),
        )

    def gather(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """uint8 (n, S, S, 3) on `device`."""
        if isinstance(self.pixels, Tensor):
            return self.pixels[torch.from_numpy(indices).to(self.pixels.device)]
        batch = self.pixels[indices]
        pinned = torch.from_numpy(batch).pin_memory() if device.type == "cuda" else torch.from_numpy(batch)
        return pinned.to(device, non_blocking=True)


@dataclass(frozen=True)
class View:
    """One view of every image: a crop with its colours, or for validation the middle."""

    name: str  # equal names show equal pixels; "": nobody sees it again
    draws: Tensor | None  # (N, DRAWS) rows of `epoch_draws`; None: the middle


MIDDLE = View("middle", None)


def resident(pixels: Pixels, device: torch.device) -> Pixels | Tensor:
    """`pixels` as a tensor on a GPU where its free memory has room to spare for them, else unchanged."""
    if device.type != "cuda":
        return pixels
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if pixels.nbytes > RESIDENT_SHARE * free_bytes:
        return pixels
    return torch.from_numpy(pixels[np.arange(len(pixels))]).to(device)


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
