"""Every criterion removes the channels that it was planted to, and selections have the sizes asked for."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlopt.compact.criteria import (
    WeightHistory,
    batch_norm_scores,
    l1_scores,
    select,
    taylor_scores,
)
from tlopt.compact.groups import ChannelGroup, channel_groups


def planted() -> nn.Sequential:
    """Four channels behind a batch norm, then six without one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    ).eval()


def with_rows(layer: nn.Module, *values: float) -> None:
    """Set every weight of row i to values[i]."""
    with torch.no_grad():
        weight = layer.get_parameter("weight")
        weight.copy_(torch.tensor(values).view(-1, *[1] * (weight.ndim - 1)).expand_as(weight))


def order(score: object) -> list[int]:
    assert isinstance(score, np.ndarray)
    return np.argsort(score, kind="stable").tolist()


def test_l1_ranks_by_the_norm_of_rows() -> None:
    net = planted()
    with_rows(net[0], 0.5, -2.0, 0.1, 1.0)

    first, _ = l1_scores(net, channel_groups(net, 2))

    assert first is not None
    assert first.tolist() == pytest.approx([1.5, 6.0, 0.3, 3.0])  # three inputs each


def test_the_scale_of_batch_norm_ranks_where_there_is_one() -> None:
    net = planted()
    with_rows(net[1], 0.5, -2.0, 0.1, 1.0)

    first, second = batch_norm_scores(net, channel_groups(net, 2))

    assert first is not None
    assert first.tolist() == pytest.approx([0.5, 2.0, 0.1, 1.0])
    assert second is None


def gradients(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    net(x).square().sum().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_taylor_is_the_squared_first_order_change_of_the_loss() -> None:
    net = planted().double()
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    groups = channel_groups(net, 2)

    scores = taylor_scores(net, groups, gradients(net, x))

    # the derivative of the loss where a channel is scaled by 1 - h, at h = 0, by finite differences
    step = 1e-6
    for group, score, layer in zip(groups, scores, (net[1], net[3]), strict=True):
        for unit in range(group.n_units):
            losses = []
            for sign in (1, -1):
                moved = copy.deepcopy(net)
                at = moved[[*net].index(layer)]
                with torch.no_grad():
                    at.weight[unit] *= 1 + sign * step
                    at.bias[unit] *= 1 + sign * step
                losses.append(float(moved(x).detach().square().sum()))
            assert score is not None
            assert score[unit] == pytest.approx(
                ((losses[0] - losses[1]) / (2 * step)) ** 2, rel=1e-4, abs=1e-9
            )


def test_a_channel_that_nothing_reads_matters_least_to_taylor() -> None:
    net = planted()
    with torch.no_grad():
        net[1].bias.fill_(3)  # all channels get through the ReLU
        net[3].weight[:, 2] = 0

    first, _ = taylor_scores(net, channel_groups(net, 2), gradients(net, torch.rand(2, 3, 2, 2)))

    assert order(first)[0] == 2
    assert first is not None
    assert first[2] == 0


def test_of_two_channels_with_the_same_history_the_smaller_goes_first() -> None:
    net = planted()
    groups = channel_groups(net, 2)
    history = WeightHistory(groups)
    for epoch in range(3):
        with torch.no_grad():
            torch.manual_seed(epoch)
            net[0].weight.normal_()
            net[0].weight[3] = 0.5 * net[0].weight[1]  # 3 moves as 1 does, at half its length
        history.add(net)

    first, second = history.scores()

    assert first is not None
    assert second is not None
    assert order(first)[0] == 3
    assert first[3] == pytest.approx(0, abs=1e-6)
    assert sorted(first)[1] > 0.1
    assert first[order(first)[-1]] == 2  # the last one stays
    assert len(second) == 6


def test_only_a_whole_history_tells_channels_apart_that_agree_at_the_end() -> None:
    net = planted()
    history = WeightHistory(channel_groups(net, 2))
    with_rows(net[0], 1.0, -1.0, 0.5, 0.25)
    history.add(net)
    with_rows(net[0], 1.0, 1.0, 0.5, 0.25)
    history.add(net)

    first, _ = history.scores()

    assert {*order(first)[:2]} == {2, 3}  # of three that always agreed, the smaller ones
    assert first is not None
    assert first[1] == pytest.approx(1)  # orthogonal to the others over both epochs


def groups_of(*sizes: int) -> list[ChannelGroup]:
    return [ChannelGroup({(f"{n}.weight", 0): np.arange(size)[:, None]}) for n, size in enumerate(sizes)]


def test_uniform_takes_the_same_share_of_every_group_that_was_judged() -> None:
    groups = groups_of(4, 10, 4)
    scores = [np.array([3.0, 1.0, 2.0, 0.0]), np.arange(10.0), None]

    assert select(groups, scores, 0.5, scope="uniform") == [[1, 3], [0, 1, 2, 3, 4], []]
    assert select(groups, scores, 0.99, scope="uniform", kept_min=0.25) == [[1, 2, 3], list(range(7)), []]


def test_global_takes_the_lowest_relative_to_their_group() -> None:
    groups = groups_of(4, 4)
    flat, steep = np.array([100.0, 100.0, 100.0, 100.0]), np.array([0.1, 0.2, 0.3, 3.4])

    assert select(groups, [flat, steep], 0.25, scope="global") == [[], [0, 1]]
    assert select(groups, [flat, steep], 0.0, scope="global") == [[], []]


def test_no_group_loses_more_than_it_may() -> None:
    groups = groups_of(10, 2)
    low, high = np.full(10, 1e-9), np.array([1.0, 1.0])
    low[0] = 1.0

    (first, second) = select(groups, [low, high], 0.9, scope="global", kept_min=0.3)

    assert len(first) == 7
    assert len(second) <= 1
