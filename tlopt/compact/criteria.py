"""Criteria: how much each unit of a group matters, and which units to remove, those with low scores first.

Only the rows of a unit, which produce its channels, are judged; its columns, which consume them, are not.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlopt.compact.groups import ChannelGroup
from tlopt.model.norms import batch_norms
from tlopt.spec.trial_spec import Scope

Scores = list[NDArray[np.float64] | None]  # for each group one number per unit; None: not judged, left alone


def l1_scores(net: nn.Module, groups: Sequence[ChannelGroup]) -> Scores:
    """The L1 norm of each unit's rows, averaged over the group's weight matrices (Li et al. 2017)."""
    rows = [[each.abs().sum(1) for each in _rows(net, group)] for group in groups]
    return [torch.stack(norms).mean(0).double().numpy() for norms in rows]


def batch_norm_scores(net: nn.Module, groups: Sequence[ChannelGroup]) -> Scores:
    """The absolute batch-norm scale of each unit, averaged over its batch-norm layers (Liu et al. 2017).

    Groups without batch norm are not judged.
    """
    scales = {f"{name}.weight": layer.get_parameter("weight") for name, layer in batch_norms(net)}
    found: Scores = []
    for group in groups:
        rows = [rows.abs().mean(1) for rows in _entries(scales, group)]
        found.append(torch.stack(rows).mean(0).double().numpy() if rows else None)
    return found


def taylor_scores(
    net: nn.Module, groups: Sequence[ChannelGroup], gradients: Mapping[str, Tensor]
) -> list[NDArray[np.float64]]:
    """The squared first-order change of the loss if a unit were zero (Molchanov et al. 2019).

    That is (Σ g·w)² over scales and shifts of the unit's batch-norm layers, or over its rows and biases where
    it has none: before a batch norm in training, the length of a row does not matter, and its sum is zero.

    Args:
        gradients: of the loss of one batch, by the names of parameters; average the scores over batches.
    """
    parameters = dict(net.named_parameters())
    products = {name: gradient * parameters[name].detach() for name, gradient in gradients.items()}
    norms = {f"{name}.{leaf}" for name, _ in batch_norms(net) for leaf in ("weight", "bias")}
    of_norms = {name: tensor for name, tensor in products.items() if name in norms}
    found = []
    for group in groups:
        rows = [*_entries(of_norms, group)] or [*_entries(products, group)]
        total = torch.stack([each.sum(1) for each in rows]).sum(0)
        found.append(total.square().double().numpy())
    return found


class WeightHistory:
    """The similarity of units over a training: the cosine between the histories of their rows.

    A history is the sequence of a unit's rows after each epoch, as in Basha et al. 2022. Units whose weights
    moved alike compute alike, so that one of them can go.
    """

    def __init__(self, groups: Sequence[ChannelGroup]) -> None:
        self._groups = groups
        self._products = [torch.zeros(group.n_units, group.n_units, dtype=torch.float64) for group in groups]
        self._norms = [torch.zeros(group.n_units, dtype=torch.float64) for group in groups]

    def add(self, net: nn.Module) -> None:
        """Add the weights that `net` has now."""
        for group, products, norms in zip(self._groups, self._products, self._norms, strict=True):
            for rows in _rows(net, group):
                products += (rows @ rows.T).double()
                norms += rows.abs().sum(1).double()

    def state(self) -> dict[str, list[Tensor]]:
        """What `load` needs to go on with this history."""
        return {"products": self._products, "norms": self._norms}

    def load(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Go on with the history that `state` is of.

        Raises:
            ValueError: it is of other groups.
        """
        for own, stored in ((self._products, state["products"]), (self._norms, state["norms"])):
            if [each.shape for each in own] != [each.shape for each in stored]:
                raise ValueError("its history is of other groups of channels")
            for tensor, value in zip(own, stored, strict=True):
                tensor.copy_(value)

    def scores(self) -> Scores:
        """The distance, 1 - cosine, between a unit and the one that stays in its place.

        Pairs are taken from the most alike to the least; of each whose units are both there, the one with the
        smaller summed L1 norm goes. The last unit of a group has the highest score.
        """
        return [
            _replaced(1 - _cosines(products).numpy(), norms.numpy())
            for products, norms in zip(self._products, self._norms, strict=True)
        ]


def _cosines(products: Tensor) -> Tensor:
    lengths = products.diagonal().sqrt().clamp_min(torch.finfo(products.dtype).tiny)
    return products / lengths[:, None] / lengths[None, :]


def _replaced(distances: NDArray[np.float64], norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance at which each unit goes, pairs being taken from the closest to the farthest."""
    n = len(norms)
    scores = np.full(n, np.inf)
    one, other = np.triu_indices(n, k=1)
    n_there = n
    for index in np.argsort(distances[one, other], kind="stable"):
        a, b = one[index], other[index]
        if np.isinf(scores[a]) and np.isinf(scores[b]):
            goes = a if norms[a] < norms[b] else b
            scores[goes] = distances[a, b]
            n_there -= 1
            if n_there == 1:
                break
    return np.where(np.isinf(scores), 2.0, scores)


def _rows(net: nn.Module, group: ChannelGroup) -> Iterator[Tensor]:
    """The rows (units, numbers) of each weight matrix of the group, on the CPU."""
    matrices = {name: tensor for name, tensor in net.named_parameters() if tensor.ndim > 1}
    return _entries(matrices, group)


def _entries(tensors: Mapping[str, Tensor], group: ChannelGroup) -> Iterator[Tensor]:
    """The entries (units, numbers) of these tensors, as far as they are in the group, along dimension 0."""
    for (name, dim), indices in group.indices.items():
        if dim == 0 and name in tensors:
            yield tensors[name].detach().cpu()[torch.from_numpy(indices)].flatten(1)


def select(
    groups: Sequence[ChannelGroup], scores: Scores, fraction: float, *, scope: Scope, kept_min: float = 0.1
) -> list[list[int]]:
    """The units to remove from each group, lowest scores first; equal scores in the units' order.

    Args:
        fraction: of units, in [0, 1]: of each group ("uniform"), or of all together ("global"), where scores
            are divided by their mean in the group, since layers differ in size and position.
        kept_min: the least share of a group's units to keep, but at least one unit.
    """
    if scope == "uniform":
        counts = [_most(group.n_units, fraction, kept_min) for group in groups]
    else:
        counts = _global_counts(groups, scores, fraction, kept_min)
    return [
        [] if score is None else sorted(np.argsort(score, kind="stable")[:count].tolist())
        for score, count in zip(scores, counts, strict=True)
    ]


def _most(n_units: int, fraction: float, kept_min: float) -> int:
    kept = max(1, int(np.ceil(kept_min * n_units)))
    return min(int(fraction * n_units), n_units - kept)


def _global_counts(
    groups: Sequence[ChannelGroup], scores: Scores, fraction: float, kept_min: float
) -> list[int]:
    tiny = np.finfo(np.float64).tiny
    judged = {
        index: score / max(score.mean(), tiny) for index, score in enumerate(scores) if score is not None
    }
    counts = [0] * len(groups)
    if judged:
        pooled = np.concatenate(list(judged.values()))
        owners = np.repeat(list(judged), [len(score) for score in judged.values()])
        lowest = owners[np.argsort(pooled, kind="stable")[: int(fraction * len(pooled))]]
        for index, count in zip(*np.unique(lowest, return_counts=True), strict=True):
            counts[index] = min(int(count), _most(groups[index].n_units, 1.0, kept_min))
    return counts
