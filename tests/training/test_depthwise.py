"""Depthwise convolutions in bfloat16: other kernels with the same gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlopt.training.kernels import fast_convolutions

CPU = torch.device("cpu")
SHAPES = [
    (side, stride, padding)
    for side, stride in itertools.product((3, 5, 7), (1, 2))
    for padding in {0, side // 2}
]


def gradients(convolution: nn.Conv2d, x: Tensor, weighting: Tensor, *, quick: bool) -> list[Tensor]:
    """Output, and gradients of the input and the parameters, of a weighted sum under bfloat16 autocast."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if quick:
            with fast_convolutions(CPU):
                out = convolution(x)
        else:
            out = convolution(x)
    wanted = [x, *convolution.parameters()]
    return [out.detach(), *torch.autograd.grad((out.float() * weighting).sum(), wanted)]


@pytest.mark.parametrize(("side", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_the_library(
    side: int, stride: int, padding: int, layout: torch.memory_format, bias: bool
) -> None:
    torch.manual_seed(side)
    layer = nn.Conv2d(16, 16, side, stride, padding, groups=16, bias=bias).to(memory_format=layout)
    x = torch.randn(4, 16, 11, 9).contiguous(memory_format=layout)
    weighting = torch.randn(layer(x).shape)
    for found, expected in zip(
        gradients(layer, x, weighting, quick=True), gradients(layer, x, weighting, quick=False), strict=True
    ):
        assert found.dtype == expected.dtype
        # bfloat16 has 8 bits; sums are rounded once or twice
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize(("side", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_the_library_s_to_the_bit(side: int, stride: int, padding: int, bias: bool) -> None:
    torch.manual_seed(side)
    layer = nn.Conv2d(16, 16, side, stride, padding, groups=16, bias=bias)
    x = torch.randn(4, 16, 11, 9)
    weighting = torch.ones(layer(x).shape)
    quick, usual = (gradients(layer, x, weighting, quick=quick)[0] for quick in (True, False))
    assert torch.equal(quick, usual)


def test_a_tap_s_gradient_is_the_product_of_what_it_sees() -> None:
    layer = nn.Conv2d(2, 2, 5, padding=2, groups=2, bias=False)
    x = torch.zeros(1, 2, 6, 6)
    x[0, 1, 3, 2] = 4.0
    weighting = torch.zeros(1, 2, 6, 6)
    weighting[0, 1, 4, 4] = 8.0
    *_, of_weight = gradients(layer, x, weighting, quick=True)
    expected = torch.zeros(2, 1, 5, 5)
    expected[1, 0, 2 + 3 - 4, 2 + 2 - 4] = 32.0  # the tap through which that output sees that input
    assert torch.equal(of_weight, expected)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 5, padding=2),
        nn.Conv2d(8, 8, 5, padding=2, groups=4),
        nn.Conv2d(8, 16, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, dilation=2, groups=8),
    ],
    ids=str,
)
def test_every_other_convolution_keeps_its_bits(layer: nn.Conv2d) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 12, 12)
    weighting = torch.randn(layer(x).shape)
    pairs = zip(
        gradients(layer, x, weighting, quick=True), gradients(layer, x, weighting, quick=False), strict=True
    )
    assert all(torch.equal(found, expected) for found, expected in pairs)


def test_float32_keeps_its_bits() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8), torch.randn(4, 8, 12, 12)
    plain = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    with fast_convolutions(CPU):
        out = layer(x)
    quick = torch.autograd.grad(out.square().sum(), list(layer.parameters()))
    assert all(map(torch.equal, plain, quick))


def test_only_asked_gradients_are_computed() -> None:
    weight = torch.randn(4, 1, 5, 5)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), fast_convolutions(CPU):
        out = F.conv2d(x, weight, None, (1, 1), (2, 2), (1, 1), 4)
    out.float().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert weight.grad is None
