"""Shortened backbones: their first blocks are the whole network's, and the rest is as asked for."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tlopt.compact.cost import count
from tlopt.errors import SpecError
from tlopt.model.build import blueprint, build, structure_of
from tlopt.model.network import Network
from tlopt.model.partition import partition_for, penalised
from tlopt.model.shortened import block_widths
from tlopt.model.weights import Weights, load_weights
from tlopt.spec.point import Point
from tlopt.spec.search_keys import ACTIVATIONS
from tlopt.training.numerics import usual_numerics
from tlopt.training.optim import make_groups, peak_lr

# Name, pixels per side, number of blocks.
QUICK = [
    ("resnet18", 32, 9),
    ("mobilenet_v2", 32, 18),
    ("mobilenet_v3_small", 32, 12),
    ("efficientnet_lite0", 32, 17),
    ("timm:convnext_atto", 32, 13),
    ("timm:vit_tiny_patch16_224", 48, 13),
]
SLOW = [
    ("densenet121", 32, 62),
    ("vgg11_bn", 32, 8),
    ("efficientnet_b0", 32, 17),
    ("convnext_tiny", 32, 19),
    ("regnet_x_400mf", 32, 23),
    ("regnet_y_400mf", 32, 17),
    ("vit_b_16", 32, 13),
    ("swin_t", 32, 13),
    ("swin_v2_t", 32, 13),
    ("inception_v3", 75, 16),
    ("timm:resnet26d", 32, 9),
    ("timm:mobilenetv3_small_050", 32, 12),
    ("timm:deit3_small_patch16_224", 32, 13),
    ("timm:test_vit4", 160, 10),
]
ALL = [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)]
N_CLASSES = 5


def weights_at(backbone: str, resolution: int) -> Weights:
    if backbone == "efficientnet_lite0" or backbone.startswith("timm:"):
        pytest.importorskip("timm")
    return replace(load_weights(backbone, "none"), resolution=resolution)


def built(point: Point, seed: int = 3) -> Network:
    weights = weights_at(point.backbone, point.resolution)
    return build(point, n_classes=N_CLASSES, weights=weights, seed=seed).eval()


def photos(resolution: int) -> Tensor:
    return torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def short(point: Callable[..., Point]) -> Callable[..., Point]:
    """A point of ResNet-18, or another, that uses 4 blocks and has a neck of 2 layers with 10 channels."""

    def make(backbone: str = "resnet18", *, resolution: int = 32, **changes: object) -> Point:
        usual = {"backbone_depth": 4, "neck_layers": 2, "neck_width": 10}
        return replace(point(backbone, resolution=resolution), **(usual | changes))

    return make


@pytest.mark.parametrize(("backbone", "resolution", "n_blocks"), ALL)
def test_features_are_those_of_the_whole_network_to_the_bit_at_every_kind_of_depth(
    point: Callable[..., Point], backbone: str, resolution: int, n_blocks: int
) -> None:
    whole = point(backbone, resolution=resolution)
    network, images = built(whole), photos(resolution)

    for depth in (1, n_blocks // 2, n_blocks - 1):
        at = replace(whole, backbone_depth=depth, neck_layers=depth % 2, neck_width=6, neck_kernel=3)
        shorter = built(at)
        with torch.no_grad():
            assert torch.equal(shorter.between(images, 0, depth), network.between(images, 0, depth))
            logits = shorter(images)
            assert logits.shape == (2, N_CLASSES)
            assert torch.equal(shorter.net(images), logits)
            assert torch.equal(shorter.suffix(shorter.between(images, 0, depth), depth), logits)
        groups = partition_for(shorter, at)
        assert set(groups.trained) | set(groups.fixed) == set(shorter.net.state_dict())
        assert set(groups.block_of.values()) <= set(range(1, depth + 3))
        kept = {name for name in groups.block_of if groups.block_of[name] <= depth}
        assert kept <= set(network.net.state_dict())


@pytest.mark.parametrize(("backbone", "resolution", "n_blocks"), ALL)
def test_the_widths_are_those_of_real_outputs(
    point: Callable[..., Point], backbone: str, resolution: int, n_blocks: int
) -> None:
    network, x = built(point(backbone, resolution=resolution)), photos(resolution)

    assert len(block_widths(backbone)) == n_blocks
    for part, width in zip(network.blocks, block_widths(backbone), strict=True):
        with torch.no_grad():
            x = part.forward(x)
        assert width in x.shape[1:]


def test_parameters_and_multiply_adds_are_those_counted_by_hand(short: Callable[..., Point]) -> None:
    # stem 3·64·49 + 128; two blocks of two 3×3 convolutions 64·64·9, each with a norm of 128
    body = 3 * 64 * 49 + 128 + 2 * 2 * (64 * 64 * 9 + 128)
    stem_area, area = 16 * 16, 8 * 8
    body_work = stem_area * 3 * 64 * 49 + area * 4 * 64 * 64 * 9
    head, head_work = 10 * N_CLASSES + N_CLASSES, 10 * N_CLASSES

    plain = built(short(backbone_depth=3, neck_layers=2, neck_width=10, neck_kernel=3))
    layers = 64 * 10 * 9 + 20 + 10 * 10 * 9 + 20
    assert sum(p.numel() for p in plain.parameters()) == body + layers + head
    cost = count(plain.net, 32)
    assert cost.parameters == body + layers + head
    assert cost.multiply_adds == body_work + area * (64 * 10 * 9 + 10 * 10 * 9) + head_work

    separable = built(
        short(backbone_depth=3, neck_layers=1, neck_width=10, neck_kernel=5, neck_convolution="separable")
    )
    cost = count(separable.net, 32)
    assert cost.parameters == body + 64 * 25 + 128 + 64 * 10 + 20 + head
    assert cost.multiply_adds == body_work + area * (64 * 25 + 64 * 10) + head_work

    without = count(built(short(backbone_depth=3, neck_layers=0)).net, 32)
    assert without.parameters == body + 64 * N_CLASSES + N_CLASSES
    assert without.multiply_adds == body_work + 64 * N_CLASSES


def test_without_a_neck_the_head_sees_the_averaged_map(short: Callable[..., Point]) -> None:
    network, images = built(short(backbone_depth=3, neck_layers=0)), photos(32)

    with torch.no_grad():
        averaged = network.between(images, 0, 3).mean(dim=(2, 3))

        torch.testing.assert_close(network.head(averaged), network(images), rtol=0, atol=1e-6)


def test_tokens_are_a_map_of_patches_without_the_class_token(short: Callable[..., Point]) -> None:
    at = short("timm:vit_tiny_patch16_224", resolution=48, backbone_depth=3, neck_layers=0)
    network, images = built(at), photos(48)

    with torch.no_grad():
        tokens = network.between(images, 0, 3)
        assert tokens.shape == (2, 1 + 9, 192)

        torch.testing.assert_close(
            network.head(tokens[:, 1:].mean(dim=1)), network(images), rtol=0, atol=1e-6
        )


def test_a_neck_of_a_transformer_sees_patches_beside_each_other(short: Callable[..., Point]) -> None:
    at = short("timm:vit_tiny_patch16_224", resolution=48, backbone_depth=1, neck_layers=1)
    network = built(at)
    seen: list[Tensor] = []
    network.net.get_submodule("neck.0").register_forward_pre_hook(lambda _m, given: seen.append(given[0]))

    with torch.no_grad():
        network(photos(48))
        tokens = network.between(photos(48), 0, 1)

    assert torch.equal(seen[0][:, :, 1, 2], tokens[:, 1 + 1 * 3 + 2])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_is_in_the_neck_and_in_the_head(short: Callable[..., Point], activation: str) -> None:
    network = built(short(activation=activation, head_layers=1))
    wanted = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}[activation]

    for where in ("neck.0.2", "neck.1.2", "fc.1"):
        assert type(network.net.get_submodule(where)) is wanted
    assert bool((wanted()(torch.zeros(3)) == 0).all())  # else its channels could not be removed


def test_new_weights_are_he_normal_and_from_the_seed(short: Callable[..., Point]) -> None:
    at = short(backbone_depth=3, neck_layers=1, neck_width=512)

    one, same, other = (built(at, seed).net.get_parameter("neck.0.0.weight") for seed in (3, 3, 4))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float(one.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)


def test_a_whole_network_has_the_weights_that_earlier_versions_drew(point: Callable[..., Point]) -> None:
    network = built(point("resnet18"))

    total = sum(float(parameter.detach().double().sum()) for parameter in network.parameters())
    assert total == pytest.approx(4778.975806568618, abs=1e-3)


def test_new_layers_are_fresh_blocks_with_their_rate_and_penalty(short: Callable[..., Point]) -> None:
    at = short(transfer_depth=4, freeze_depth=2, anchor_depth=4, lr=0.5, lr_ratio=0.1, lr_decay=0.5)
    network = built(at)
    groups = partition_for(network, at)
    parameters = dict(network.net.named_parameters())

    assert len(network.blocks) == 6
    assert {groups.block_of[name] for name in groups.fresh} == {5, 6}
    assert all(name.startswith("neck.") for name in groups.fresh)
    assert {groups.block_of[name] for name in groups.head} == {7}
    assert [peak_lr(at, block, 6) for block in (3, 4, 5, 6, 7)] == [0.0125, 0.025, 0.5, 0.5, 0.5]
    rates = {name: group.lr for group in make_groups(parameters, groups, at) for name in group.names}
    assert rates["neck.1.0.weight"] == rates["fc.weight"] == 0.5
    assert {"neck.0.0.weight", "neck.1.0.weight"} <= penalised(network)
    assert "neck.0.1.weight" not in penalised(network)


def test_pretrained_tensors_reach_the_blocks_that_are_left(
    short: Callable[..., Point], planted_weights: Callable[[str, Network], Weights]
) -> None:
    weights = planted_weights("resnet18", built(short(backbone_depth=0, neck_layers=0)))

    network = build(short(transfer_depth=4), n_classes=N_CLASSES, weights=weights, seed=3)

    state = network.net.state_dict()
    assert all(torch.equal(state[name], weights.state[name]) for name in state if name in weights.state)
    assert len([name for name in state if name in weights.state]) > 20


def test_a_copy_runs_its_own_modules(short: Callable[..., Point]) -> None:
    at = short("timm:vit_tiny_patch16_224", resolution=48)
    network, images = built(at), photos(48)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        expected = network(images)
        for parameter in twin.parameters():
            parameter.zero_()

        assert torch.equal(network.net(images), expected)
        assert not twin.net(images).any()


def test_the_layout_is_the_backbones_whatever_is_left_of_it(short: Callable[..., Point]) -> None:
    grouped = built(short("mobilenet_v2", backbone_depth=1, neck_layers=0))
    plain = built(short(neck_convolution="separable"))

    assert usual_numerics(grouped, torch.device("cpu")).layout == "channels_last"
    assert usual_numerics(plain, torch.device("cpu")).layout == "channels_first"


def test_nothing_of_the_blocks_above_is_left(short: Callable[..., Point]) -> None:
    names = built(short("vgg11_bn", backbone_depth=3)).net.state_dict()

    assert {name.split(".")[0] for name in names} == {"features", "neck", "classifier"}
    assert [name for name in names if name.startswith("classifier")] == [
        "classifier.6.weight",
        "classifier.6.bias",
    ]


def test_a_depth_of_the_whole_network_is_refused(short: Callable[..., Point]) -> None:
    with pytest.raises(
        SpecError, match="backbone_depth = 9: resnet18 has 9 blocks, so at most 8 can be used"
    ):
        built(short(backbone_depth=9))


def test_a_blueprint_is_the_network_without_its_values(short: Callable[..., Point]) -> None:
    at = short("timm:vit_tiny_patch16_224", resolution=48)

    drawn = blueprint(at, n_classes=N_CLASSES).net.state_dict()

    wanted = {name: tensor.shape for name, tensor in built(at).net.state_dict().items()}
    assert {name: tensor.shape for name, tensor in drawn.items()} == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone_depth": 5},
        {"neck_layers": 1},
        {"neck_width": 12},
        {"neck_kernel": 1},
        {"neck_convolution": "separable"},
    ],
    ids=str,
)
def test_structures_of_different_cost_are_different(
    short: Callable[..., Point], changes: dict[str, object]
) -> None:
    assert structure_of(short()) != structure_of(short(**changes))
    assert structure_of(short()) == structure_of(replace(short(), lr=0.5, transfer_depth=2))
