"""Shortened backbones: the blocks at the top are left out, and a neck of new layers is in their place.

Basha et al. 2022 (https://arxiv.org/abs/2205.05967) search how many layers at the top to replace, and by
what. Here the neck is convolution layers on the feature map of the last block that is used, averaged over
positions at its end. A transformer's tokens are a map of patches; its class token and registers are dropped.
"""

from functools import lru_cache, partial
from itertools import pairwise
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlopt.model.families import table as families
from tlopt.model.families.torchvision import flatten
from tlopt.model.head import ACTIVATIONS
from tlopt.model.network import Block, ForwardStep, Network, block
from tlopt.spec.point import Point

NECK = "neck"  # name of the new layers in the network's module
_TABLES = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")  # of an nn.Module
_SIDE = 224  # pixels, enough for every family


class ShortenedNet(nn.Module):
    """What is left of a library's module, under its old names, with a neck and a forward pass of its own.

    The tables of tensors and modules are shared with the library's module, not copied: blocks may call its
    methods, which must see every change.
    """

    def __init__(self, library: nn.Module, blocks: tuple[Block, ...], head_name: str) -> None:
        super().__init__()
        self.__dict__.update({name: library.__dict__[name] for name in _TABLES})
        self._blocks = blocks
        self._head_name = head_name

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        for part in self._blocks:
            x = part.forward(x)
        logits: Tensor = self.get_submodule(self._head_name)(x)
        return logits


def shortened(network: Network, point: Point) -> Network:
    """Blocks 1..backbone_depth of the library's `network`, with the neck of `point` and the library's head.

    Each layer of the neck is a block, numbered on from the backbone's; a neck without layers is one block
    that averages over positions. Weights are He-normal, drawn from torch's generator. `network` is used up.
    """
    depth, net = point.backbone_depth, network.net
    widths = [block_widths(point.backbone)[depth - 1], *[point.neck_width] * point.neck_layers]
    layers = [_layer(width, width_out, point) for width, width_out in pairwise(widths)]
    to_map = _to_map(net, families.family_of(net, point.backbone))
    for part in network.blocks[depth:]:
        _remove(net, part.members)
    net.add_module(NECK, nn.Sequential(*layers))
    blocks = (*network.blocks[:depth], *_neck_blocks(net, to_map, len(layers)))
    return Network(
        ShortenedNet(net, blocks, network.head_name),
        blocks,
        network.head_name,
        widths[-1],
        has_groups=network.has_groups,
    )


@lru_cache  # building a skeleton takes tenths of a second, and every trial needs this
def block_widths(backbone: str) -> tuple[int, ...]:
    """Channels of each block's output; nothing is computed."""
    with torch.device("cpu"), torch.enable_grad():  # without gradients, attention needs kernels of a device
        network = families.skeleton(backbone).to("meta").eval()
        family = families.family_of(network.net, backbone)
        side = _SIDE if family.positions is None else family.positions.sides(network.net)[0]
        x = torch.empty(1, 3, side, side, device="meta")
        widths = []
        for part in network.blocks:
            x = part.forward(x)
            widths.append(x.shape[1 if family.outputs == "maps" else -1])
    return tuple(widths)


def _layer(width: int, width_out: int, point: Point) -> nn.Sequential:
    """A convolution that keeps the size of the map, batch-norm and activation; two if it is separable."""
    side = point.neck_kernel
    if point.neck_convolution == "plain":
        return nn.Sequential(*_normed(width, width_out, side, point))
    depthwise = _normed(width, width, side, point, groups=width)
    return nn.Sequential(*depthwise, *_normed(width, width_out, 1, point))  # as in MobileNet


def _normed(width: int, width_out: int, side: int, point: Point, groups: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width, width_out, side, padding=side // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution, nn.BatchNorm2d(width_out), ACTIVATIONS[point.activation]()


def _to_map(net: nn.Module, family: families.Family) -> tuple[ForwardStep, ...]:
    """The steps from a block's output to a map (N, C, H, W)."""
    match family.outputs:
        case "maps":
            return ()
        case "maps_channels_last":
            return (partial(torch.permute, dims=(0, 3, 1, 2)),)
        case "tokens":
            assert family.positions is not None, "tokens have positions"
            return (partial(_patch_map, side=family.positions.sides(net)[1]),)
        case _:
            assert_never(family.outputs)


def _patch_map(tokens: Tensor, side: int) -> Tensor:
    """The last side² of the tokens (N, L, C) as (N, C, side, side)."""
    patches = tokens[:, -side * side :].transpose(1, 2)
    return patches.reshape(*patches.shape[:2], side, side)


def _remove(net: nn.Module, members: tuple[str, ...]) -> None:
    for name in members:
        path, _, leaf = name.rpartition(".")
        delattr(net.get_submodule(path), leaf)


def _neck_blocks(net: nn.Module, to_map: tuple[ForwardStep, ...], n_layers: int) -> tuple[Block, ...]:
    pool = (partial(functional.adaptive_avg_pool2d, output_size=(1, 1)), flatten)
    if n_layers == 0:
        return (block(net, NECK, *to_map, *pool),)
    names = [f"{NECK}.{index}" for index in range(n_layers)]
    return tuple(
        block(net, name, *(to_map if index == 0 else ()), name, *(pool if index == n_layers - 1 else ()))
        for index, name in enumerate(names)
    )
