"""L2 and L2-SP penalties as one: a pull of each weight toward a target between zero and its pretrained value.

With strength α of L2-SP (Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483) and β of L2,

    ½α‖w − w⁰‖² + ½β‖w‖² = ½λ‖w − t‖² + const,   λ = α + β,   t = (α / λ) w⁰,

so L2 (α = 0, t = 0), L2-SP (β = 0, t = w⁰) and mixtures share one code path that needs no autograd.
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
    penalised: frozenset[str],
    pretrained: Mapping[str, Tensor],
    point: Point,
) -> tuple[Pull, ...]:
    """One pull for each trainable weight matrix with a penalty strength above 0.

    Args:
        parameters: parameters of the network by name.
        partition: division of the parameters into fixed, transferred, fresh and head.
        penalised: names of penalised parameters (weight matrices, no norms or biases).
        pretrained: w⁰ by name, from the pretrained file, never from trained weights.
        point: gives `anchor_depth`, `l2_sp`, `l2` and `l2_anchored`.
    """
    transferred = frozenset(partition.transferred)
    pulls = []
    for name in partition.trained:
        if name not in penalised:
            continue
        anchored = name in transferred and partition.block_of[name] <= point.anchor_depth
        alpha = point.l2_sp if anchored else 0.0
        strength = alpha + (point.l2_anchored if anchored else point.l2)
        if strength == 0:
            continue
        weight = parameters[name].detach()
        # same memory format as the weight, which keeps foreach on its fast path
        target = torch.zeros_like(weight)
        if alpha:
            target.copy_(pretrained[name]).mul_(alpha / strength)
        pulls.append(Pull(name, parameters[name], target, strength))
    return tuple(pulls)


def half_squared_distance(pulls: tuple[Pull, ...]) -> Tensor:
    """Σ ½λ‖w − t‖² as a differentiable float32 scalar; for reports and tests, not for training."""
    terms = [pull.strength * (pull.weight.float() - pull.target.float()).pow(2).sum() / 2 for pull in pulls]
    return torch.stack(terms).sum() if terms else torch.zeros(())


@torch.no_grad()
def add_to_gradients(pulls: tuple[Pull, ...]) -> None:
    """Add λ(w − t), the penalty's gradient, to the existing gradients in place.

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
    """Apply w ← w − lr·λ·(w − t) in place to weights that have a gradient, decoupled as AdamW's decay.

    `lr_of` gives each weight's learning rate in this step. A weight equal to its target stays so exactly.
    """
    active = [pull for pull in pulls if pull.weight.grad is not None]
    if not active:
        return
    torch._foreach_lerp_(
        [pull.weight for pull in active],
        [pull.target for pull in active],
        [lr_of[pull.name] * pull.strength for pull in active],
    )
