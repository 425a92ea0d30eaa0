"""The batch-norm layers of a module, recognised by their running statistics."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm


def batch_norms(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Qualified name and layer of each batch-norm in `module`, itself included.

    A batch-norm is a layer of any class with a running mean and a running variance: torch's own, synchronised
    or frozen ones, timm's with an activation. Instance norms are excluded.
    """
    for name, layer in module.named_modules(prefix=prefix):
        statistics = (getattr(layer, "running_mean", None), getattr(layer, "running_var", None))
        if not isinstance(layer, _InstanceNorm) and all(isinstance(each, Tensor) for each in statistics):
            yield name, layer


def keep_statistics(module: nn.Module) -> None:
    """Put only the batch-norm layers in `module` in eval mode, in place.

    The children of such a layer (activation and dropout in timm's) stay in their mode.
    """
    for _, layer in batch_norms(module):
        layer.training = False
