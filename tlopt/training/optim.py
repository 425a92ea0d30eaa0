"""Parameter groups with their peak learning rates, optimisers, and the learning-rate schedule."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from tlopt.model.partition import Partition
from tlopt.spec.point import Point, Schedule


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a peak learning rate."""

    names: tuple[str, ...]
    lr: float


def peak_lr(point: Point, block: int, n_blocks: int) -> float:
    """Peak learning rate of `block`, counted from 1 at the input; `n_blocks` + 1 is the head.

    Transferred block i of k has lr · lr_ratio · lr_decay**(k + 1 - i); fresh blocks and the head have lr.
    """
    if block > min(point.transfer_depth, n_blocks):
        return point.lr
    return point.lr * point.lr_ratio * point.lr_decay ** (point.transfer_depth + 1 - block)


def make_groups(
    parameters: Mapping[str, Tensor], partition: Partition, point: Point
) -> tuple[ParameterGroup, ...]:
    """Group the trainable parameters by peak learning rate: the head first, then by descending rate.

    The head has its own group because it may be trained alone at first: in a group of torch's fused SGD,
    either all parameters have momentum or none has.

    Raises:
        ValueError: a parameter would be in no group or in two.
    """
    n_blocks = max(partition.block_of.values()) - 1
    names_by_rate = defaultdict(list)
    for name in partition.trained:
        if name in parameters:
            block = partition.block_of[name]
            names_by_rate[block > n_blocks, peak_lr(point, block, n_blocks)].append(name)
    groups = tuple(
        ParameterGroup(tuple(names), lr) for (_, lr), names in sorted(names_by_rate.items(), reverse=True)
    )
    grouped = [name for group in groups for name in group.names]
    fixed = [name for name in partition.fixed if name in parameters]
    if sorted([*grouped, *fixed]) != sorted(parameters):
        raise ValueError("the groups and the fixed parameters do not partition the network's parameters")
    return groups


def make_optimizer(
    parameters: Mapping[str, Tensor], groups: tuple[ParameterGroup, ...], point: Point
) -> torch.optim.Optimizer:
    """Fused SGD with Nesterov momentum or AdamW, without weight decay, which `penalty` applies."""
    rows = [{"params": [parameters[name] for name in group.names], "lr": group.lr} for group in groups]
    match point.optimizer:
        case "sgd":
            return torch.optim.SGD(
                rows, lr=point.lr, momentum=point.momentum, nesterov=point.momentum > 0, fused=True
            )
        case "adamw":
            return torch.optim.AdamW(
                rows, lr=point.lr, betas=(point.momentum, 0.999), weight_decay=0.0, fused=True
            )
        case _:
            assert_never(point.optimizer)


def schedule_factor(step: int, *, n_steps: int, warmup_fraction: float, schedule: Schedule) -> float:
    """Factor in (0, 1] for the peak learning rates at `step` (0 to n_steps - 1).

    It rises linearly over the first `warmup_fraction` of the steps, then stays constant or falls along a
    cosine or a line that would reach 0 one step after the last.
    """
    n_warmup = round(warmup_fraction * n_steps)
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    progress = (step - n_warmup) / (n_steps - n_warmup)
    match schedule:
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0
        case _:
            assert_never(schedule)
