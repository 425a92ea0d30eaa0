"""Soups are the plain mean of weights, taken greedily; ensembles have the mean of probabilities."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from finished import make_point, make_row, make_verdict
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import update_bn

from tlopt.confirmation import combining
from tlopt.confirmation.combined import Member
from tlopt.confirmation.combining import Mean, greedy_mean, make_ensemble, make_soup, renew_statistics
from tlopt.confirmation.verdict import Confirmed
from tlopt.data.batches import batches
from tlopt.errors import SpecError
from tlopt.model.ensemble import Ensemble, joined, separated
from tlopt.model.norms import batch_norms
from tlopt.search.defaults import defaults
from tlopt.spec.point import Point
from tlopt.training.inference import BATCH_SIZE
from tlopt.trial.workspace import Workspace

WeightsFile = Callable[[int, int], Path]


def member(number: int) -> Member:
    return Member(number=number, label=f"trial {number}", replicate=0, seed=1, point=make_point(), value=0.0)


def greedy(weights: dict[int, float], value_of: Callable[[float], float], direction: str) -> Any:
    """The soup of networks with one weight each, tried in the order of `weights`."""
    members = [member(number) for number in weights]

    def load(one: Member) -> dict[str, torch.Tensor]:
        return {"w": torch.tensor([weights[one.number]])}

    def value(mean: Mean, tried: Sequence[Member]) -> float:
        assert mean.tensors()["w"].item() == pytest.approx(np.mean([weights[m.number] for m in tried]))
        return value_of(mean.tensors()["w"].item())

    mean, additions = greedy_mean(members[0], members[1:], load=load, value_of=value, direction=direction)
    return mean.tensors()["w"].item(), {each.member.number: each.kept for each in additions}


def test_an_addition_stays_only_if_the_value_does_not_fall() -> None:
    # means: 0; (0 + 4) / 2 = 2 is better, (0 + 4 + 8) / 3 = 4 worse, (0 + 4 + 2) / 3 = 2 as good
    weight, kept = greedy({5: 0.0, 3: 4.0, 9: 8.0, 7: 2.0}, lambda w: -abs(w - 2), "maximize")

    assert kept == {5: True, 3: True, 9: False, 7: True}
    assert weight == 2


def test_a_log_loss_must_not_rise_and_a_nan_is_left_out() -> None:
    losses = {0.0: 1.0, 1.0: 0.5, 3.0: math.nan, 2.0: 0.7}  # by mean weight

    weight, kept = greedy({1: 0.0, 2: 2.0, 3: 7.0, 4: 4.0}, lambda w: losses[w], "minimize")

    assert kept == {1: True, 2: True, 3: False, 4: False}
    assert weight == 1


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=6))
def test_a_soup_is_never_worse_than_its_first_network(weights: list[float]) -> None:
    def value_of(weight: float) -> float:
        return math.cos(9 * weight)

    weight, kept = greedy(dict(enumerate(weights)), value_of, "maximize")

    assert value_of(weight) >= value_of(weights[0]) - 1e-6
    assert kept[0]


def test_the_mean_of_equal_tensors_is_bitwise_the_same_and_integers_are_the_first_ones() -> None:
    state = {"w": torch.randn(50, generator=torch.Generator().manual_seed(3)), "n": torch.tensor(7)}

    mean = Mean.of(state).with_one_more(state).with_one_more(state | {"n": torch.tensor(9)})

    assert torch.equal(mean.tensors()["w"], state["w"])
    assert mean.tensors()["n"] == 7


@pytest.fixture
def weights_file(tmp_path: Path) -> WeightsFile:
    return lambda number, replicate: tmp_path / f"{number}-{replicate}.safetensors"


def point_of(workspace: Workspace, **changes: Any) -> Point:
    plain = next(each.point for each in defaults(workspace.study, workspace.facts) if each.is_trained)
    return replace(plain, epochs=1, **changes)


def rows_of(*points: Point, n_runs: int = 2) -> list[Confirmed]:
    values = (0.9, 0.8)[:n_runs]
    rows = [make_row(f"trial {i}", values, point=point, number=i) for i, point in enumerate(points)]
    return [replace(row, seeds=(11, 12)[:n_runs]) for row in rows]


def always_right(workspace: Workspace) -> Any:
    return lambda network, images, point, indices, device: np.eye(3)[images.labels[indices]]


def weights_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def statistics_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers() if buffer.is_floating_point()}


def test_a_soup_equals_the_mean_by_hand_with_the_statistics_of_torch_s_update_bn(
    workshop: tiny.Workshop, weights_file: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workshop.workspace
    monkeypatch.setattr(combining, "exported_logits", always_right(workspace))  # every run is kept
    points = [point_of(workspace, lr=lr) for lr in (0.001, 0.003)]

    found = make_soup(workspace, make_verdict(rows_of(*points)), weights_file)

    assert [each.kept for each in found.combined.additions] == [True] * 4
    states = [load_file(weights_file(number, replicate)) for number in (0, 1) for replicate in (0, 1)]
    assert not torch.equal(states[0]["classifier.3.weight"], states[1]["classifier.3.weight"])
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in weights_of(found.net)}
    torch.testing.assert_close(weights_of(found.net), mean, rtol=1e-6, atol=1e-7)

    train, images = workspace.data.splits[0].train, workspace.images(points[0])
    run = workspace.start_run(points[0], seed=11, train=train)
    run.network.net.load_state_dict(states[0] | mean)
    view = images.training_view(0, points[0], 11)
    update_bn(
        [images.views_of(piece, view, points[0], run.device) for piece in batches(train, BATCH_SIZE)],
        run.network.net,
    )
    by_hand = statistics_of(run.network.net)
    torch.testing.assert_close(statistics_of(found.net), by_hand)
    assert by_hand


def test_statistics_of_lower_blocks_stay_bit_for_bit(workshop: tiny.Workshop) -> None:
    workspace = workshop.workspace
    train, point = workspace.data.splits[0].train, point_of(workspace)
    run = workspace.start_run(point, seed=11, train=train)
    before = statistics_of(run.network.net)

    renew_statistics(run, workspace.images(point), train, above=4)

    after, block_of = statistics_of(run.network.net), run.partition.block_of
    changed = {block_of[name] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {block_of[name] for name in before if block_of[name] > 4}
    assert min(changed) == 5
    assert not any(layer.training for _, layer in batch_norms(run.network.net))


def test_a_soup_of_networks_that_only_do_harm_is_the_first_one(
    workshop: tiny.Workshop, weights_file: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, calls = workshop.workspace, []

    def right_once(network: Any, images: Any, point: Any, indices: Any, device: Any) -> Any:
        calls.append(1)
        right = np.eye(3)[images.labels[indices]]
        return right if len(calls) == 1 else -right

    monkeypatch.setattr(combining, "exported_logits", right_once)

    found = make_soup(workspace, make_verdict(rows_of(point_of(workspace))), weights_file)

    first = load_file(weights_file(0, 0))
    assert found.combined.is_single
    assert all(torch.equal(tensor, first[name]) for name, tensor in found.net.state_dict().items())


def test_an_ensemble_of_two_equal_networks_equals_one(workshop: tiny.Workshop) -> None:
    workspace = workshop.workspace
    point = point_of(workspace)
    net = workspace.start_run(point, seed=11, train=workspace.data.splits[0].train).network.net.eval()
    images = torch.randn(4, 3, point.resolution, point.resolution, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        both, one = Ensemble([net, net])(images), net(images)

    torch.testing.assert_close(both.softmax(1), one.softmax(1))
    assert torch.equal(both.argmax(1), one.argmax(1))


def test_an_ensemble_answers_with_the_mean_of_its_members_probabilities(
    workshop: tiny.Workshop, weights_file: WeightsFile
) -> None:
    workspace = workshop.workspace
    rows = rows_of(point_of(workspace), point_of(workspace, lr=0.003), n_runs=1)

    found = make_ensemble(workspace, make_verdict(rows), weights_file, n_points=2)

    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    members = list(found.net.children())
    with torch.inference_mode():
        probabilities = found.net.eval()(images).softmax(1)
        mean = torch.stack([each(images).softmax(1) for each in members]).mean(0)
    torch.testing.assert_close(probabilities, mean)
    assert np.array_equal(found.val, workspace.data.splits[0].val)
    state = found.net.state_dict()
    again = joined(list(separated(state, 2)))
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_networks_that_do_not_see_an_image_alike_make_no_ensemble(
    workshop: tiny.Workshop, weights_file: WeightsFile
) -> None:
    rows = rows_of(point_of(workshop.workspace), point_of(workshop.workspace, resolution=64), n_runs=1)

    with pytest.raises(SpecError, match="trial 1 was trained at 64 pixels, and trial 0 at 32, but"):
        make_ensemble(workshop.workspace, make_verdict(rows), weights_file, n_points=2)


def test_lost_weights_are_announced_before_they_are_trained_again(
    workshop: tiny.Workshop, weights_file: WeightsFile, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of(point_of(workshop.workspace))

    make_ensemble(workshop.workspace, make_verdict(rows), weights_file)
    first, *_ = caplog.messages
    caplog.clear()
    make_ensemble(workshop.workspace, make_verdict(rows), weights_file)

    assert first.startswith("the weights of 2 of 2 networks are not on this machine")
    assert caplog.messages == []
