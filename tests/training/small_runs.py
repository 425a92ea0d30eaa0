"""Images whose colour tells the class, and helpers for small training runs on them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tlopt.data.batches import Images
from tlopt.spec.point import Point
from tlopt.training.run import Run

Begin = Callable[..., Run]
MakePoint = Callable[..., Point]


def coloured(labels: np.ndarray, side: int) -> Images:
    """An image of `side` x `side` pixels for each label of 0 to 2: noise, brighter in the label's channel.

    The same pixels in every session; stored at one size for training and evaluation.
    """
    pixels = np.random.default_rng(5).integers(60, 180, (len(labels), side, side, 3), dtype=np.uint8)
    pixels[np.arange(len(labels)), :, :, labels] += 60
    return Images(
        training_pixels=pixels,
        eval_pixels=pixels,
        labels=labels,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        flip=True,
    )


def state(run: Run) -> dict[str, Tensor]:
    """Copies of all tensors of a run's network, parameters and buffers, by name."""
    return {name: tensor.clone() for name, tensor in run.network.net.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ in a bit, or are in only one of the two."""
    common = before.keys() & after.keys()
    different = {name for name in common if not torch.equal(before[name], after[name])}
    return different | (before.keys() ^ after.keys())
