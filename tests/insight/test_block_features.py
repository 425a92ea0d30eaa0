"""Features of all blocks from one pass: the frozen prefix's own, each image through each block once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tlopt.data.views import eval_views
from tlopt.insight.block_features import block_features, pool, source_head
from tlopt.model.build import untrained_network
from tlopt.model.weights import load_weights
from tlopt.training.frozen_prefix import canonical_layout, forward_blocks
from tlopt.training.numerics import usual_numerics

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
PIXELS = np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3)).astype(np.uint8)


def network() -> nn.Module:
    return untrained_network(load_weights("resnet18", "none"), 32, seed=1)


def measured(indices: list[int], head: nn.Module | None = None):
    return block_features(
        network(),
        PIXELS,
        np.array(indices),
        resolution=32,
        mean=MEAN,
        std=STD,
        device=CPU,
        source_head=head,
    )


def test_features_are_those_of_the_frozen_prefix_averaged_over_positions() -> None:
    net, found = network().eval(), measured([3, 1, 2])
    numerics = usual_numerics(net, CPU)
    net.to(memory_format=numerics.memory_format)
    views = eval_views(torch.from_numpy(PIXELS[[3, 1, 2]]), resolution=32, mean=MEAN, std=STD)
    x = canonical_layout(views.contiguous(memory_format=numerics.memory_format))

    assert len(found.features) == len(net.blocks)
    for depth in (1, 4, len(net.blocks)):
        out = forward_blocks(net, x, 0, depth, numerics)
        mean = out.mean(dim=(2, 3)) if out.dim() == 4 else out
        assert found.features[depth - 1] == pytest.approx(mean.numpy(), abs=1e-6)


def test_features_of_an_image_do_not_depend_on_the_others() -> None:
    alone, among = measured([65]), measured([*range(70)])

    assert all((one[0] == many[65]).all() for one, many in zip(alone.features, among.features, strict=True))


def test_each_image_goes_through_each_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def counting(net, x, start, end, numerics):
        seen.append((start, end))
        return forward_blocks(net, x, start, end, numerics)

    monkeypatch.setattr("tlopt.insight.block_features.forward_blocks", counting)
    n_blocks = len(measured([*range(70)]).features)

    assert seen == [(depth, depth + 1) for _ in range(3) for depth in range(n_blocks)]  # 70 images: 3 chunks


def test_source_probabilities_are_the_softmax_of_the_last_blocks_logits() -> None:
    torch.manual_seed(0)
    head = nn.Linear(512, 7)
    found = measured([0, 1], head)
    expected = head(torch.from_numpy(found.features[-1]).float()).softmax(dim=1)

    assert found.source_probabilities == pytest.approx(expected.detach().numpy(), abs=1e-6)
    assert measured([0]).source_probabilities is None


@pytest.mark.parametrize(
    ("shape", "n_features"), [((2, 5), 5), ((2, 9, 5), 5), ((2, 5, 4, 4), 5), ((2, 4, 4, 5), 5)]
)
def test_positions_are_averaged_wherever_the_channels_stand(shape: tuple[int, ...], n_features: int) -> None:
    x = torch.arange(2.0).reshape(2, *[1] * (len(shape) - 1)).expand(shape)

    assert pool(x).tolist() == [[0.0] * n_features, [1.0] * n_features]


def test_random_weights_have_no_source_classifier() -> None:
    assert source_head(load_weights("resnet18", "none")) is None


def test_a_network_of_another_width_has_no_source_classifier(tmp_path: Path) -> None:
    backbone = "timm:resnet18d@0.25"
    file = tmp_path / "narrow.safetensors"
    save_file(untrained_network(load_weights(backbone, "none"), 32, seed=1).net.state_dict(), file)

    assert source_head(load_weights(backbone, "none")) is None
    assert source_head(load_weights(backbone, str(file))) is None


@pytest.mark.weights
def test_the_lite_network_comes_with_its_classifier() -> None:
    head = source_head(load_weights("efficientnet_lite0", "default"))

    assert isinstance(head, nn.Linear)
    assert tuple(head.weight.shape) == (1000, 1280)
