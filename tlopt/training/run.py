"""The state of one training run: network, optimiser and pulls, made from a point."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.errors import OutOfMemory
from tlopt.model.network import Network
from tlopt.model.partition import Partition, partition, pulled
from tlopt.spec.point import Point
from tlopt.training.frozen_prefix import FrozenPrefix
from tlopt.training.kernels import Suffix, compiled_suffix
from tlopt.training.numerics import Numerics, usual_numerics
from tlopt.training.optim import ParameterGroup, make_groups, make_optimizer
from tlopt.training.penalty import Pull, make_pulls

# cuDNN, cuBLAS and Apple's GPU refuse with a plain RuntimeError, as the CPU's allocator does
_REFUSALS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Every device's and the machine's refusal of memory, within, as `OutOfMemory`."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("the machine's memory is full") from error
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(s in str(error) for s in _REFUSALS):
            raise
        raise OutOfMemory(str(error).split("\n")[0]) from error


@dataclass
class Position:
    """How far a run has come; moved on by `fit.steps` alone.

    Behind an epoch's last step `step` is that epoch's number of steps, and its evaluation is still to come.
    """

    epoch: int = 0  # from 0
    step: int = 0  # steps taken in this epoch
    sums: Tensor | None = None  # (2,) on the device: this epoch's losses and hits, summed over images


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that one training run changes, and what it is measured against."""

    network: Network
    partition: Partition
    optimizer: torch.optim.Optimizer
    pulls: tuple[Pull, ...]
    groups: tuple[ParameterGroup, ...]  # in the order of the optimiser's
    n_classes: int
    class_weights: Tensor | None
    point: Point
    seed: int
    device: torch.device
    numerics: Numerics
    n_micro: int  # pieces at most in which a batch goes through the network
    compiled: Suffix | None  # for training steps in place of the network's own
    position: Position = field(default_factory=Position)

    @property
    def frozen_prefix(self) -> FrozenPrefix:
        """The blocks that it trains behind."""
        return FrozenPrefix(
            network=self.network, point=self.point, numerics=self.numerics, device=self.device
        )


@memory_errors()
def prepare_run(
    network: Network,
    point: Point,
    *,
    pretrained: Mapping[str, Tensor],
    labels: NDArray[np.int64],
    seed: int,
    device: torch.device,
    n_classes: int,
    n_micro: int = 1,
    numerics: Numerics | None = None,
    compiles: bool = False,
) -> Run:
    """A run of `point` at its start; moves `network` to `device` and stops the gradients of frozen blocks.

    Args:
        network: as built for `point`.
        pretrained: w⁰ by tensor name, as read from the weights' file.
        labels: of the training images, for class weights.
        seed: of batch order, augmentation, mixup and dropout.
        n_classes: of the head.
        n_micro: pieces at most in which a batch goes through the network, at least 1. More need less memory
            for the same gradient, with two differences: batch-norm in training sees a piece for a batch, and
            mixup pairs images of one piece.
        numerics: None: what is usual for the network and the device.
        compiles: whether training steps are compiled, which takes its time in the first.

    Raises:
        OutOfMemory: network and pulls do not fit the device.
    """
    numerics = numerics or usual_numerics(network, device)
    network.to(device)
    network.to(memory_format=numerics.memory_format)
    parts = partition(network, transfer_depth=point.transfer_depth, freeze_depth=point.freeze_depth)
    parameters = dict(network.net.named_parameters())
    for name in parts.frozen:
        if name in parameters:
            parameters[name].requires_grad_(False)
    groups = make_groups(parameters, parts, point)
    return Run(
        network=network,
        partition=parts,
        optimizer=make_optimizer(parameters, groups, point),
        pulls=make_pulls(parameters, parts, pulled(network), pretrained, point),
        groups=groups,
        n_classes=n_classes,
        class_weights=_balanced(labels, n_classes, device) if point.class_weights == "balanced" else None,
        point=point,
        seed=seed,
        device=device,
        numerics=numerics,
        n_micro=n_micro,
        compiled=compiled_suffix(network) if compiles else None,
    )


def widest_float(device: torch.device) -> torch.dtype:
    """float64, where `device` knows it: Apple's GPUs do not."""
    return torch.float32 if device.type == "mps" else torch.float64


def _balanced(labels: NDArray[np.int64], n_classes: int, device: torch.device) -> Tensor:
    """Weights (classes,) with which every class counts the same and the mean image counts 1."""
    counts = np.bincount(labels, minlength=n_classes)
    return torch.tensor(len(labels) / (n_classes * np.maximum(counts, 1)), dtype=torch.float32, device=device)
