"""Inference as users of an export run it: eval mode, float32, the libraries' default layout."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlopt.data.batches import CENTER_CROP, Images
from tlopt.spec.point import Point

BATCH_SIZE = 64


@torch.inference_mode()
def logits_of(network: nn.Module, views: Tensor) -> NDArray[np.float64]:
    """Logits (n, classes) of `network`, which must be in eval mode, for views (n, 3, R, R) on its device.

    An export does not include the precision and layout used in training, so every number reported for an
    exported network is measured with this function.
    """
    logits: Tensor = network(views)
    return logits.double().cpu().numpy()


def exported_logits(
    network: nn.Module, images: Images, point: Point, indices: NDArray[np.int64], device: torch.device
) -> NDArray[np.float64]:
    """Logits (n, classes) for the images at `indices`, equal to those of the network's export.

    Puts `network` into eval mode and contiguous layout.
    """
    network.eval().to(memory_format=torch.contiguous_format)
    pieces = np.split(indices, range(BATCH_SIZE, len(indices), BATCH_SIZE))
    rows = [
        logits_of(network, images.views_of(piece, CENTER_CROP, point, device))
        for piece in pieces
        if len(piece)
    ]
    return np.concatenate(rows)
