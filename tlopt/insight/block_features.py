"""Pooled features of every block of a frozen network, from one pass over the images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlopt.data.pixels import Pixels
from tlopt.data.views import eval_views
from tlopt.errors import WeightsError
from tlopt.insight.labelled_features import Floats
from tlopt.model import sources
from tlopt.model.build import untrained_network
from tlopt.model.families.table import family_of
from tlopt.model.network import Network
from tlopt.model.weights import Weights
from tlopt.spec.model_names import split_width
from tlopt.training.frozen_prefix import CHUNK_IMAGES, canonical_layout, forward_blocks
from tlopt.training.numerics import usual_numerics


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockFeatures:
    """Features of images at each depth of a network.

    Attributes:
        names: names of the blocks, from the input.
        features: (N, D) for each block; those of the last block are a classifier's input.
        source_probabilities: (N, source classes) by the network's own classifier; None if it is not known.
    """

    names: tuple[str, ...]
    features: tuple[Floats, ...]
    source_probabilities: Floats | None


def block_features(
    network: Network,
    images: Pixels | NDArray[np.uint8],
    indices: NDArray[np.int64],
    *,
    resolution: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    source_head: nn.Module | None = None,
) -> BlockFeatures:
    """Features of the centre crops of the images at `indices`, from one forward pass.

    They equal those of the frozen prefix bit for bit, averaged over positions, and an image's features do not
    depend on other images. The network is moved to `device` and set to eval mode.

    Args:
        images: uint8 (n, S, S, 3), S at least `resolution`.
        source_head: maps the last block's output to logits of source classes.
    """
    numerics = usual_numerics(network, device)
    network.to(device, memory_format=numerics.memory_format).eval()  # type: ignore[call-overload]
    pooled: list[list[Floats]] = [[] for _ in network.blocks]
    logits: list[Floats] = []
    for at in range(0, len(indices), CHUNK_IMAGES):
        which = indices[at : at + CHUNK_IMAGES]
        pixels = torch.from_numpy(images[np.resize(which, CHUNK_IMAGES)]).to(device)
        views = eval_views(pixels, resolution=resolution, mean=mean, std=std)
        x = canonical_layout(views.contiguous(memory_format=numerics.memory_format))
        for depth, rows in enumerate(pooled):
            x = forward_blocks(network, x, depth, depth + 1, numerics)
            rows.append(_float64(pool(x[: len(which)])))
        if source_head is not None:
            logits.append(_logits(source_head.to(device), x[: len(which)]))
    return BlockFeatures(
        names=tuple(part.name for part in network.blocks),
        features=tuple(np.concatenate(rows) for rows in pooled),
        source_probabilities=_softmax(np.concatenate(logits)) if logits else None,
    )


def pool(x: Tensor) -> Tensor:
    """A block's output averaged over positions, (n, D).

    Outputs are (n, D), tokens (n, T, D), or maps. Images are square, so a map is channels-last if only its
    second and third sizes are equal, else channels-first.
    """
    if x.dim() <= 2:
        return x.flatten(1)
    if x.dim() == 3:
        return x.float().mean(dim=1)
    channels_last = x.shape[1] == x.shape[2] != x.shape[3]
    return x.float().mean(dim=(1, 2) if channels_last else (2, 3))


@torch.no_grad()
def _logits(head: nn.Module, x: Tensor) -> Floats:
    return _float64(head.eval()(x.float()))


def _float64(x: Tensor) -> Floats:
    return np.asarray(x.detach().double().cpu().numpy())


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def source_head(weights: Weights) -> nn.Module | None:
    """The classifier that the named `weights` were trained with; None for files, or if there is none."""
    if not weights.state or split_width(weights.backbone)[1] != 1:
        return None  # untrained, or from a file: no library has weights of another width
    default = sources.find_named(weights.backbone, "default").label
    if weights.label not in (default, *sources.weights_names(weights.backbone)):
        return None
    try:
        raw = sources.fetch(weights.backbone, weights.label)
    except WeightsError:
        return None
    network = untrained_network(weights, weights.resolution, seed=0)
    family = family_of(network.net, weights.backbone)
    prefix = f"{network.head_name}."
    named = {family.modern_name(name): tensor for name, tensor in raw.items()}
    own = {name.removeprefix(prefix): t for name, t in named.items() if name.startswith(prefix)}
    head = network.head
    if isinstance(head, nn.Linear) and "weight" in own:
        head = nn.Linear(
            head.in_features, len(own["weight"])
        )  # not every source has ImageNet's 1,000 classes
    try:
        head.load_state_dict(own)
    except RuntimeError:  # the classifier differs from the library's default
        return None
    return head
