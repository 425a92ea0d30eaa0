"""The state of one training run: network, optimiser and pulls, built from a point."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.errors import OutOfMemory
from tlopt.model.network import Network
from tlopt.model.partition import Partition, partition_for, penalised
from tlopt.spec.point import Point
from tlopt.training.frozen_prefix import FrozenPrefix
from tlopt.training.kernels import Suffix, compiled_suffix
from tlopt.training.numerics import Numerics, usual_numerics
from tlopt.training.optim import ParameterGroup, make_groups, make_optimizer
from tlopt.training.penalty import Pull, make_pulls

# cuDNN, cuBLAS, Apple's GPU and the CPU allocator raise a plain RuntimeError
_REFUSALS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise any out-of-memory error of the block, of device or machine, as `OutOfMemory`."""
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
    """The progress of a run, advanced by `loop.steps` alone.

    After an epoch's last step, `step` is the number of steps per epoch and the validation is still to come.
    """

    epoch: int = 0  # from 0
    step: int = 0  # steps completed in this epoch
    sums: Tensor | None = None  # (2,) on the device: loss and correct predictions, summed over the epoch


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that one training run needs and changes."""

    network: Network
    partition: Partition
    optimizer: torch.optim.Optimizer
    pulls: tuple[Pull, ...]
    groups: tuple[ParameterGroup, ...]  # in the optimiser's order
    n_classes: int
    class_weights: Tensor | None
    point: Point
    seed: int
    images_seed: int  # draws the training images and false labels of `point`
    device: torch.device
    numerics: Numerics
    n_micro_batches: int  # maximum number of micro-batches per batch
    compiled: Suffix | None  # compiled `network.suffix` for training steps; None: not compiled
    position: Position = field(default_factory=Position)

    @property
    def frozen_prefix(self) -> FrozenPrefix:
        """The frozen blocks at the input."""
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
    n_micro_batches: int = 1,
    numerics: Numerics | None = None,
    compiles: bool = False,
    images_seed: int | None = None,
) -> Run:
    """Start a run of `point`; moves `network` to `device` and disables gradients of fixed parameters.

    Args:
        network: built for `point`.
        pretrained: w⁰ by tensor name, from the weights file.
        labels: labels of the training images, for class weights.
        seed: seed of batch order, augmentation, mixup and dropout.
        n_classes: number of outputs of the head.
        n_micro_batches: maximum number of micro-batches per batch, at least 1. More need less memory for the
            same gradient, except that batch-norm and mixup see one micro-batch at a time.
        numerics: default: `usual_numerics` for the network and the device.
        compiles: whether to compile training steps, which makes the first ones slow.
        images_seed: seed of what a point with `train_images` or `label_noise` draws; default: `seed`.

    Raises:
        OutOfMemory: network and pulls do not fit on the device.
    """
    numerics = numerics or usual_numerics(network, device)
    network.to(device)
    network.to(memory_format=numerics.memory_format)
    parts = partition_for(network, point)
    parameters = dict(network.net.named_parameters())
    for name in parts.fixed:
        if name in parameters:
            parameters[name].requires_grad_(False)
    groups = make_groups(parameters, parts, point)
    return Run(
        network=network,
        partition=parts,
        optimizer=make_optimizer(parameters, groups, point),
        pulls=make_pulls(parameters, parts, penalised(network), pretrained, point),
        groups=groups,
        n_classes=n_classes,
        class_weights=_balanced(labels, n_classes, device) if point.class_weights == "balanced" else None,
        point=point,
        seed=seed,
        images_seed=seed if images_seed is None else images_seed,
        device=device,
        numerics=numerics,
        n_micro_batches=n_micro_batches,
        compiled=compiled_suffix(network) if compiles else None,
    )


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which lack it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _balanced(labels: NDArray[np.int64], n_classes: int, device: torch.device) -> Tensor:
    """Class weights (classes,) inversely proportional to class frequency, with mean 1 over images."""
    counts = np.bincount(labels, minlength=n_classes)
    return torch.tensor(len(labels) / (n_classes * np.maximum(counts, 1)), dtype=torch.float32, device=device)
