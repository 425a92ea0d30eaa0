"""Groups of channels that can be removed one by one, found in a network's ties."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from tlopt.compact.channel_labels import KEPT, Axis, Ties, follow_channels

_Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of one kind, such as the output channels of a convolution with all that depends on them.

    A *unit* is what can be removed: one channel, all channels of a group of a grouped convolution, or a head
    of attention. At least one unit is kept.
    """

    indices: Mapping[Axis, _Integers]  # (units, k): the indices of each unit on each axis

    @property
    def n_units(self) -> int:
        """The number of units, at least 2."""
        return len(next(iter(self.indices.values())))

    @property
    def name(self) -> str:
        """The first tensor whose output channels are in the group."""
        return next(name for name, dim in self.indices if dim == 0)

    def indices_of(self, units: Sequence[int]) -> dict[Axis, _Integers]:
        """The indices of several units on each axis, ascending."""
        chosen = np.asarray(units, dtype=np.int64)
        return {axis: np.sort(indices[chosen].ravel()) for axis, indices in self.indices.items()}


def channel_groups(net: nn.Module, resolution: int) -> list[ChannelGroup]:
    """The groups of `net`, in the order of its parameters; deterministic. `net` is left in eval mode.

    Channels are left out that reach the logits, or a norm over channels such as a transformer's: a network
    without them would not compute what it computes with them set to zero.

    Args:
        net: maps images (N, 3, R, R) to logits; its tensors may be without storage.
        resolution: pixels per side.
    """
    ties = follow_channels(net, resolution)
    component = _components(ties)
    component[np.isin(component, _heads_in_doubt(net, ties, component))] = component[KEPT]
    tensors = net.state_dict()
    order = {name: index for index, name in enumerate(tensors)}
    units: dict[tuple[tuple[Axis, int], ...], list[dict[Axis, list[int]]]] = {}
    for unit in _units(ties, component):
        if any(dim == 0 and tensors[name].ndim > 1 for name, dim in unit):  # else nothing produces it
            ordered = sorted(unit, key=lambda axis: (order[axis[0]], axis[1]))
            kind = tuple((axis, len(unit[axis])) for axis in ordered)
            units.setdefault(kind, []).append(unit)
    groups = [
        ChannelGroup({axis: np.array([row[axis] for row in rows]) for axis, _ in kind})
        for kind, rows in units.items()
        if len(rows) > 1
    ]
    return sorted(groups, key=lambda group: order[group.name])


def _components(ties: Ties) -> _Integers:
    """The component of each label: labels have the same if they are tied, directly or through others."""
    one, other = ties.pairs.numpy()
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(ties.n_labels, ties.n_labels))
    found: _Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def _units(ties: Ties, component: _Integers) -> Iterator[dict[Axis, list[int]]]:
    """The indices on each axis of every component that can be removed, by its first label."""
    found: dict[int, dict[Axis, list[int]]] = {}
    for axis, labels in sorted(ties.axes.items(), key=lambda item: int(item[1][0])):
        for index, label in enumerate(component[labels.numpy()].tolist()):
            if label != component[KEPT]:
                found.setdefault(label, {}).setdefault(axis, []).append(index)
    yield from found.values()


def _heads_in_doubt(net: nn.Module, ties: Ties, component: _Integers) -> _Integers:
    """Components that are heads of modules whose number of heads we cannot change."""
    heads = np.unique(component[ties.heads.numpy()])
    doubtful = set()
    for axis, labels in ties.axes.items():
        found = np.intersect1d(component[labels.numpy()], heads)
        if len(found) and not has_heads(net, axis[0]):
            doubtful.update(found.tolist())
    return np.array(sorted(doubtful), dtype=np.int64)


def has_heads(net: nn.Module, tensor: str) -> bool:
    """Whether a tensor belongs to an attention module whose number of heads we can change."""
    parts = tensor.split(".")
    above = [net.get_submodule(".".join(parts[:length])) for length in range(len(parts))]
    return any(is_attention(module) for module in above)


def is_attention(module: nn.Module) -> bool:
    """Whether we can change a module's number of heads: torch's attention and timm's."""
    plain = isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    return plain or f"{type(module).__module__}.{type(module).__name__}" == "timm.layers.attention.Attention"


def removed_axes(groups: Sequence[ChannelGroup], units: Sequence[Sequence[int]]) -> dict[Axis, torch.Tensor]:
    """The indices to remove on each axis, ascending, where `units[i]` of `groups[i]` are removed.

    Raises:
        ValueError: a group would lose all of its units.
    """
    found: dict[Axis, list[_Integers]] = {}
    for group, chosen in zip(groups, units, strict=True):
        if len(set(chosen)) >= group.n_units:
            raise ValueError(f"{group.name}: all {group.n_units} units would be removed")
        if len(chosen):
            for axis, indices in group.indices_of(chosen).items():
                found.setdefault(axis, []).append(indices)
    return {axis: torch.from_numpy(np.unique(np.concatenate(each))) for axis, each in found.items()}
