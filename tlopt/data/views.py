"""Views of stored pixels as network inputs, computed for whole batches on the device.

A training view is a pure function of seed, epoch and image: its eight random numbers come from `epoch_draws`,
so it does not depend on the batch or the worker.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tlopt.data.pixels import eval_size
from tlopt.spec.point import seed_for

DRAWS = 8  # random numbers per image and epoch: flip, area, aspect, x, y, brightness, contrast, saturation

_AREA = 0.75  # largest share of the area cropped away at strength 1
_ASPECT = 4 / 3  # largest aspect ratio at strength 1, and the inverse of the smallest
_COLOUR = 0.4  # largest change of a colour factor at strength 1
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def epoch_draws(seed: int, epoch: int, n_images: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 (n_images, DRAWS) on the CPU, the same on every machine.

    Row i belongs to image i and does not depend on `n_images`.
    """
    generator = torch.Generator().manual_seed(seed_for("augment", seed, epoch))
    return torch.rand(n_images, DRAWS, generator=generator)


def eval_views(images: Tensor, *, resolution: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The normalised center crop of every image: float32 (n, 3, resolution, resolution).

    Args:
        images: uint8 (n, S, S, 3), S at least `resolution`.
        mean: mean of each channel, for values in [0, 1].
        std: standard deviation of each channel.
    """
    return _normalised(_center_crop(images, resolution), mean, std)


def training_views(
    images: Tensor,
    *,
    resolution: int,
    strength: float,
    flip: bool,
    mean: Sequence[float],
    std: Sequence[float],
    draws: Tensor,
) -> Tensor:
    """A normalised random view of every image: float32 (n, 3, resolution, resolution).

    The crop has a share of 1 - 0.75 * strength to 1 of a window's area and an aspect ratio of (3/4)**strength
    to (4/3)**strength, uniform in its logarithm. The window's side grows from the evaluation view's at
    strength 0 to the whole image's at strength 1, as (7/8)**(1 - strength); the crop's centre is shifted from
    the image's by up to `strength` times the largest shift that keeps it inside. Brightness, contrast and
    saturation change by factors within 1 +- 0.4 * strength. Strength 0 without flip is the
    evaluation view exactly.

    Args:
        images: uint8 (n, S, S, 3); a larger S gives sharper small crops. For strength 0, as in `eval_views`.
        strength: in [0, 1].
        flip: whether to mirror images whose first draw is below 1/2.
        mean: mean of each channel, for values in [0, 1].
        std: standard deviation of each channel.
        draws: (n, DRAWS) rows of `epoch_draws`, on any device.
    """
    draws = draws.to(images.device)
    signs = torch.where(draws[:, 0] < 0.5, -1.0, 1.0) if flip else torch.ones_like(draws[:, 0])
    if strength == 0:
        center = _center_crop(images, resolution)
        mirrored = signs.view(-1, 1, 1, 1) < 0
        return _normalised(torch.where(mirrored, center.flip(-1), center), mean, std)
    grid = _crops(draws, signs, resolution=resolution, strength=strength)
    views = functional.grid_sample(
        _channels_first(images), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return _normalised(_recoloured(views, draws[:, 5:8], strength), mean, std)


def _crops(draws: Tensor, signs: Tensor, *, resolution: int, strength: float) -> Tensor:
    """Sampling positions of a view's pixels, from -1 to 1: (n, resolution, resolution, 2), x first."""
    window = resolution / eval_size(resolution)  # 7/8, a side, up to rounding
    area = window ** (2 * (1 - strength)) * (1 - _AREA * strength * draws[:, 1])
    stretch = _ASPECT ** (strength * (draws[:, 2] - 0.5))  # square root of the aspect ratio
    width = (area.sqrt() * stretch).clamp(max=1)
    height = (area.sqrt() / stretch).clamp(max=1)
    x = strength * (2 * draws[:, 3] - 1) * (1 - width)
    y = strength * (2 * draws[:, 4] - 1) * (1 - height)
    centres = (2 * torch.arange(resolution, device=draws.device) + 1) / resolution - 1
    columns = torch.outer(signs * width, centres) + x[:, None]
    rows = torch.outer(height, centres) + y[:, None]
    square = (len(draws), resolution, resolution)
    return torch.stack([columns[:, None, :].expand(square), rows[:, :, None].expand(square)], dim=-1)


def _recoloured(views: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Brightness b, contrast c about the mean grey, then saturation s, as one expression; values in [0, 1].

    With grey g and its mean m: b * c * s * x + b * c * (1 - s) * g + b * (1 - c) * m. Changes `views`.
    """
    factors = 1 + _COLOUR * strength * (2 * draws - 1)
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    red, green, blue = views[:, 0:1], views[:, 1:2], views[:, 2:3]
    grey = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    mean_grey = grey.mean((2, 3), keepdim=True)
    shift = grey.mul_(brightness * contrast * (1 - saturation)).add_(brightness * (1 - contrast) * mean_grey)
    return views.mul_(brightness * contrast * saturation).add_(shift).clamp_(0, 1)


def _center_crop(images: Tensor, resolution: int) -> Tensor:
    start = (images.shape[1] - resolution) // 2
    end = start + resolution
    return _channels_first(images[:, start:end, start:end])


def _channels_first(images: Tensor) -> Tensor:
    """float32 (n, 3, h, w) in [0, 1]."""
    # Copying into place is four times as fast as a cast that transposes.
    n, height, width, channels = images.shape
    views = torch.empty((n, channels, height, width), device=images.device)
    return views.copy_(images.permute(0, 3, 1, 2)).div_(255)


def _normalised(views: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(views - mean) / std; changes `views`."""
    return views.sub_(_channels(tuple(mean), views.device)).div_(_channels(tuple(std), views.device))


@functools.cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A tensor (1, n, 1, 1) on `device`, cached: copying it synchronises with the GPU."""
    with torch.inference_mode(False):  # also usable in training if created during evaluation
        return torch.tensor(values, device=device).view(1, -1, 1, 1)
