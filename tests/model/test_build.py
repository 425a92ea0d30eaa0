"""Networks for points: seeds, depths, heads, resolutions, names."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from tlopt.errors import MissingExtra, SpecError
from tlopt.model.build import build, check_resolution, n_blocks, outline, supported
from tlopt.model.families import table as families
from tlopt.model.families.table import LITE0
from tlopt.model.head import make_head
from tlopt.model.network import Block, Network
from tlopt.model.partition import partition, penalised
from tlopt.model.weights import Weights, load_weights
from tlopt.spec.point import Point

MakePoint = Callable[..., Point]
Plant = Callable[[str, Network], Weights]


@pytest.fixture(scope="module")
def none() -> Weights:
    return load_weights("resnet18", "none")


def bits(network: Network) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in network.net.state_dict().values()]


def test_the_same_seed_gives_the_same_bits(point: MakePoint, none: Weights) -> None:
    first, second, other = (build(point("resnet18"), n_classes=3, weights=none, seed=s) for s in (1, 1, 2))

    assert bits(first) == bits(second)
    assert bits(first) != bits(other)


def test_building_does_not_change_torch_s_generator(point: MakePoint, none: Weights) -> None:
    before = torch.random.get_rng_state()

    build(point("resnet18"), n_classes=3, weights=none, seed=1)
    outline("swin_t")

    assert torch.equal(torch.random.get_rng_state(), before)


def test_fresh_blocks_are_initialised_by_the_library(point: MakePoint, none: Weights) -> None:
    network = build(point("resnet18"), n_classes=3, weights=none, seed=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        library = torchvision.models.resnet18(weights=None).state_dict()

    state = network.net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in library.items() if name[:3] != "fc.")


def test_blocks_up_to_transfer_depth_have_the_pretrained_tensors(
    point: MakePoint, none: Weights, planted_weights: Plant
) -> None:
    fresh = build(point("resnet18"), n_classes=3, weights=none, seed=1)
    weights = planted_weights("resnet18", fresh)
    blocks = partition(fresh, transfer_depth=0, freeze_depth=0).block_of

    for depth in (0, 4, 9):
        network = build(point("resnet18", transfer_depth=depth), n_classes=3, weights=weights, seed=1)

        state, start = network.net.state_dict(), fresh.net.state_dict()
        for name, tensor in state.items():
            assert torch.equal(tensor, (weights.state if blocks[name] <= depth else start)[name]), name


def test_a_build_does_not_share_memory_with_the_weights(
    point: MakePoint, none: Weights, planted_weights: Plant
) -> None:
    fresh = build(point("resnet18"), n_classes=3, weights=none, seed=1)
    weights = planted_weights("resnet18", fresh)
    before = weights.state["conv1.weight"].clone()
    network = build(point("resnet18", transfer_depth=9), n_classes=3, weights=weights, seed=1)

    with torch.no_grad():
        network.net.get_parameter("conv1.weight").zero_()

    assert torch.equal(weights.state["conv1.weight"], before)


def test_a_head_with_a_hidden_layer_replaces_the_classifier(point: MakePoint, none: Weights) -> None:
    network = build(point("resnet18", head_layers=1, head_dropout=0.5), n_classes=3, weights=none, seed=1)

    assert [type(module) for module in network.head] == [  # type: ignore[arg-type]
        nn.Dropout,
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
    ]
    assert partition(network, transfer_depth=9, freeze_depth=0).head == (
        "fc.1.weight",
        "fc.1.bias",
        "fc.4.weight",
        "fc.4.bias",
    )
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_a_head_without_hidden_layers_and_dropout_is_one_linear_layer() -> None:
    head = make_head(7, 3, layers=0, hidden_width=16, dropout=0.0)

    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (7, 3)


def test_a_head_has_the_widths_it_is_given() -> None:
    head = make_head(7, 3, layers=2, hidden_width=16, dropout=0.0)

    widths = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]
    assert widths == [(7, 16), (16, 16), (16, 3)]


def test_dropout_alone_needs_no_hidden_layer() -> None:
    head = make_head(7, 3, layers=0, hidden_width=16, dropout=0.25)

    assert str(head) == str(nn.Sequential(nn.Dropout(0.25), nn.Linear(7, 3)))


def test_statistics_are_fixed_in_frozen_blocks_only(point: MakePoint, none: Weights) -> None:
    network = build(point("resnet18"), n_classes=3, weights=none, seed=1)
    parts = partition(network, transfer_depth=9, freeze_depth=4)
    state = network.net.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items() if "running" in name}
    network.set_mode(4)

    network(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5)))

    moved = {name for name, tensor in before.items() if not torch.equal(state[name], tensor)}
    assert moved == {name for name in parts.transferred if "running" in name}


def test_a_tensor_without_a_block_is_named(point: MakePoint, none: Weights) -> None:
    network = build(point("resnet18"), n_classes=3, weights=none, seed=1)
    stem, *others = network.blocks
    network.blocks = (Block("stem", ("conv1",), stem.forward), *others)

    with pytest.raises(ValueError, match=r"bn1\.weight is in blocks \[\]"):
        partition(network, transfer_depth=0, freeze_depth=0)


def test_a_tensor_in_two_blocks_is_named(point: MakePoint, none: Weights) -> None:
    network = build(point("resnet18"), n_classes=3, weights=none, seed=1)
    stem, first, *others = network.blocks
    network.blocks = (stem, Block("layer1.0", ("layer1.0", "conv1"), first.forward), *others)

    with pytest.raises(ValueError, match=r"conv1\.weight is in blocks \[1, 2\]"):
        partition(network, transfer_depth=0, freeze_depth=0)


def test_block_1_does_not_contain_the_tensors_of_block_10() -> None:
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    blocks = tuple(Block(str(i), (str(i),), net[i]) for i in range(11))

    block_of = partition(Network(net, blocks, "11", 2), transfer_depth=0, freeze_depth=0).block_of

    assert (block_of["1.weight"], block_of["10.weight"]) == (2, 11)


def test_freezing_beyond_transfer_depth_is_refused(point: MakePoint, none: Weights) -> None:
    network = build(point("resnet18"), n_classes=3, weights=none, seed=1)

    with pytest.raises(ValueError, match="freeze_depth=3"):
        partition(network, transfer_depth=2, freeze_depth=3)


def test_the_matrices_of_attention_are_penalised() -> None:
    network = families.skeleton("vit_b_16")

    found = {name for name in penalised(network) if "encoder_layer_0." in name}

    layer = "encoder.layers.encoder_layer_0."
    assert found == {
        f"{layer}self_attention.in_proj_weight",
        f"{layer}self_attention.out_proj.weight",
        f"{layer}mlp.0.weight",
        f"{layer}mlp.3.weight",
    }


def test_an_outline_counts_all_parameters_except_the_classifier_s() -> None:
    rows = outline("resnet18")

    assert (rows[0].index, rows[0].name, rows[0].n_parameters) == (1, "stem", 64 * 3 * 49 + 128)
    assert (rows[-1].index, rows[-1].name) == (9, "layer4.1")
    # The published count without the 1000-way classifier.
    assert sum(row.n_parameters for row in rows) == 11_689_512 - 513_000


def test_the_number_of_blocks_is_the_outline_s_length() -> None:
    assert n_blocks("mobilenet_v2") == len(outline("mobilenet_v2")) == 18


def test_vgg_s_hidden_layers_belong_to_its_last_block() -> None:
    rows = outline("vgg16")

    assert len(rows) == 13
    assert rows[-1].n_parameters == (512 * 512 * 9 + 512) + (25088 * 4096 + 4096) + (4096 * 4096 + 4096)


@pytest.mark.slow
def test_the_blocks_of_every_supported_backbone_have_distinct_names() -> None:
    known = families.torchvision_names()
    names = [name for family in supported().values() for name in family if name in known]

    assert sorted(names) == sorted(known)
    assert len(names) >= 67
    for name in names:
        rows = outline(name)
        assert len({row.name for row in rows}) == len(rows)


def test_the_error_for_an_unknown_backbone_lists_similar_names() -> None:
    with pytest.raises(SpecError, match=r"'resnet81' is not supported; similar names: .*resnet18"):
        n_blocks("resnet81")


def test_the_error_for_a_name_like_no_other_lists_the_families() -> None:
    with pytest.raises(SpecError, match=r"supported are torchvision's ResNet.*Inception v3.*timm:NAME"):
        n_blocks("zzz")


def test_an_unsupported_family_is_refused() -> None:
    with pytest.raises(SpecError, match="'squeezenet1_0' is not supported"):
        n_blocks("squeezenet1_0")


def test_timm_s_unknown_names_and_classes_are_refused() -> None:
    pytest.importorskip("timm")

    with pytest.raises(SpecError, match=r"similar names: .*timm:resnet18"):
        n_blocks("timm:resnet81")
    with pytest.raises(SpecError, match=r"is a Xcit, which is not supported; .* Vision Transformer, DeiT"):
        n_blocks("timm:xcit_nano_12_p16_224")
    with pytest.raises(SpecError, match=r'write "timm:resnet18" and weights = "a1_in1k"'):
        n_blocks("timm:resnet18.a1_in1k")


@pytest.mark.parametrize(("backbone", "extra"), [("timm:resnet18", "timm"), (LITE0, "lite")])
def test_the_error_without_timm_names_the_extra(
    backbone: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)

    with pytest.raises(MissingExtra, match=rf'pip install "tlopt\[{extra}\]"'):
        families.library_module(backbone)


def test_a_vision_transformer_takes_multiples_of_its_patch() -> None:
    weights = load_weights("vit_b_16", "none")

    check_resolution(weights, 224)
    check_resolution(weights, 192)
    with pytest.raises(SpecError, match=r"resolution = 200: vit_b_16 .* of 16 pixels; .* such as 192 or 208"):
        check_resolution(weights, 200)
    with pytest.raises(SpecError, match="such as 16 or 32"):
        check_resolution(weights, 8)
    check_resolution(replace(weights, resolution=200), 200)  # the resolution of the weights is always allowed


def test_a_resolution_with_empty_feature_maps_is_refused(point: MakePoint) -> None:
    weights = load_weights("inception_v3", "none")

    with pytest.raises(SpecError, match="resolution = 74: inception_v3 needs at least 75 pixels"):
        build(point("inception_v3", resolution=74), n_classes=3, weights=weights, seed=1)


def test_a_depth_beyond_the_blocks_is_refused(point: MakePoint, none: Weights) -> None:
    with pytest.raises(SpecError, match="transfer_depth = 10: resnet18 has only 9 blocks"):
        build(point("resnet18", transfer_depth=10), n_classes=3, weights=none, seed=1)


def test_weights_of_another_backbone_are_refused(point: MakePoint, none: Weights) -> None:
    with pytest.raises(ValueError, match="weights of resnet34 for resnet18"):
        build(point("resnet18"), n_classes=3, weights=replace(none, backbone="resnet34"), seed=1)
