"""Vision transformers at other resolutions: positions are interpolated, all else is unchanged."""

from collections.abc import Callable

import pytest
import torch
from torchvision.models import VisionTransformer

from tlopt.errors import WeightsError
from tlopt.model.build import build, transfer
from tlopt.model.families.table import as_network
from tlopt.model.network import Network
from tlopt.model.positions import resized_positions
from tlopt.model.weights import Weights, load_weights
from tlopt.spec.point import Point

PlantedWeights = Callable[[str, Network], Weights]


def noise(n_rows: int, width: int = 8) -> torch.Tensor:
    return torch.randn(1, n_rows, width, generator=torch.Generator().manual_seed(2))


def test_a_grid_of_the_same_size_is_unchanged() -> None:
    embedding = noise(17)

    assert resized_positions(embedding, 17, 4) is embedding


@pytest.mark.parametrize("n_before", [0, 1, 5])
@pytest.mark.parametrize("side", [2, 3, 7])
def test_the_interpolation_is_timm_s(n_before: int, side: int) -> None:
    layers = pytest.importorskip("timm.layers")
    embedding = noise(n_before + 16)

    found = resized_positions(embedding, n_before + side**2, side)

    expected = layers.resample_abs_pos_embed(embedding, [side, side], num_prefix_tokens=n_before)
    assert torch.equal(found, expected)
    assert torch.equal(found[:, :n_before], embedding[:, :n_before])


def test_rows_and_columns_of_patches_keep_their_order() -> None:
    side = torch.arange(8.0)
    planted = torch.stack(torch.meshgrid(side, 10 * side, indexing="ij"), dim=-1).reshape(1, 64, 2)

    rows, columns = resized_positions(planted, 16, 4)[0].reshape(4, 4, 2).unbind(-1)

    assert torch.allclose(columns, 10 * rows.T, atol=1e-4)
    assert (rows.diff(dim=0) > 1).all()  # two patches became one
    assert torch.allclose(rows.diff(dim=1), torch.zeros(4, 3), atol=1e-5)


def test_an_embedding_without_a_square_grid_is_refused() -> None:
    with pytest.raises(WeightsError, match="has 13 rows, 1 of them before the patches"):
        resized_positions(noise(13), 5, 2)


def small(backbone: str, resolution: int) -> Network:
    """Two layers of the library's class, for images of `resolution` pixels."""
    if backbone == "vit_b_16":
        net = VisionTransformer(resolution, 16, 2, num_heads=2, hidden_dim=8, mlp_dim=16)
    else:
        timm = pytest.importorskip("timm")
        net = timm.create_model(backbone.removeprefix("timm:"), img_size=resolution, depth=2)
    return as_network(net, backbone).eval()


@pytest.mark.parametrize(
    ("backbone", "embedding"),
    [
        ("vit_b_16", "encoder.pos_embedding"),
        ("timm:vit_tiny_patch16_224", "pos_embed"),
        ("timm:test_vit4", "pos_embed"),  # without a class token, with a register
    ],
)
def test_pretrained_weights_are_transferred_to_another_resolution(
    backbone: str, embedding: str, planted_weights: PlantedWeights
) -> None:
    native, same, other = small(backbone, 64), small(backbone, 64), small(backbone, 96)
    weights = planted_weights(backbone, native)

    for network in (same, other):
        transfer(network, weights, depth=len(network.blocks))

    for name, tensor in weights.state.items():
        assert torch.equal(same.net.state_dict()[name], tensor), name
        if name != embedding:
            assert torch.equal(other.net.state_dict()[name], tensor), name
    found = other.net.state_dict()[embedding]
    assert found.shape[1] - weights.state[embedding].shape[1] == 6**2 - 4**2
    assert torch.equal(found, resized_positions(weights.state[embedding], found.shape[1], 6))
    assert other(torch.rand(2, 3, 96, 96)).shape == (2, 1000)


def test_a_network_is_built_for_the_resolution_of_its_point(point: Callable[..., Point]) -> None:
    pytest.importorskip("timm")
    backbone = "timm:vit_tiny_patch16_224"

    network = build(
        point(backbone, resolution=48), n_classes=3, weights=load_weights(backbone, "none"), seed=1
    )

    assert network(torch.rand(2, 3, 48, 48)).shape == (2, 3)


def test_patches_behind_a_convolutional_stem_are_measured_in_pixels_of_the_image() -> None:
    pytest.importorskip("timm")

    # the stem divides by 4, a patch is 8 of its outputs
    assert load_weights("timm:vit_tiny_r_s16_p8_224", "none").resolution_step == 32
