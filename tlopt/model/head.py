"""The classifier on top of the blocks, always newly initialised."""

import itertools
from collections.abc import Callable, Mapping

from torch import nn

from tlopt.spec.point import Activation

ACTIVATIONS: Mapping[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


def make_head(
    width: int,
    n_classes: int,
    *,
    layers: int,
    hidden_width: int,
    dropout: float,
    activation: Activation = "relu",
) -> nn.Module:
    """A module that maps features (N, width) to logits (N, n_classes).

    Args:
        width: number of features.
        n_classes: at least 1.
        layers: number of hidden layers; 0 is a linear classifier.
        hidden_width: units of each hidden layer.
        dropout: probability in [0, 1) before each linear layer.
        activation: of the hidden layers.

    Returns:
        An `nn.Linear` without hidden layers and dropout, otherwise an `nn.Sequential` that ends in one.
    """
    if layers == 0 and dropout == 0:
        return nn.Linear(width, n_classes)
    widths = [width, *[hidden_width] * layers, n_classes]
    modules: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        if index > 0:
            modules.append(ACTIVATIONS[activation]())
        if dropout > 0:
            modules.append(nn.Dropout(dropout))
        modules.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*modules)
