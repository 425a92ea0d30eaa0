"""The batch-norm layers of a module: those that hold running statistics."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm


def batch_norms(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Qualified name and layer of each batch-norm in `module`, itself included, by what it holds.

    A running mean and a running variance make one, whatever its class: torch's, their synchronised kind,
    timm's with an activation, frozen ones. Instance norms and layers without statistics are none, nor are
    norms that hold only one of the two.
    """
    for name, layer in module.named_modules(prefix=prefix):
        held = (getattr(layer, "running_mean", None), getattr(layer, "running_var", None))
        if not isinstance(layer, _InstanceNorm) and all(isinstance(each, Tensor) for each in held):
            yield name, layer


def keep_statistics(module: nn.Module) -> None:
    """Put the batch-norm layers in `module` in eval mode in place, and nothing else.

    A layer of timm's also holds its activation and a dropout, whose modes stay.
    """
    for _, layer in batch_norms(module):
        layer.training = False
