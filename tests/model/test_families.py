"""Blocks, partition and transfer of one small network of every family, at every depth."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tlopt.model.build import build, outline, transfer
from tlopt.model.network import Network
from tlopt.model.partition import blocks_of, partition, penalised
from tlopt.model.weights import Weights, load_weights
from tlopt.spec.point import Point
from tlopt.training.frozen_prefix import FeatureFormat, forward_blocks
from tlopt.training.numerics import Numerics

# Name, pixels per side, number of blocks counted by hand in the table of the architecture.
TORCHVISION = [
    ("resnet18", 32, 1 + 8),
    ("resnext50_32x4d", 32, 1 + 16),
    ("densenet121", 32, 1 + 58 + 3),
    ("densenet121@0.25", 32, 1 + 58 + 3),
    ("vgg11_bn", 32, 8),
    ("vgg11_bn@0.25", 32, 8),
    ("mobilenet_v2", 32, 1 + 17),
    ("mobilenet_v3_small", 32, 1 + 11),
    ("efficientnet_b0", 32, 1 + 16),
    ("efficientnet_v2_s", 32, 1 + 40),
    ("convnext_tiny", 32, 1 + 18),
    ("regnet_x_400mf", 32, 1 + 22),
    ("regnet_y_400mf", 32, 1 + 16),
    ("vit_b_16", 32, 1 + 12),
    ("vit_b_16@0.25", 32, 1 + 12),
    ("swin_t", 32, 1 + 12),
    ("swin_v2_t", 32, 1 + 12),
    ("inception_v3", 75, 5 + 11),
]
TIMM = [
    ("efficientnet_lite0", 32, 1 + 16),
    ("timm:resnet26d", 32, 1 + 8),
    ("timm:resnet26d@0.25", 32, 1 + 8),
    ("timm:tf_efficientnetv2_b0", 32, 1 + 21),
    ("timm:mobilenetv2_035", 32, 1 + 17),
    ("timm:mobilenetv3_small_050", 32, 1 + 11),
    ("timm:convnext_atto", 32, 1 + 12),
    ("timm:convnext_atto_ols", 32, 1 + 12),
    ("timm:vit_tiny_patch16_224", 32, 1 + 12),
    ("timm:vit_tiny_patch16_224@0.5", 32, 1 + 12),
    ("timm:deit3_small_patch16_224", 32, 1 + 12),
    ("timm:test_vit4", 160, 1 + 9),
]
N_CLASSES = 5


@pytest.fixture(scope="module", params=[*TORCHVISION, *TIMM], ids=lambda row: row[0])
def case(request: pytest.FixtureRequest, point: Callable[..., Point]) -> tuple[str, Network, Tensor]:
    """A backbone's name, its fresh network, and two images for it."""
    backbone, resolution, _ = request.param
    if backbone not in {row[0] for row in TORCHVISION}:
        pytest.importorskip("timm")
    # Networks with position embeddings are built for the resolution of their weights.
    weights = replace(load_weights(backbone, "none"), resolution=resolution)
    network = build(point(backbone, resolution=resolution), n_classes=N_CLASSES, weights=weights, seed=3)
    images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(5))
    return backbone, network, images


@pytest.mark.parametrize(("backbone", "n_blocks"), [(row[0], row[2]) for row in TORCHVISION])
def test_torchvision_backbones_have_the_blocks_of_their_tables(backbone: str, n_blocks: int) -> None:
    assert [row.index for row in outline(backbone)] == list(range(1, n_blocks + 1))


@pytest.mark.parametrize(("backbone", "n_blocks"), [(row[0], row[2]) for row in TIMM])
def test_timm_backbones_have_the_blocks_of_their_tables(backbone: str, n_blocks: int) -> None:
    pytest.importorskip("timm")

    assert [row.index for row in outline(backbone)] == list(range(1, n_blocks + 1))


