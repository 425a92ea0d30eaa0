"""Networks for points: initialised from a seed, with pretrained weights up to `transfer_depth`."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from tlopt.errors import SpecError
from tlopt.model.families import table as families
from tlopt.model.head import make_head
from tlopt.model.network import Network
from tlopt.model.partition import blocks_of, partition_for
from tlopt.model.positions import resized_positions
from tlopt.model.shortened import shortened
from tlopt.model.weights import Weights
from tlopt.spec.point import Point
from tlopt.spec.search_keys import STRUCTURE_KEYS

supported = families.supported


@dataclass(frozen=True)
class BlockOutline:
    """One row of `tlopt blocks`."""

    index: int  # from 1
    name: str
    n_parameters: int


def build(point: Point, *, n_classes: int, weights: Weights, seed: int) -> Network:
    """A network in train mode on the CPU, bitwise reproducible; torch's global generators are unchanged.

    The library initialises the blocks, and torch the neck and the head, all from `seed`; blocks
    1..transfer_depth get the tensors of `weights` (none with weights "none").

    Raises:
        SpecError: the resolution does not fit the network, or a depth is beyond its blocks.
    """
    check_resolution(weights, point.resolution)
    if weights.backbone != point.backbone:
        raise ValueError(f"weights of {weights.backbone} for {point.backbone}")
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also move the generators of the accelerators.
        torch.default_generator.manual_seed(seed)
        network = _library_network(weights, point.resolution)
        _check_depths(point, len(network.blocks))
        transfer(network, weights, depth=point.transfer_depth)
        return with_head(network, point, n_classes).train()


def with_head(network: Network, point: Point, n_classes: int) -> Network:
    """The library's `network` with the depth, the neck and the head of `point`; `network` is used up.

    Weights of neck and head are drawn from torch's generator.
    """
    if point.is_shortened:
        network = shortened(network, point)
    head = make_head(
        network.feature_width,
        n_classes,
        layers=point.head_layers,
        hidden_width=point.head_width,
        dropout=point.head_dropout,
        activation=point.activation,
    )
    network.net.set_submodule(network.head_name, head)
    return network


def _check_depths(point: Point, n_blocks: int) -> None:
    if point.transfer_depth > n_blocks:
        raise SpecError(
            f"search.transfer_depth = {point.transfer_depth}: {point.backbone} has only {n_blocks} blocks"
        )
    if point.backbone_depth >= n_blocks:
        raise SpecError(
            f"search.backbone_depth = {point.backbone_depth}: {point.backbone} has {n_blocks} blocks, so at"
            f" most {n_blocks - 1} can be used without the others"
        )


def untrained_network(weights: Weights, resolution: int, *, seed: int) -> Network:
    """The backbone of `weights`, initialised from `seed` and with the library's own classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _library_network(weights, resolution)


def _library_network(weights: Weights, resolution: int) -> Network:
    image_size = resolution if weights.resolution_step > 1 else None
    return families.as_network(families.library_module(weights.backbone, image_size), weights.backbone)


def transfer(network: Network, weights: Weights, *, depth: int) -> None:
    """Copy the tensors of `weights` into blocks 1..depth in place; do nothing for weights "none".

    Position embeddings are interpolated if the resolutions of the network and of the weights differ.
    """
    if not weights.state:
        return
    initial = network.net.state_dict()
    positions = families.family_of(network.net, weights.backbone).positions
    for name, index in blocks_of(network).items():
        if index > depth:
            continue
        tensor = weights.state[name]
        if positions is not None and name == positions.embedding:
            _, side = positions.sides(network.net)
            tensor = resized_positions(tensor, initial[name].shape[1], side)
        initial[name].copy_(tensor)


def outlined(backbone: str, resolution: int) -> Network:
    """A backbone for images of `resolution` pixels per side, most tensors without storage.

    It has the library's own classifier.

    Raises:
        SpecError, MissingExtra: as `n_blocks`.
    """
    network = families.skeleton(backbone)
    if families.family_of(network.net, backbone).positions is None:
        return network
    return families.skeleton(backbone, resolution)


def check_resolution(weights: Weights, resolution: int) -> None:
    """Raise if the backbone of `weights` cannot take images of `resolution` pixels per side.

    Raises:
        SpecError: with the resolutions that it takes.
    """
    step = weights.resolution_step
    if resolution % step and resolution != weights.resolution:
        below = max(resolution - resolution % step, step)
        raise SpecError(
            f"search.resolution = {resolution}: {weights.backbone} divides images into patches of {step}"
            f" pixels; write a multiple, such as {below} or {below + step}"
        )
    if resolution < weights.resolution_min:
        raise SpecError(
            f"search.resolution = {resolution}: {weights.backbone} needs at least"
            f" {weights.resolution_min} pixels"
        )


def blueprint(point: Point, *, n_classes: int) -> Network:
    """The network that `build` makes for `point`, most tensors without storage.

    Raises:
        SpecError, MissingExtra: as `n_blocks`.
    """
    network = outlined(point.backbone, point.resolution)
    with torch.device("meta"):
        return with_head(network, point, n_classes)


def n_trained(point: Point, n_classes: int) -> int:
    """The number of parameters that training `point` may change, those of the head included.

    Raises:
        SpecError, MissingExtra: as `n_blocks`.
    """
    network = blueprint(point, n_classes=n_classes)
    trained = set(partition_for(network, point).trained)
    return sum(tensor.numel() for name, tensor in network.net.named_parameters() if name in trained)


def structure_of(point: Point) -> tuple[str | int | float, ...]:
    """The values of `point` on which the shapes and operations of its network depend."""
    head = (point.head_layers, point.head_width if point.head_layers else 0)
    return (point.backbone, point.resolution, *(getattr(point, name) for name in STRUCTURE_KEYS), *head)


@lru_cache
def n_blocks(backbone: str) -> int:
    """The number of blocks of a backbone, B.

    Raises:
        SpecError: the backbone is not supported.
        MissingExtra: it needs an optional package.
    """
    return len(families.skeleton(backbone).blocks)


def outline(backbone: str) -> list[BlockOutline]:
    """The blocks of a backbone, in order from the input; loads no weights.

    Raises:
        SpecError, MissingExtra: as `n_blocks`.
    """
    network = families.skeleton(backbone)
    counts = [0] * (len(network.blocks) + 1)
    block_of = blocks_of(network)
    for name, parameter in network.net.named_parameters():
        counts[block_of[name] - 1] += parameter.numel()
    return [
        BlockOutline(index, part.name, count)
        for index, (part, count) in enumerate(zip(network.blocks, counts, strict=False), 1)
    ]
