"""The tensors of a network by how they are trained: frozen, transferred, fresh, head."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

from tlopt.model.network import Network
from tlopt.model.norms import batch_norms
from tlopt.spec.point import Point


@dataclass(frozen=True)
class Partition:
    """The names in `network.net.state_dict()`, parameters and buffers, each in exactly one of five groups."""

    frozen: tuple[str, ...]  # blocks 1..freeze_depth: never change
    frozen_norms: tuple[str, ...]  # batch-norm tensors of trained blocks that never change
    transferred: tuple[str, ...]  # all else up to transfer_depth: trained from pretrained weights
    fresh: tuple[str, ...]  # blocks above transfer_depth: trained from their initialisation
    head: tuple[str, ...]
    block_of: Mapping[str, int]  # 1..B, and B + 1 for the head

    @property
    def fixed(self) -> tuple[str, ...]:
        """The tensors that never change."""
        return (*self.frozen, *self.frozen_norms)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tensors that training may change."""
        return (*self.transferred, *self.fresh, *self.head)


def partition(
    network: Network,
    *,
    transfer_depth: int,
    freeze_depth: int,
    norm_depth: int = 0,
    keeps_affine: bool = False,
) -> Partition:
    """The groups for 0 <= freeze_depth <= transfer_depth <= B and 0 <= norm_depth <= transfer_depth.

    Args:
        norm_depth: the statistics of batch-norm layers are fixed in blocks 1..norm_depth.
        keeps_affine: whether the weights and biases of these layers are fixed, too.

    Raises:
        ValueError: the depths are not in this order, or a tensor is in no block or in two.
    """
    n_blocks = len(network.blocks)
    if not 0 <= freeze_depth <= transfer_depth <= n_blocks:
        raise ValueError(f"not 0 <= {freeze_depth=} <= {transfer_depth=} <= {n_blocks=}")
    if not 0 <= norm_depth <= transfer_depth:
        raise ValueError(f"not 0 <= {norm_depth=} <= {transfer_depth=}")
    block_of = blocks_of(network)
    norm_tensors = _batch_norm_tensors(network, affine=keeps_affine)

    def between(low: int, high: int) -> tuple[str, ...]:
        return tuple(name for name, index in block_of.items() if low < index <= high)

    frozen_norms = tuple(name for name in between(freeze_depth, norm_depth) if name in norm_tensors)
    pretrained = between(freeze_depth, transfer_depth)
    return Partition(
        frozen=between(0, freeze_depth),
        frozen_norms=frozen_norms,
        transferred=tuple(name for name in pretrained if name not in set(frozen_norms)),
        fresh=between(transfer_depth, n_blocks),
        head=between(n_blocks, n_blocks + 1),
        block_of=block_of,
    )


def partition_for(network: Network, point: Point) -> Partition:
    """The groups for the depths of `point`."""
    return partition(
        network,
        transfer_depth=point.transfer_depth,
        freeze_depth=point.freeze_depth,
        norm_depth=point.norm_depth,
        keeps_affine=point.norm_affine == "keep",
    )


def _batch_norm_tensors(network: Network, *, affine: bool) -> frozenset[str]:
    """Names of the statistics of all batch-norm layers; with `affine`, of their weights and biases, too."""
    names = set()
    for path, layer in batch_norms(network.net):
        tensors = [name for name, _ in layer.named_buffers(recurse=False)]
        if affine:
            tensors += [name for name, _ in layer.named_parameters(recurse=False)]
        names |= {f"{path}.{name}" if path else name for name in tensors}
    return frozenset(names)


def blocks_of(network: Network) -> dict[str, int]:
    """The block of each name in `network.net.state_dict()`, in its order: 1..B, or B + 1 for the head.

    Raises:
        ValueError: a tensor is in no block or in two.
    """
    blocks_of_member: dict[str, list[int]] = {}
    for index, members in enumerate([*(part.members for part in network.blocks), (network.head_name,)], 1):
        for member in members:
            blocks_of_member.setdefault(member, []).append(index)
    block_of = {}
    for name in network.net.state_dict():
        indices = [index for path in _with_ancestors(name) for index in blocks_of_member.get(path, ())]
        if len(indices) != 1:
            raise ValueError(
                f"{type(network.net).__name__}: {name} is in blocks {indices}, not in exactly one"
            )
        block_of[name] = indices[0]
    return block_of


def penalised(network: Network) -> frozenset[str]:
    """Names of the parameters that weight decay and L2-SP apply to.

    These are the weight matrices of convolutions, linear and attention modules; never biases, norms, layer
    scales, tokens, position embeddings or tables of relative positions.
    """
    names = set()
    for path, module in network.net.named_modules():
        for leaf in _matrices(module):
            names.add(f"{path}.{leaf}" if path else leaf)
    return frozenset(names)


def _matrices(module: nn.Module) -> tuple[str, ...]:
    # timm's CondConv2d does not derive from _ConvNd.
    if isinstance(module, (_ConvNd, nn.Linear)) or type(module).__name__ == "CondConv2d":
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        # The output projection is a Linear; with unequal widths there are three input matrices, not one.
        leaves = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return tuple(leaf for leaf in leaves if getattr(module, leaf) is not None)
    return ()


def _with_ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
