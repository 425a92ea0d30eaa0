"""A network without channels equals its masked twin, in every family; groups are those found by hand."""

import copy
import random

import pytest
import torch
from small_networks import N_CLASSES, RESOLUTION, TIMM, TORCHVISION, make_network
from torch import Tensor, nn

from tlopt.compact.cost import count, uses_of_weights
from tlopt.compact.groups import ChannelGroup, channel_groups, removed_axes
from tlopt.compact.surgery import masked, n_remaining, resized, without
from tlopt.model.families import table
from tlopt.model.network import Network
from tlopt.model.partition import blocks_of

FAMILIES = [*TORCHVISION, *TIMM]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=FAMILIES)
def network(request: pytest.FixtureRequest) -> Network:
    if request.param in TIMM:
        pytest.importorskip("timm")
    return make_network(request.param)


@pytest.fixture(scope="module")
def resolution(network: Network) -> int:
    return RESOLUTION["Inception v3"] if type(network.net).__name__ == "Inception3" else 32


@pytest.fixture(scope="module")
def groups(network: Network, resolution: int) -> list[ChannelGroup]:
    return channel_groups(network.net, resolution)


@pytest.fixture(scope="module")
def removed(groups: list[ChannelGroup]) -> dict[tuple[str, int], Tensor]:
    """Half of the units of every group, at random."""
    draw = random.Random(1)
    return removed_axes(groups, [draw.sample(range(g.n_units), g.n_units // 2) for g in groups])


@pytest.fixture(scope="module")
def images(resolution: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 3, resolution, resolution, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def smaller(network: Network, removed: dict[tuple[str, int], Tensor]) -> Network:
    return without(network, removed)


def test_the_logits_are_those_of_the_masked_twin(
    network: Network, smaller: Network, removed: dict[tuple[str, int], Tensor], images: Tensor
) -> None:
    twin = masked(network, removed)
    with torch.no_grad():
        full, expected, found = network(images), twin(images), smaller(images)

    assert found.shape == (2, N_CLASSES)
    assert not torch.allclose(full, expected, rtol=1e-3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_shapes_shrink_and_modules_know_their_sizes(network: Network, smaller: Network) -> None:
    n_full, n_small = (sum(p.numel() for p in each.parameters()) for each in (network, smaller))

    assert n_small < 0.75 * n_full
    for layer in smaller.net.modules():
        match layer:
            case nn.Conv2d():
                assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
            case nn.Linear():
                assert layer.weight.shape == (layer.out_features, layer.in_features)
            case nn.BatchNorm2d():
                assert layer.weight.shape == layer.running_mean.shape == (layer.num_features,)


def test_blocks_give_the_same_logits_as_the_library_s_forward_pass(smaller: Network, images: Tensor) -> None:
    with torch.no_grad():
        features = smaller.between(images, 0, len(smaller.blocks))

        assert features.shape == (2, smaller.feature_width)
        assert torch.equal(smaller.head(features), smaller.net(images))
    assert max(blocks_of(smaller).values()) == len(smaller.blocks) + 1


def test_every_parameter_of_the_smaller_network_gets_a_gradient(smaller: Network, images: Tensor) -> None:
    training = copy.deepcopy(smaller).train()

    training(torch.cat([images, 1 - images])).square().sum().backward()

    assert [name for name, p in training.named_parameters() if p.grad is None] == []


def test_groups_are_the_same_without_values_and_again(
    network: Network, groups: list[ChannelGroup], resolution: int
) -> None:
    again = channel_groups(copy.deepcopy(network.net).to("meta"), resolution)

    assert [group.name for group in again] == [group.name for group in groups]
    for one, other in zip(groups, again, strict=True):
        assert list(one.indices) == list(other.indices)
        assert all((one.indices[axis] == other.indices[axis]).all() for axis in one.indices)


def test_a_network_of_the_smaller_shapes_loads_the_tensors_without_a_record(
    network: Network, smaller: Network, images: Tensor
) -> None:
    state = smaller.net.state_dict()
    loaded = resized(network, {name: tensor.shape for name, tensor in state.items()})
    loaded.net.load_state_dict(state)

    with torch.no_grad():
        assert torch.equal(loaded(images), smaller(images))


@pytest.mark.slow
def test_the_smaller_network_becomes_a_program_of_torch_alone(smaller: Network, images: Tensor) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(smaller.net, (images,), dynamic_shapes=({0: batch},))

    with torch.no_grad():
        for some in (images[:1], torch.cat([images, images])):
            torch.testing.assert_close(program.module()(some), smaller.net(some), rtol=1e-9, atol=1e-12)


# Answers known by hand


class Plain(nn.Module):
    """A grouped convolution behind a plain one, a concatenation, a squeeze, a flattened map and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.grouped = nn.Conv2d(4, 8, 1, groups=2)
        self.beside = nn.Conv2d(8, 8, 1)
        self.apart = nn.Conv2d(4, 2, 1)
        self.flat = nn.Linear((8 + 2) * 4, 6)
        self.norm = nn.LayerNorm(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu()
        grouped = self.grouped(first)
        summed = grouped + self.beside(grouped)
        joined = torch.cat([summed, self.apart(first)], dim=1)
        logits: Tensor = self.fc(self.norm(self.flat(joined.flatten(1))))
        return logits


def test_groups_of_a_small_network_are_those_found_by_hand() -> None:
    groups = {group.name: group.indices for group in channel_groups(Plain(), 2)}

    assert list(groups) == ["first.weight", "apart.weight"]  # the norm keeps the outputs of "flat"
    # two of the first's channels and four of the grouped one's are a group of the convolution, one unit
    first = groups["first.weight"]
    assert first["first.weight", 0].tolist() == [[0, 1], [2, 3]]
    assert first["grouped.weight", 0].tolist() == first["beside.weight", 0].tolist()
    assert first["beside.weight", 1].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert first["apart.weight", 1].tolist() == [[0, 1], [2, 3]]
    assert first["flat.weight", 1].tolist() == [list(range(16)), list(range(16, 32))]
    apart = groups["apart.weight"]
    assert apart["flat.weight", 1].tolist() == [[32, 33, 34, 35], [36, 37, 38, 39]]
    assert apart["apart.bias", 0].tolist() == [[0], [1]]


def test_a_vision_transformer_loses_heads_and_hidden_units_but_no_width() -> None:
    network = make_network("ViT")
    groups = {group.name.rpartition("layer_")[2]: group for group in channel_groups(network.net, 32)}

    parts = ("self_attention.in_proj_weight", "mlp.0.weight")
    assert list(groups) == [f"{layer}.{part}" for layer in (0, 1) for part in parts]
    attention = groups["0.self_attention.in_proj_weight"]
    rows = attention.indices["encoder.layers.encoder_layer_0.self_attention.in_proj_weight", 0]
    # queries, keys and values of the second of four heads of width 8
    assert rows[1].tolist() == [*range(8, 16), *range(40, 48), *range(72, 80)]

    smaller = without(network, removed_axes([attention], [[1]]))
    again = without(smaller, removed_axes([attention], [[0]]))

    assert smaller.net.encoder.layers[0].self_attention.num_heads == 3
    assert again.net.encoder.layers[0].self_attention.num_heads == 2
    assert again.net.encoder.layers[1].self_attention.num_heads == 4


def test_an_operation_without_a_rule_keeps_what_it_uses() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.b(self.a(x)).mean((2, 3))
            logits: Tensor = self.fc(hidden.sort(dim=1).values)
            return logits

    assert [group.name for group in channel_groups(Sorted(), 2)] == ["a.weight"]


def test_a_group_cannot_lose_all_of_its_units() -> None:
    (group, _) = channel_groups(Plain(), 2)

    with pytest.raises(ValueError, match=r"first\.weight: all 2 units would be removed"):
        removed_axes([group], [[0, 1]])


def test_shapes_that_are_no_smaller_version_are_refused() -> None:
    network = make_network("MobileNetV2")
    shapes = {name: tensor.shape for name, tensor in network.net.state_dict().items()}

    with pytest.raises(ValueError, match=r"features\.0\.0\.weight has the shape"):
        resized(network, {**shapes, "features.0.0.weight": torch.Size([99, 3, 3, 3])})
    with pytest.raises(ValueError, match="missing or unknown"):
        resized(network, {**shapes, "other": torch.Size([1])})


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["resnet50", "vgg16_bn", "densenet121", "regnet_y_400mf", "efficientnet_b0", "swin_t"]
)
def test_groups_of_full_networks_cover_most_layers(backbone: str) -> None:
    net = table.skeleton(backbone).net
    groups = channel_groups(net, 64)

    covered = {name for group in groups for name, _ in group.indices}
    matrices = [name for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    untouched = [name for name in matrices if f"{name}.weight" not in covered]
    wanted = {"swin_t": ("qkv", "proj", "reduction", "features.0.0", "head")}.get(backbone, ())
    assert [name for name in untouched if not name.endswith(tuple(wanted))] == []
    assert all(group.n_units > 1 for group in groups)


def test_costs_of_the_smaller_network_follow_from_its_shapes(
    network: Network, smaller: Network, removed: dict[tuple[str, int], Tensor], resolution: int
) -> None:
    uses = uses_of_weights(copy.deepcopy(network).float().net, resolution)
    sizes = n_remaining(dict(network.net.named_parameters()), removed)
    expected = count(copy.deepcopy(smaller).float().net, resolution)

    assert sum(sizes.values()) == expected.parameters
    attends = any(isinstance(each, nn.MultiheadAttention) for each in network.net.modules())
    if uses is None:
        assert attends or type(network.net).__name__ in ("SwinTransformer", "VisionTransformer")
    else:
        assert sum(n * sizes[name] for name, n in uses.items()) == expected.multiply_adds
