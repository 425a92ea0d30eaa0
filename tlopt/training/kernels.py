"""Faster depthwise convolution gradients on CPUs, and compiled training steps.

oneDNN in torch 2.14 uses slow reference loops for two bfloat16 gradients of depthwise convolutions: the
weight gradient for kernels wider than 3, and the input gradient of strided convolutions. Each takes 4 to 30
times as long as comparable gradients, together half of a training step of an EfficientNet. Here the first is
assembled from 3 × 3 kernels, which gives the same sum, and the second is computed in float32.
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

# per function: networks trained side by side × head only or all × full and last batch
_RECOMPILES_MAX = 256
_SIDE = 3  # width of kernels whose weight gradients are fast


def compiled_suffix(network: Network) -> Suffix:
    """`network.suffix`, compiled on first use of each shape and depth, which takes seconds to minutes.

    Resets the compiler first, because torch stops recompiling a function after a number of variants.
    """
    from torch._dynamo import config  # a slow import, needed only here

    torch.compiler.reset()
    config.recompile_limit = _RECOMPILES_MAX
    return torch.compile(network.suffix, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Check that torch can compile for `device`; takes a few seconds.

    Raises:
        SpecError: it cannot; the message gives the reason and the cure.
    """
    try:
        torch.compile(_code_is_generated, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # the compiler back ends share no base class of errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpecError(
            f"model.compile = true: torch cannot compile for {device} here: {reason};"
            " install a C++ compiler (g++), for a GPU also triton, or leave it false"
        ) from error


def _code_is_generated(x: Tensor) -> Tensor:
    """Computation that needs generated code; for a matrix product torch would call a library."""
    return torch.relu(2 * x + 1)


def fast_depthwise(device: torch.device) -> AbstractContextManager[object]:
    """Context in which depthwise convolutions have fast gradients under bfloat16 autocast on a CPU."""
    return _FastDepthwise() if device.type == "cpu" and torch.is_autocast_enabled("cpu") else nullcontext()


class _FastDepthwise(TorchFunctionMode):
    """Route slow depthwise `conv2d` calls to `_Depthwise`."""

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
    """A depthwise convolution with fast gradients."""

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
    shape = torch.empty_like(x, dtype=torch.float32)  # only its shape and layout are used
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
