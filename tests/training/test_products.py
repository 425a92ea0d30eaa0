"""Convolutions of few positions in bfloat16: products of matrices with the same outputs and gradients."""

import itertools
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn

from tlopt.training import kernels
from tlopt.training.kernels import fast_convolutions

CPU = torch.device("cpu")
LAST = torch.channels_last


def outputs(
    layer: nn.Conv2d,
    x: Tensor,
    weighting: Tensor,
    *,
    quick: bool = False,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Tensor]:
    """Output, and gradients of the input and the parameters, of a weighted sum under autocast."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with ExitStack() as stack:
        stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16))
        if quick:
            stack.enter_context(fast_convolutions(CPU))
        out = layer(x)
    return [out.detach(), *torch.autograd.grad((out.float() * weighting).sum(), [x, *layer.parameters()])]


def both(layer: nn.Conv2d, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    weighting = torch.randn(layer(x).shape)
    return list(
        zip(outputs(layer, x, weighting, quick=True), outputs(layer, x, weighting, quick=False), strict=True)
    )


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that were multiplied."""
    shapes: list[tuple[int, ...]] = []
    patches = kernels._patches

    def counted(x: Tensor, side: int, stride: tuple[int, int]) -> Tensor:
        shapes.append((x.shape[1], side))
        return patches(x, side, stride)

    monkeypatch.setattr(kernels, "_patches", counted)
    return shapes


@pytest.mark.parametrize(("side", "stride"), list(itertools.product((1, 3), (1, 2))))
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("extent", [(3, 3), (5, 4), (1, 1)])
def test_outputs_and_gradients_are_those_of_the_library(
    side: int, stride: int, bias: bool, extent: tuple[int, int], products: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(side)
    layer = nn.Conv2d(256, 144, side, stride, side // 2, bias=bias).to(memory_format=LAST)
    x = torch.randn(3, 256, *extent).contiguous(memory_format=LAST)
    weighting = torch.randn(layer(x).shape)
    quick = outputs(layer, x, weighting, quick=True)
    assert products == [(256, side)]
    assert [each.dtype for each in quick] == [torch.bfloat16, *[torch.float32] * (len(quick) - 1)]
    # in bfloat16, torch 2.14 leaves gradients of a strided kernel unset where it sees only padding
    for found, expected in zip(quick, outputs(layer, x, weighting, dtype=torch.float32), strict=True):
        # bfloat16 has 8 bits; sums are rounded once or twice
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02 * expected.abs().max().item())


def test_a_weight_s_gradient_is_the_product_of_what_it_sees(products: list[tuple[int, ...]]) -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1, bias=False).to(memory_format=LAST)
    x, weighting = torch.zeros(1, 128, 4, 4), torch.zeros(1, 64, 4, 4)
    x[0, 7, 3, 2], weighting[0, 5, 2, 2] = 4.0, 8.0
    _, of_x, of_weight = outputs(layer, x.contiguous(memory_format=LAST), weighting, quick=True)
    expected = torch.zeros_like(of_weight)
    expected[5, 7, 2, 1] = 32.0  # that output sees the input below it
    assert torch.equal(of_weight, expected)
    assert torch.equal(of_x[0, :, 3, 2], 8 * layer.weight[5, :, 2, 1].bfloat16().float())
    assert products


@pytest.mark.parametrize(
    ("layer", "extent", "layout"),
    [
        (nn.Conv2d(256, 256, 3, padding=1), 10, LAST),  # many positions
        (nn.Conv2d(256, 256, 1), 16, LAST),
        (nn.Conv2d(256, 256, 3, padding=1), 3, torch.contiguous_format),
        (nn.Conv2d(256, 256, 5, padding=2), 3, LAST),
        (nn.Conv2d(256, 256, 3, padding=0), 5, LAST),
        (nn.Conv2d(256, 256, 3, padding=2, dilation=2), 3, LAST),
        (nn.Conv2d(256, 256, 3, padding=1, groups=2), 3, LAST),
        (nn.Conv2d(16, 16, 3, padding=1), 3, LAST),  # few weights
        (nn.Conv2d(256, 256, (1, 3), padding=(0, 1)), 3, LAST),
    ],
    ids=str,
)
def test_every_other_convolution_keeps_its_bits(
    layer: nn.Conv2d, extent: int, layout: torch.memory_format, products: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, layer.in_channels, extent, extent).contiguous(memory_format=layout)
    assert all(torch.equal(*pair) for pair in both(layer.to(memory_format=layout), x))
    assert products == []


def test_only_asked_gradients_are_computed() -> None:
    layer = nn.Conv2d(256, 256, 1).to(memory_format=LAST)
    layer.weight.requires_grad_(False)
    x = torch.randn(2, 256, 3, 3).contiguous(memory_format=LAST)
    with torch.autocast("cpu", dtype=torch.bfloat16), fast_convolutions(CPU):
        out = layer(x)
    out.float().sum().backward()  # type: ignore[no-untyped-call]
    assert (layer.weight.grad, x.grad) == (None, None)
    assert layer.bias is not None
    assert layer.bias.grad is not None
    assert torch.equal(layer.bias.grad, torch.full((256,), 18.0))
