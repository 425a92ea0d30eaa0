"""The regularisers that `benchmarks.recipes` compares, on planted numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

pytest.importorskip("timm")

from benchmarks.recipes import regularisers
from benchmarks.recipes.recipes import RECIPES, Recipe


def test_batch_spectral_shrinkage_is_the_sum_of_the_smallest_squared_singular_values() -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    features = rotation @ torch.tensor([[3.0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 2.0, 0]])

    found = [float(regularisers.smallest_singular_values(features, k)) for k in (1, 2, 3)]

    assert found == pytest.approx([0.25, 4.25, 13.25], rel=1e-5)


def test_distance_of_maps_is_weighted_by_channel_and_a_mean_over_images_and_positions() -> None:
    start = torch.zeros(2, 2, 3, 3)
    moved = start.clone()
    moved[:, 0] = 1.0
    moved[0, 1] = 2.0  # in one of two images: a mean square of 2
    attention = torch.tensor([0.25, 0.75])

    found = regularisers.map_distance([moved, moved], [start, moved], [attention, attention])

    assert float(found) == pytest.approx(2 * (0.25 * 1 + 0.75 * 2) / 2)


def test_attention_weights_have_sum_one_and_prefer_channels_whose_loss_is_felt() -> None:
    weights = regularisers.attention_weights(torch.tensor([0.1, 0.2, 0.6]))

    assert float(weights.sum()) == pytest.approx(1.0)
    # one standard deviation of the losses is a fifth of a unit of the softmax
    std = np.std([0.1, 0.2, 0.6], ddof=1)
    assert float(weights[2] / weights[0]) == pytest.approx(math.exp(0.5 / std / 5))


def test_stochastic_norm_lies_between_batch_norm_and_its_running_statistics() -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    plain = nn.BatchNorm2d(3)
    stochastic = {share: regularisers.StochasticNorm(3) for share in (0.0, 1.0, 0.5)}
    for share, norm in stochastic.items():
        norm.running_share = share
    torch.manual_seed(0)

    by_batch, outputs = plain(x), {share: norm(x) for share, norm in stochastic.items()}

    assert torch.equal(outputs[0.0], by_batch)
    # running statistics as they were before the step: mean 0, variance 1
    assert torch.allclose(outputs[1.0], x, atol=1e-4)
    mixed = [torch.equal(outputs[0.5][:, c], by_batch[:, c]) for c in range(3)]
    assert any(mixed)
    assert not all(mixed)
    for norm in stochastic.values():
        assert torch.equal(norm.running_mean, plain.running_mean)  # type: ignore[arg-type]
        assert torch.equal(norm.eval()(x), plain.eval()(x))


def test_gradients_flow_through_both_branches_of_stochastic_norm() -> None:
    norm = regularisers.StochasticNorm(64)
    x = torch.randn(4, 64, 2, 2, requires_grad=True)

    (norm(x) * torch.randn(4, 64, 2, 2)).sum().backward()

    assert x.grad is not None
    assert bool((x.grad.abs().amax(dim=(0, 2, 3)) > 0).all())


def test_source_classes_given_a_class_are_probabilities_and_find_the_related_class() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    related = np.array([4, 0, 2])  # source class of each class
    probabilities = 0.5 * np.eye(6)[related[labels]] + 0.5 * random.dirichlet(np.ones(6), 60)

    found = regularisers.source_given_target(probabilities, labels)

    assert found.shape == (3, 6)
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    assert (found.argmax(axis=1) == related).all()


def test_co_tuning_is_the_cross_entropy_with_the_related_source_classes() -> None:
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    term = regularisers.CoTuning(2.0, head, 0.5, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    batch = regularisers.Batch(
        views=torch.empty(0),
        labels=torch.tensor([1, 0]),
        maps=[],
        features=torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
    )

    logs = functional.log_softmax(torch.tensor([2.0, 0.0]), dim=0)  # logits over a temperature of 0.5
    expected = 2.0 * (-0.5 * float(logs.sum()) + math.log(2)) / 2

    assert term(batch).item() == pytest.approx(expected)


def test_l2_sp_moves_convolutions_toward_their_start_and_nothing_else() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    with torch.no_grad():
        net[0].weight.fill_(2.0)
    point = regularisers.StartingPoint.of(net, 100.0)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.fill_(3.0)

    point.pull(0.001)

    assert [p.item() for p in net.parameters()] == pytest.approx([2.9, 3.0, 3.0, 3.0])


def test_each_regulariser_is_one_key_away_from_its_base() -> None:
    keys = ("l2_sp", "delta", "bss", "co_tuning", "stoch_norm")
    regularised = {name: recipe for name, recipe in RECIPES.items() if any(getattr(recipe, k) for k in keys)}

    assert len(regularised) == 18
    for name, recipe in regularised.items():
        base: Recipe = RECIPES[name.partition(",")[0]]
        assert sum(a != b for a, b in zip(vars(recipe).values(), vars(base).values(), strict=True)) == 1
