"""The operations up to each block equal a count by hand, including those of attention."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from tlopt.model.families.table import as_network
from tlopt.model.network import Network, block
from tlopt.training.frozen_prefix import FeatureFormat, canonical_layout, find_split_points
from tlopt.training.numerics import Numerics

NUMERICS = [Numerics(), Numerics("bfloat16", "channels_last")]


def transformer_layer(n: int, width: int, hidden: int) -> int:
    """Operations of a layer for `n` tokens, a multiplication and an addition being 2."""
    projections = 2 * n * width * (3 * width) + 2 * n * width * width
    attention = 2 * n * n * width + 2 * n * n * width  # queries by keys, then weights by values
    perceptron = 2 * n * width * hidden + 2 * n * hidden * width
    return projections + attention + perceptron


@pytest.mark.parametrize("numerics", NUMERICS, ids=str)
def test_convolutions(numerics: Numerics) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)
    )
    network = Network(net, (block(net, "a", "0"), block(net, "b", "1", "2")), "3", 4 * 6 * 6).eval()

    counted = [row.flops for row in find_split_points(network, torch.zeros(1, 3, 8, 8), numerics)]

    first, depthwise = 2 * 8 * 8 * 4 * (3 * 9), 2 * 6 * 6 * 4 * 9
    assert counted == [first, first + depthwise]


@pytest.mark.parametrize("numerics", NUMERICS, ids=str)
def test_transformers_of_torchvision(numerics: Numerics) -> None:
    net = VisionTransformer(32, 16, 2, num_heads=2, hidden_dim=8, mlp_dim=16)

    counted = [
        row.flops
        for row in find_split_points(as_network(net, "vit_b_16").eval(), torch.zeros(1, 3, 32, 32), numerics)
    ]

    stem, layer = 2 * 4 * (3 * 16 * 16) * 8, transformer_layer(4 + 1, 8, 16)
    assert counted == [stem, stem + layer, stem + 2 * layer]


def test_transformers_of_timm() -> None:
    timm = pytest.importorskip("timm")
    name = "vit_tiny_patch16_224"
    net = timm.create_model(name, img_size=32, depth=2)

    counted = [
        row.flops
        for row in find_split_points(
            as_network(net, f"timm:{name}").eval(), torch.zeros(1, 3, 32, 32), Numerics()
        )
    ]

    stem, layer = 2 * 4 * (3 * 16 * 16) * 192, transformer_layer(4 + 1, 192, 4 * 192)
    assert counted == [stem, stem + layer, stem + 2 * layer]


@pytest.mark.parametrize("numerics", NUMERICS, ids=str)
def test_counting_leaves_torch_s_settings_and_the_features_form(numerics: Numerics) -> None:
    net = VisionTransformer(32, 16, 2, num_heads=2, hidden_dim=8, mlp_dim=16)
    network, x = as_network(net, "vit_b_16").eval(), torch.zeros(1, 3, 32, 32)
    before = torch.backends.mha.get_fastpath_enabled()

    rows = find_split_points(network, x, numerics)

    assert torch.backends.mha.get_fastpath_enabled() == before
    with torch.no_grad(), numerics.autocast(x.device):
        for row, part in zip(rows, network.blocks, strict=True):
            x = part.forward(x)
            assert row.feature_format == FeatureFormat.of(canonical_layout(x))