def test_every_tensor_is_in_exactly_one_group_at_every_depth(case: tuple[str, Network, Tensor]) -> None:
    _, network, _ = case
    names = sorted(network.net.state_dict())

    for depth in range(len(network.blocks) + 1):
        parts = partition(network, transfer_depth=depth, freeze_depth=depth // 2)

        assert sorted([*parts.frozen, *parts.transferred, *parts.fresh, *parts.head]) == names
        assert {parts.block_of[name] for name in parts.frozen} == set(range(1, depth // 2 + 1))
        assert {parts.block_of[name] for name in parts.transferred} == set(range(depth // 2 + 1, depth + 1))
        assert {parts.block_of[name] for name in parts.head} == {len(network.blocks) + 1}


def test_every_leaf_module_is_in_exactly_one_block(case: tuple[str, Network, Tensor]) -> None:
    _, network, _ = case
    rows = [network.members_of(index) for index in range(1, len(network.blocks) + 2)]
    block_of: dict[nn.Module, list[int]] = {}
    for index, row in enumerate(rows, 1):
        for module in {m for member in row if isinstance(member, nn.Module) for m in member.modules()}:
            block_of.setdefault(module, []).append(index)

    leaves = {name: module for name, module in network.net.named_modules() if not [*module.children()]}

    assert [name for name, module in leaves.items() if len(block_of.get(module, [])) != 1] == []


def test_blocks_give_the_library_s_logits_and_do_not_change_their_inputs(
    case: tuple[str, Network, Tensor],
) -> None:
    _, network, images = case
    network.eval()
    with torch.no_grad():
        expected = network.net(images)

        x = images
        for part in network.blocks:
            before = x.clone()
            y = part.forward(x)
            assert torch.equal(x, before), part.name
            x = y

        assert x.shape == (2, network.feature_width)
        assert torch.equal(network.head(x), expected)
        assert torch.equal(network(images), expected)


def test_prefix_and_suffix_make_the_whole_network(case: tuple[str, Network, Tensor]) -> None:
    _, network, images = case
    network.eval()
    n_blocks = len(network.blocks)
    with torch.no_grad():
        expected = network(images)

        for depth in (0, 1, n_blocks // 2, n_blocks):
            assert torch.equal(network.suffix(network.between(images, 0, depth), depth), expected)


@pytest.mark.parametrize("numerics", [Numerics(), Numerics("bfloat16", "channels_last")], ids=str)
def test_frozen_features_are_bitwise_equal_alone_in_a_batch_and_from_a_stored_block(
    case: tuple[str, Network, Tensor], numerics: Numerics
) -> None:
    _, network, images = case
    network.eval()
    n_blocks, middle = len(network.blocks), len(network.blocks) // 2
    pair = images.contiguous(memory_format=numerics.memory_format)

    together = forward_blocks(network, pair, 0, n_blocks, numerics)
    halfway = forward_blocks(network, pair, 0, middle, numerics)
    form = FeatureFormat.of(halfway)
    stored = form.from_rows(form.to_rows(halfway))

    for at in (0, 1):
        alone = pair[at : at + 1].contiguous(memory_format=numerics.memory_format)
        assert torch.equal(forward_blocks(network, alone, 0, n_blocks, numerics), together[at : at + 1])
    swapped = pair.flip(0).contiguous(memory_format=numerics.memory_format)
    assert torch.equal(forward_blocks(network, swapped, 0, n_blocks, numerics).flip(0), together)
    assert torch.equal(stored, halfway)
    assert torch.equal(forward_blocks(network, stored, middle, n_blocks, numerics), together)


def test_in_train_mode_blocks_draw_the_library_s_random_numbers(case: tuple[str, Network, Tensor]) -> None:
    _, network, images = case
    network.train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(9)
        expected = network.net(images)
        torch.manual_seed(9)
        assert torch.equal(network(images), expected)


def test_blocks_run_in_the_order_of_their_hooks(case: tuple[str, Network, Tensor]) -> None:
    _, network, images = case
    fired: list[int] = []
    handles = []
    for index in range(1, len(network.blocks) + 2):
        first = next(m for m in network.members_of(index) if isinstance(m, nn.Module))
        handles.append(first.register_forward_hook(lambda *_, index=index: fired.append(index)))
    with torch.no_grad():
        network.eval().net(images)
    for handle in handles:
        handle.remove()

    assert fired == list(range(1, len(network.blocks) + 2))


def test_with_all_blocks_frozen_features_are_those_of_eval_mode(case: tuple[str, Network, Tensor]) -> None:
    _, network, images = case
    with torch.no_grad():
        expected = network.eval()(images)
        network.set_mode(len(network.blocks))

        assert network.head.training
        assert torch.equal(network(images), expected)


def test_all_parameters_above_freeze_depth_and_no_others_have_gradients(
    case: tuple[str, Network, Tensor],
) -> None:
    _, network, images = case
    depth = len(network.blocks) // 2
    parts = partition(network, transfer_depth=depth, freeze_depth=depth)
    state = network.net.state_dict()
    frozen = {name: state[name].clone() for name in parts.frozen}
    network.set_mode(depth)

    with torch.no_grad():
        features = network.between(images, 0, depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        network.suffix(features, depth).square().sum().backward()

    with_gradient = {name for name, parameter in network.net.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in network.net.named_parameters()} - set(parts.frozen)
    assert all(torch.equal(state[name], tensor) for name, tensor in frozen.items())
    network.zero_grad()


def test_with_kept_statistics_all_parameters_have_gradients_and_statistics_are_fixed(
    case: tuple[str, Network, Tensor],
) -> None:
    _, network, images = case
    n_blocks = len(network.blocks)
    parts = partition(network, transfer_depth=n_blocks, freeze_depth=0, norm_depth=n_blocks)
    state = network.net.state_dict()
    before = {name: state[name].clone() for name in parts.frozen_norms}
    network.set_mode(0, n_blocks)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        network(images).square().sum().backward()

    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert set(parts.frozen_norms) == {name for name in state if name.endswith(statistics)}
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is not None for parameter in network.net.parameters())
    network.zero_grad()


def test_with_kept_weights_whole_batch_norm_layers_are_frozen_and_nothing_else(
    case: tuple[str, Network, Tensor],
) -> None:
    _, network, _ = case
    n_blocks = len(network.blocks)
    depth = n_blocks // 2

    parts = partition(network, transfer_depth=n_blocks, freeze_depth=0, norm_depth=depth, keeps_affine=True)

    layers = {
        name.removesuffix(".running_mean") for name in network.net.state_dict() if "running_mean" in name
    }
    expected = {
        name for name in parts.block_of if name.rpartition(".")[0] in layers and parts.block_of[name] <= depth
    }
    assert set(parts.frozen_norms) == expected
    assert sorted([*parts.frozen_norms, *parts.transferred, *parts.head]) == sorted(network.net.state_dict())
    assert penalised(network).isdisjoint(parts.frozen_norms)


def test_penalised_parameters_are_the_matrices_of_convolutions_linears_and_attention(
    case: tuple[str, Network, Tensor],
) -> None:
    _, network, _ = case
    parameters = dict(network.net.named_parameters())
    never = ("bias", "norm", "token", "pos_embed", "layer_scale", "relative_position", "logit_scale", "gamma")

    found = penalised(network)

    assert found <= set(parameters)
    assert all(parameters[name].dim() >= 2 for name in found)
    unpenalised = [name for name, tensor in parameters.items() if tensor.dim() >= 2 and name not in found]
    # ConvNeXt v1 of torchvision and the cosine bias network of Swin v2 have small tables of other kinds.
    assert [name for name in unpenalised if not any(word in name for word in never)] == []


def test_transferred_tensors_are_the_pretrained_ones_and_fresh_ones_are_not(
    case: tuple[str, Network, Tensor], planted_weights: Callable[[str, Network], Weights]
) -> None:
    backbone, network, _ = case
    network = copy.deepcopy(network)
    weights = planted_weights(backbone, network)
    block_of = blocks_of(network)
    state = network.net.state_dict()

    for depth in range(len(network.blocks) + 1):
        transfer(network, weights, depth=depth)

        # The planted tensors differ from the fresh ones in every element, so that one suffices.
        kept = {name for name, tensor in weights.state.items() if first(state[name]) == first(tensor)}
        assert kept == {name for name in weights.state if block_of[name] <= depth}
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.state.items())


def first(tensor: Tensor) -> float:
    return float(tensor.reshape(-1)[0])


def test_a_deep_copy_computes_with_its_own_tensors(case: tuple[str, Network, Tensor]) -> None:
    _, network, images = case
    network.eval()
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(float("nan"))

        x = images
        for own, copied in zip(network.blocks, other.blocks, strict=True):
            assert copied.forward(x).isnan().any(), own.name
            x = own.forward(x)
            assert x.isfinite().all(), own.name
