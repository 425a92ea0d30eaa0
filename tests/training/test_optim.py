"""Learning rates of parameters, computed by hand, and their schedule over a run."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tlopt.model.partition import Partition
from tlopt.spec.point import Point, Schedule
from tlopt.training.optim import make_groups, make_optimizer, peak_lr, schedule_factor
from tlopt.training.run import Run

SCHEDULES: tuple[Schedule, ...] = ("cosine", "linear", "constant")


def rate_of(run: Run) -> dict[str, float]:
    """The peak rate of each module's weight."""
    return {
        name.removesuffix(".0.weight").removesuffix(".weight"): group.lr
        for group in run.groups
        for name in group.names
        if name.endswith((".0.weight", "head.weight"))
    }


@pytest.mark.parametrize(
    ("ratio", "decay", "stem", "middle"), [(1, 1, 0.5, 0.5), (0.1, 1, 0.05, 0.05), (1, 0.75, 0.28125, 0.375)]
)
def test_a_transferred_block_has_the_ratio_and_one_decay_for_each_block_to_the_first_fresh_one(
    begin: Callable[..., Run],
    point: Callable[..., Point],
    ratio: float,
    decay: float,
    stem: float,
    middle: float,
) -> None:
    run = begin(point(transfer_depth=2, lr=0.5, lr_ratio=ratio, lr_decay=decay))

    assert rate_of(run) == pytest.approx({"stem": stem, "middle": middle, "top": 0.5, "head": 0.5})


def test_with_everything_transferred_the_decay_counts_from_the_head(point: Callable[..., Point]) -> None:
    at = point(lr=1.0, lr_decay=0.75)

    assert [peak_lr(at, block, 3) for block in (1, 2, 3, 4)] == [0.421875, 0.5625, 0.75, 1.0]


def test_the_head_has_a_group_of_its_own_also_at_the_rate_of_the_others(
    begin: Callable[..., Run], point: Callable[..., Point]
) -> None:
    head, body = begin(point(lr=0.5)).groups

    assert head.names == ("head.weight", "head.bias")
    assert (head.lr, body.lr) == (0.5, 0.5)


@pytest.mark.parametrize("freeze", range(4))
@pytest.mark.parametrize("transfer", range(4))
def test_every_trainable_parameter_is_in_exactly_one_group_and_no_frozen_one_is(
    begin: Callable[..., Run], point: Callable[..., Point], transfer: int, freeze: int
) -> None:
    freeze = min(freeze, transfer)

    run = begin(point(transfer_depth=transfer, freeze_depth=freeze, lr_decay=0.5))

    grouped = [name for group in run.groups for name in group.names]
    frozen = ("stem.", "middle.", "top.")[:freeze]
    names = [name for name, _ in run.network.net.named_parameters()]
    assert sorted(grouped) == sorted(name for name in names if not name.startswith(frozen))


def test_a_parameter_that_the_partition_lacks_is_an_error(point: Callable[..., Point]) -> None:
    parts = Partition(
        frozen=(), frozen_norms=(), transferred=("a",), fresh=(), head=("b",), block_of={"a": 1, "b": 2}
    )
    parameters = {name: torch.zeros(1) for name in ("a", "b", "forgotten")}

    with pytest.raises(ValueError, match="do not partition"):
        make_groups(parameters, parts, point(transfer_depth=1))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_optimisers_have_the_groups_rates_and_momentum_and_no_weight_decay(
    point: Callable[..., Point], optimizer: str, momentum: float
) -> None:
    at = point(transfer_depth=1, lr=0.5, lr_ratio=0.1, optimizer=optimizer, momentum=momentum)
    parts = Partition(
        frozen=(), frozen_norms=(), transferred=("a",), fresh=(), head=("b",), block_of={"a": 1, "b": 2}
    )
    parameters = {name: nn.Parameter(torch.zeros(1)) for name in ("a", "b")}

    found = make_optimizer(parameters, make_groups(parameters, parts, at), at)

    rows = [(row["params"], row["lr"], row["weight_decay"]) for row in found.param_groups]
    assert rows == [([parameters["b"]], 0.5, 0), ([parameters["a"]], 0.05, 0)]
    first = found.param_groups[0]
    assert (first["momentum"] if optimizer == "sgd" else first["betas"][0]) == momentum


@pytest.mark.parametrize(
    ("schedule", "last"),
    [("cosine", (1 + math.cos(math.pi * 7 / 8)) / 2), ("linear", 1 / 8), ("constant", 1.0)],
)
def test_the_schedule_at_the_first_step_the_end_of_the_warm_up_and_the_last_step(
    schedule: Schedule, last: float
) -> None:
    found = [
        schedule_factor(step, n_steps=10, warmup_fraction=0.2, schedule=schedule) for step in (0, 1, 2, 9)
    ]

    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, last])


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert schedule_factor(0, n_steps=10, warmup_fraction=0.0, schedule="cosine") == 1


def test_a_run_of_one_step_that_is_all_warm_up_moves() -> None:
    assert schedule_factor(0, n_steps=1, warmup_fraction=0.9, schedule="cosine") == 0.5


@given(st.integers(1, 400), st.floats(0, 0.9), st.sampled_from(SCHEDULES))
def test_a_schedule_rises_in_the_warm_up_then_never_rises_and_stays_in_zero_to_one(
    n_steps: int, warmup_fraction: float, schedule: Schedule
) -> None:
    factors = [
        schedule_factor(step, n_steps=n_steps, warmup_fraction=warmup_fraction, schedule=schedule)
        for step in range(n_steps)
    ]

    n_warmup = round(warmup_fraction * n_steps)
    rise, rest = factors[:n_warmup], factors[n_warmup:]
    assert all(0 < factor <= 1 for factor in factors)
    assert all(low < high for low, high in pairwise(rise))
    assert all(high >= low for high, low in pairwise(rest))
