"""The pull: planted numbers, the identity behind it, where it applies and where it becomes unstable."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tlopt.data.batches import Images
from tlopt.model.network import Network
from tlopt.model.partition import Partition, partition, penalised
from tlopt.search.warnings import stability_bound
from tlopt.spec.point import Point
from tlopt.training import penalty
from tlopt.training.loop import train_epochs
from tlopt.training.penalty import Pull, make_pulls
from tlopt.training.run import Run

MATRICES = {"stem.0.weight": 1, "middle.0.weight": 2, "top.0.weight": 3, "head.weight": 4}  # block of each
strengths = st.floats(1e-4, 10)
vectors = st.lists(st.floats(-3, 3), min_size=4, max_size=4)


def pull(weight: Tensor, target: Tensor, strength: float) -> Pull:
    weight.requires_grad_()
    return Pull("w", weight, target, strength)


def random_pulls() -> tuple[Pull, ...]:
    generator = torch.Generator().manual_seed(2)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    return tuple(
        pull(draw(shape), draw(shape), strength) for shape, strength in [((4, 3, 3, 3), 0.7), ((5, 6), 0.01)]
    )


def one_weight(w0: list[float], alpha: float, beta: float, point: Callable[..., Point]) -> tuple[Pull, ...]:
    parts = Partition(frozen=(), frozen_norms=(), transferred=("w",), fresh=(), head=(), block_of={"w": 1})
    start = torch.tensor(w0, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    at = point(transfer_depth=1, l2_sp=alpha, l2_anchored=beta)
    return make_pulls({"w": weight}, parts, frozenset({"w"}), {"w": start}, at)


def test_three_and_four_from_zero_at_strength_one_is_twelve_and_a_half() -> None:
    assert penalty.half_squared_distance((pull(torch.tensor([3.0, 4.0]), torch.zeros(2), 1.0),)) == 12.5


def test_without_pulls_the_distance_is_zero() -> None:
    assert penalty.half_squared_distance(()) == 0


def test_the_coupled_pull_is_the_gradient_of_the_loss_term() -> None:
    pulls = random_pulls()
    wanted = torch.autograd.grad(penalty.half_squared_distance(pulls), [p.weight for p in pulls])
    for p in pulls:
        p.weight.grad = torch.zeros_like(p.weight)

    penalty.add_to_gradients(pulls)

    for p, gradient in zip(pulls, wanted, strict=True):
        assert p.weight.grad is not None
        assert (p.weight.grad - gradient).norm() <= 5e-7 * gradient.norm()


def test_the_coupled_pull_adds_to_the_gradient_that_is_there() -> None:
    p = pull(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]), 0.5)
    p.weight.grad = torch.tensor([10.0, 20.0])

    penalty.add_to_gradients((p,))

    assert p.weight.grad.tolist() == [11.0, 22.0]


def test_the_decoupled_pull_goes_the_share_of_rate_times_strength() -> None:
    pulls = random_pulls()
    wanted = [p.weight.detach() - 0.1 * p.strength * (p.weight.detach() - p.target) for p in pulls]
    for p in pulls:
        p.weight.grad = torch.zeros_like(p.weight)

    penalty.decay_weights(pulls, {"w": 0.1})

    for p, weight in zip(pulls, wanted, strict=True):
        torch.testing.assert_close(p.weight.detach(), weight)


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_weight_without_a_gradient_is_left_alone(decoupled: bool) -> None:
    p = pull(torch.ones(2), torch.zeros(2), 0.5)

    if decoupled:
        penalty.decay_weights((p,), {"w": 0.1})
    else:
        penalty.add_to_gradients((p,))

    assert p.weight.grad is None
    assert p.weight.tolist() == [1.0, 1.0]


@given(st.floats(1e-6, 1.9), st.integers(0, 1000))
def test_a_weight_on_its_target_stays_there_to_the_bit(rate: float, seed: int) -> None:
    target = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    coupled, decoupled = pull(target.clone(), target, 0.3), pull(target.clone(), target, 1.0)
    for p in (coupled, decoupled):
        p.weight.grad = torch.zeros_like(target)

    penalty.add_to_gradients((coupled,))
    penalty.decay_weights((decoupled,), {"w": rate})

    assert coupled.weight.grad is not None
    assert not coupled.weight.grad.any()
    assert torch.equal(decoupled.weight.detach(), target)


@given(strengths, strengths, vectors, vectors, vectors)
def test_two_pulls_on_one_weight_are_one_pull_toward_a_point_between(
    alpha: float, beta: float, w0: list[float], a: list[float], b: list[float]
) -> None:
    weights = [np.array(a), np.array(b)]
    strength, target = alpha + beta, alpha / (alpha + beta) * np.array(w0)

    mixture = [alpha / 2 * ((w - np.array(w0)) ** 2).sum() + beta / 2 * (w**2).sum() for w in weights]
    one = [strength / 2 * ((w - target) ** 2).sum() for w in weights]

    # equal up to a constant: their differences between two weights are equal
    assert mixture[0] - mixture[1] == pytest.approx(one[0] - one[1], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("alpha", "beta", "strength", "share"), [(3, 1, 4, 0.75), (2, 0, 2, 1.0), (0, 5, 5, 0.0)]
)
def test_a_pull_has_the_sum_of_the_strengths_and_the_share_of_the_pretrained_weight(
    point: Callable[..., Point], alpha: float, beta: float, strength: float, share: float
) -> None:
    (found,) = one_weight([1.0, -2.0, 4.0, 0.5], alpha, beta, point)

    assert found.strength == strength
    assert found.target.tolist() == [share * w for w in (1.0, -2.0, 4.0, 0.5)]


def test_the_penalty_is_zero_before_the_first_step(
    begin: Callable[..., Run], point: Callable[..., Point]
) -> None:
    run = begin(point(l2_sp=0.7))

    assert penalty.half_squared_distance(run.pulls) == 0


def test_without_strength_there_are_no_pulls(begin: Callable[..., Run], point: Callable[..., Point]) -> None:
    assert begin(point()).pulls == ()


DEPTHS = [
    (transfer, freeze, anchor)
    for transfer, freeze, anchor in product(range(4), repeat=3)
    if freeze <= transfer and anchor <= transfer
]


@pytest.mark.parametrize(("transfer", "freeze", "anchor"), DEPTHS)
def test_anchors_are_the_transferred_trainable_weights_up_to_the_anchor_depth(
    begin: Callable[..., Run], point: Callable[..., Point], transfer: int, freeze: int, anchor: int
) -> None:
    at = point(transfer_depth=transfer, freeze_depth=freeze, anchor_depth=anchor, l2_sp=2.0, l2=0.5)

    strengths = {p.name: p.strength for p in begin(at).pulls}

    assert strengths == {
        name: 2.0 if block <= anchor else 0.5 for name, block in MATRICES.items() if block > freeze
    }


def test_the_target_is_the_pretrained_record_and_not_the_network(
    begin: Callable[..., Run], tiny: Callable[..., Network], point: Callable[..., Point]
) -> None:
    network = tiny()
    record = {name: torch.full_like(tensor, 0.25) for name, tensor in network.net.state_dict().items()}

    run = begin(point(l2_sp=1.0), network=network, pretrained=record)

    assert len(run.pulls) == 3
    assert all((p.target == 0.25).all() for p in run.pulls)


def test_a_target_does_not_share_memory_with_the_pretrained_record(
    begin: Callable[..., Run], tiny: Callable[..., Network], point: Callable[..., Point]
) -> None:
    record = dict(tiny().net.state_dict())

    run = begin(point(l2_sp=1.0), pretrained=record)

    own = {tensor.data_ptr() for tensor in record.values()}
    assert not own & {p.target.data_ptr() for p in run.pulls}


def test_a_target_lies_in_memory_as_its_weight_does(
    tiny: Callable[..., Network], point: Callable[..., Point]
) -> None:
    network = tiny()
    record = {name: tensor.clone() for name, tensor in network.net.state_dict().items()}
    network.to(memory_format=torch.channels_last)
    parts = partition(network, transfer_depth=3, freeze_depth=0)

    pulls = make_pulls(
        dict(network.net.named_parameters()), parts, penalised(network), record, point(l2_sp=0.5, l2=0.5)
    )

    assert [p.target.stride() for p in pulls] == [p.weight.stride() for p in pulls]
    assert all(torch.equal(p.target, p.weight) for p in pulls if p.name != "head.weight")


def test_at_rate_times_strength_one_the_displacement_falls_as_one_over_the_strength(
    begin: Callable[..., Run], point: Callable[..., Point], images: Images, train: np.ndarray
) -> None:
    moved = []
    for alpha in (100.0, 1000.0, 10000.0):
        run = begin(point(l2_sp=alpha, lr=1 / alpha, momentum=0.0, augmentation=0.0))
        list(train_epochs(run, images, train, None))
        moved.append(sum((p.weight - p.target).norm().item() ** 2 for p in run.pulls) ** 0.5)

    assert moved[0] / moved[1] == pytest.approx(10, rel=0.05)
    assert moved[1] / moved[2] == pytest.approx(10, rel=0.05)


def magnitude_after(lr: float, momentum: float, steps: int) -> float:
    """|w| after so many steps of torch's SGD under nothing but a pull of strength 1 toward 0, from 1."""
    p = pull(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 1.0)
    optimizer = torch.optim.SGD([p.weight], lr=lr, momentum=momentum, nesterov=momentum > 0)
    for _ in range(steps):
        p.weight.grad = torch.zeros_like(p.weight)
        penalty.add_to_gradients((p,))
        optimizer.step()
    return abs(p.weight.item())


@pytest.mark.parametrize(("momentum", "bound"), [(0.0, 2.0), (0.5, 1.5), (0.9, 3.8 / 2.8)])
def test_sgd_contracts_just_below_the_bound_and_not_just_above(momentum: float, bound: float) -> None:
    assert stability_bound("sgd", momentum) == pytest.approx(bound)
    assert magnitude_after(0.98 * bound, momentum, 800) < 1e-3
    assert magnitude_after(1.02 * bound, momentum, 800) > 1e3


@pytest.mark.parametrize(("rate", "contracts"), [(1.98, True), (2.02, False)])
def test_a_decoupled_pull_contracts_below_two(rate: float, contracts: bool) -> None:
    p = pull(torch.ones(1), torch.zeros(1), 1.0)
    p.weight.grad = torch.zeros(1)

    for _ in range(500):
        penalty.decay_weights((p,), {"w": rate})

    assert stability_bound("adamw", 0.9) == 2
    assert (abs(p.weight.item()) < 1e-3) == contracts
