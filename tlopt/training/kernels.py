"""Faster bfloat16 convolutions on CPUs, and compiled training steps.

oneDNN in torch 2.14 uses slow reference loops for two bfloat16 gradients of depthwise convolutions: the
weight gradient for kernels wider than 3, and the input gradient of strided convolutions. Each takes 4 to 30
times as long as comparable gradients, together half of a training step of an EfficientNet. Here the first is
assembled from 3 × 3 kernels, which gives the same sum, and the second is computed in float32.

It also reorders all weights of a dense convolution in each step, which takes most of the time where a batch
has few positions, as in the last blocks of a network. There products of matrices take 1.2 to 4 times less for
forward and backward pass together (benchmarks/speed/README.md, "Convolutions as products of matrices").
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
# Most positions of a batch, images × height × width of the output, up to which a product of matrices is
# faster: of a 1 × 1 kernel, and of a 3 × 3 kernel for each output channel, since its patches are copied.
_POSITIONS_MAX = 512
_POSITIONS_PER_CHANNEL = 0.75
_WEIGHTS_MIN = 1 << 15  # below, calls cost more than the reordering


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


def fast_convolutions(device: torch.device) -> AbstractContextManager[object]:
    """Context in which slow convolutions are replaced under bfloat16 autocast on a CPU, to rounding."""
    return _FastConvolutions() if device.type == "cpu" and torch.is_autocast_enabled("cpu") else nullcontext()


class _FastConvolutions(TorchFunctionMode):
    """Route `conv2d` calls that oneDNN is slow for to `_Depthwise` and `_Product`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and torch.is_grad_enabled() and not kwargs:
            kind = _Depthwise if _is_slow(*args) else _Product if _has_few_positions(*args) else None
            if kind is not None:
                x, weight, bias, stride, padding = args[:5]
                dtype = torch.get_autocast_dtype("cpu")
                bias = None if bias is None else bias.to(dtype)
                return kind.apply(x.to(dtype), weight.to(dtype), bias, stride, padding)
        return func(*args, **(kwargs or {}))


def _has_few_positions(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] | str = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> bool:
    """Whether a product of matrices is faster, for features in channels-last order."""
    side = weight.shape[2]
    if (
        groups > 1
        or weight.numel() < _WEIGHTS_MIN
        or side != weight.shape[3]
        or side not in (1, 3)
        or isinstance(padding, str)
        or tuple(padding) != (side // 2, side // 2)
        or tuple(dilation) != (1, 1)
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return False
    # ceil: padding of half a kernel keeps the size, and a stride takes every so many-th position
    height, width = (-(-extent // step) for extent, step in zip(x.shape[2:], stride, strict=True))
    most = _POSITIONS_MAX if side == 1 else _POSITIONS_PER_CHANNEL * len(weight)
    return len(x) * height * width <= most


class _Product(torch.autograd.Function):
    """A dense convolution in channels-last order as a product of its patches and its weights.

    Patches are (positions, side · side · channels), weights (out, side · side · channels).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
    ) -> Tensor:
        patches = _patches(x, weight.shape[2], stride)
        rows = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        seen = patches.flatten(0, 2).flatten(1)
        ctx.save_for_backward(seen, rows)
        ctx.stride, ctx.shapes = stride, (x.shape, weight.shape, patches.shape[:3])
        found = F.linear(seen, rows, bias)
        return found.view(*patches.shape[:3], len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        patches, rows = ctx.saved_tensors
        of_positions = gradient.permute(0, 2, 3, 1).reshape(len(patches), -1)
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _unpatched(of_positions @ rows, ctx.shapes, ctx.stride) if of_x else None,
            _as_kernels(of_positions.t() @ patches, ctx.shapes[1]) if of_weight else None,
            of_positions.sum(0) if of_bias else None,
            None,
            None,
        )


def _patches(x: Tensor, side: int, stride: Sequence[int]) -> Tensor:
    """What each position of the output sees of `x`: (images, height, width, side, side, channels)."""
    half = side // 2
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, half, half, half, half)) if half else x.permute(0, 2, 3, 1)
    return padded.unfold(1, side, stride[0]).unfold(2, side, stride[1]).permute(0, 1, 2, 4, 5, 3)


def _unpatched(of_patches: Tensor, shapes: tuple[torch.Size, ...], stride: Sequence[int]) -> Tensor:
    """The gradient of the features: sums over the patches that see a position, in float32.

    Args:
        shapes: Of the features, of the weight, and (images, height, width) of the output.
    """
    x, weight, out = shapes
    side = weight[2]
    parts = of_patches.view(*out, side, side, weight[1])
    if side == 1 and max(stride) == 1:
        return parts[:, :, :, 0, 0].permute(0, 3, 1, 2)
    half = side // 2
    sums = torch.zeros(x[0], x[2] + 2 * half, x[3] + 2 * half, x[1], dtype=torch.float32)
    last = [step * (extent - 1) + 1 for step, extent in zip(stride, out[1:], strict=True)]
    for top in range(side):
        for left in range(side):
            seen = sums[:, top : top + last[0] : stride[0], left : left + last[1] : stride[1]]
            seen += parts[:, :, :, top, left]
    inner = sums[:, half : half + x[2], half : half + x[3]]
    return inner.permute(0, 3, 1, 2).to(of_patches.dtype)


def _as_kernels(rows: Tensor, weight: torch.Size) -> Tensor:
    """(out, side · side · channels) in the shape of a convolution's weight."""
    return rows.view(weight[0], weight[2], weight[3], weight[1]).permute(0, 3, 1, 2)


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
