"""L2 and L2-SP as one thing: a pull of a strength toward a point between zero and the pretrained weight.

With α the strength of L2-SP (Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483) and β of L2,

    ½α‖w − w⁰‖² + ½β‖w‖² = ½λ‖w − t‖² + const,   λ = α + β,   t = (α / λ) w⁰,

so plain L2 (α = 0, t = 0), L2-SP (β = 0, t = w⁰) and every mixture take one code path and no autograd term.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tlopt.model.partition import Partition
from tlopt.spec.point import Point


@dataclass(frozen=True)
class Pull:
    """½·`strength`·‖weight − target‖²; `strength` > 0, `target` has the weight's shape, device and dtype."""

    name: str
    weight: Tensor
    target: Tensor
    strength: float


def make_pulls(
    parameters: Mapping[str, Tensor],
    partition: Partition,
    pulled: frozenset[str],
    pretrained: Mapping[str, Tensor],
    point: Point,
) -> tuple[Pull, ...]:
    """The pulls of `point`: at most one for each trainable weight matrix, none where its strength is 0.

    Args:
        parameters: name to parameter, of the whole network.
        partition: which of them are frozen, transferred, fresh or head's.
        pulled: the names that a penalty may touch (weight matrices, no norms or biases).
        pretrained: w⁰ by name, read from the pretrained file and never from trained weights.
        point: `anchor_depth`, `l2_sp`, `l2` and `l2_anchored`.
    """
    trainable = (*partition.transferred, *partition.fresh, *partition.head)
    transferred = frozenset(partition.transferred)
    pulls = []
    for name in trainable:
        if name not in pulled:
            continue
        anchored = name in transferred and partition.block_of[name] <= point.anchor_depth
        alpha = point.l2_sp if anchored else 0.0
        strength = alpha + (point.l2_anchored if anchored else point.l2)
        if strength == 0:
            continue
        weight = parameters[name].detach()
        # made like the weight, memory format included: foreach stays on its fast path
        target = torch.zeros_like(weight)
        if alpha:
            target.copy_(pretrained[name]).mul_(alpha / strength)
        pulls.append(Pull(name, parameters[name], target, strength))
    return tuple(pulls)


def half_squared_distance(pulls: tuple[Pull, ...]) -> Tensor:
    """Σ ½λ‖w − t‖² as a float32 scalar that autograd can follow; for reports and tests, not for training."""
    terms = [pull.strength * (pull.weight.float() - pull.target.float()).pow(2).sum() / 2 for pull in pulls]
    return torch.stack(terms).sum() if terms else torch.zeros(())


@torch.no_grad()
def add_to_gradients(pulls: tuple[Pull, ...]) -> None:
    """Add λ(w − t) to the gradients in place: what the loss term would add. Weights without one are left out.

    For SGD, after gradient clipping and before momentum.
    """
    active = [pull for pull in pulls if pull.weight.grad is not None]
    if not active:
        return
    distance = torch._foreach_sub([pull.weight for pull in active], [pull.target for pull in active])
    torch._foreach_mul_(distance, [pull.strength for pull in active])
    torch._foreach_add_([pull.weight.grad for pull in active if pull.weight.grad is not None], distance)


@torch.no_grad()
def decay_weights(pulls: tuple[Pull, ...], lr_of: Mapping[str, float]) -> None:
    """w ← w − lr·λ·(w − t) in place, decoupled from the gradient as AdamW's decay; no gradient, no change.

    `lr_of` is each weight's rate in this step. A weight that sits on its target stays there exactly.
    """
    active = [pull for pull in pulls if pull.weight.grad is not None]
    if not active:
        return
    torch._foreach_lerp_(
        [pull.weight for pull in active],
        [pull.target for pull in active],
        [lr_of[pull.name] * pull.strength for pull in active],
    )
