"""How a training step is computed where the library's own way is slow: quick gradients, compiled code.

oneDNN as in torch 2.14 computes two gradients of depthwise convolutions in bfloat16 by its reference loops:
that of a kernel wider than 3, and that of the input of a strided convolution. Each takes 4 to 30 times what
its neighbours take, and half of a training step of an EfficientNet goes there. Here the first is put together
of 3 × 3 ones, which is the same sum, and the second is computed in float32. And on request torch generates
code for the network at hand.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tlopt.errors import SpecError
from tlopt.model.network import Network

Suffix = Callable[[Tensor, int], Tensor]

# per function: networks side by side, times head alone or all, times whole and last batch
_RECOMPILES_MAX = 256
_SIDE = 3  # of the kernels whose gradients are quick


def compiled_suffix(network: Network) -> Suffix:
    """`network.suffix`, compiled for each shape and depth as it comes; first calls take seconds to minutes.

    What was compiled for earlier networks is forgotten: torch stops compiling one function after a few times.
    """
    from torch._dynamo import config  # takes a second, for those who compile alone

    torch.compiler.reset()
    config.recompile_limit = _RECOMPILES_MAX
    return torch.compile(network.suffix, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Check that torch can compile for `device`; takes some seconds.

    Raises:
        SpecError: it cannot; says why, and what to do.
    """
    try:
        torch.compile(_code_is_generated, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # torch has no one class for what its back ends run into
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpecError(
            f"model.compile = true: torch cannot compile for {device} here: {reason};"
            " install a C++ compiler (g++), for a GPU also triton, or leave it false"
        ) from error


def _code_is_generated(x: Tensor) -> Tensor:
    """For a matrix product alone torch would call its library and compile nothing."""
    return torch.relu(2 * x + 1)


def fast_depthwise(device: torch.device) -> AbstractContextManager[object]:
    """A block in which depthwise convolutions of a bfloat16 autocast on a CPU have quick gradients."""
    return _FastDepthwise() if device.type == "cpu" and torch.is_autocast_enabled("cpu") else nullcontext()


class _FastDepthwise(TorchFunctionMode):
    """Sends depthwise `conv2d` to `_Depthwise`, and leaves everything else as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and torch.is_grad_enabled() and not kwargs and _is_slow(*args):
            x, weight, bias, stride, padding = args[:5]
            dtype = torch.get_autocast_dtype("cpu")
            bias = None if bias is None else bias.to(dtype)
            return _Depthwise.apply(x.to(dtype), weight.to(dtype), bias, stride, padding)
        return func(*args, **(kwargs or {}))


def _is_slow(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] | str = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> bool:
    height, width = weight.shape[2:]
    return (
        groups == x.shape[1] == len(weight) > 1
        and height == width >= _SIDE
        and not isinstance(padding, str)
        and tuple(dilation) == (1, 1)
        and (height > _SIDE or max(stride) > 1)
    )


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        at = (ctx.stride, ctx.padding)
        of_x = _input_gradient(gradient, x, weight, *at) if ctx.needs_input_grad[0] else None
        of_weight = _weight_gradient(gradient, x, weight, *at) if ctx.needs_input_grad[1] else None
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    if max(stride) == 1:
        return _gradients(gradient, x, weight, stride, padding, of_x=True)
    shape = torch.empty_like(x, dtype=torch.float32)  # nothing but its shape and layout is looked at
    wide = _gradients(gradient.float(), shape, weight.float(), stride, padding, of_x=True)
    return wide.to(x.dtype)


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    side = weight.shape[2]
    if side == _SIDE:
        return _gradients(gradient, x, weight, stride, padding, of_x=False)
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    out, piece = torch.empty_like(weight), weight[:, :, :_SIDE, :_SIDE]
    height, width = (
        step * (extent - 1) + _SIDE for step, extent in zip(stride, gradient.shape[2:], strict=True)
    )
    offsets = [*range(0, side - _SIDE, _SIDE), side - _SIDE]
    for top in offsets:
        for left in offsets:
            seen = padded[:, :, top : top + height, left : left + width]
            out[:, :, top : top + _SIDE, left : left + _SIDE] = _gradients(
                gradient, seen, piece, stride, (0, 0), of_x=False
            )
    return out


def _gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    *,
    of_x: bool,
) -> Tensor:
    pair: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        len(weight),
        (of_x, not of_x, False),
    )
    return pair[0] if of_x else pair[1]
