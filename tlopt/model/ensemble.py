"""Several networks as one, which answers with the mean of their probabilities."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Networks that map images (N, 3, R, R) to logits (N, classes), as one such network.

    Its logits are the logarithms of the mean of the members' probabilities, so that their softmax is that
    mean, and whatever takes a network's logits takes these. Tensors are named after the index of their
    member: "0.conv1.weight".
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        for index, member in enumerate(members):
            self.add_module(str(index), member)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logs = torch.stack([member(images).log_softmax(dim=1) for member in self.children()])
        return logs.logsumexp(dim=0) - math.log(len(logs))


def joined(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of an ensemble, from those of its members."""
    return {f"{index}.{name}": tensor for index, state in enumerate(states) for name, tensor in state.items()}


def separated(state: Mapping[str, Tensor], n_members: int) -> Iterator[dict[str, Tensor]]:
    """The tensors of each member of an ensemble, the reverse of `joined`."""
    for index in range(n_members):
        prefix = f"{index}."
        yield {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
