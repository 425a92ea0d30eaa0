"""Simulated choices of a confirmation: what its rounds cost, where runs go, and when a search ends below."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.selection import allocation, overtuning
from benchmarks.selection.regret import Searched

SURE = Searched(
    first=np.array([0.5, 0.6, 0.62, 0.9, 0.7, 0.8]),
    true=np.array([0.5, 0.6, 0.62, 0.9, 0.7, 0.8]),
    lasting=np.zeros(6),
    n_val=1_000_000,
)


def test_a_confirmation_in_rounds_costs_each_round_its_points() -> None:
    assert {name: way.runs for name, way in allocation.WAYS.items() if name.startswith("6, 3")} == {
        "6, 3 after 1 of 3 seeds, odds 3 to 1": "12 + 3",
        allocation.SHIPPED: "12 + 3",
        "6, 3, 2 after 1, 3 of 4": "14 + 4",
        "6, 3, 2 after 1, 3 of 5": "16 + 5",
        "6, 3, 2 after 1, 3 of 7": "20 + 7",
    }


@pytest.mark.parametrize("name", allocation.WAYS)
def test_every_way_finds_the_best_point_where_images_add_no_noise(name: str) -> None:
    assert allocation.WAYS[name].choose(SURE, np.random.default_rng(0)) == 3


def test_a_point_that_the_trials_flatter_is_left_for_the_default() -> None:
    flattered = replace(SURE, true=np.array([0.5, 0.6, 0.3, 0.3, 0.3, 0.3]))
    assert allocation.WAYS[allocation.SHIPPED].choose(flattered, np.random.default_rng(0)) == 1


def test_the_next_run_goes_to_a_point_that_could_be_the_best() -> None:
    means = {2: 0.90, 3: 0.89, 4: 0.50}
    assert allocation._next_run(means, {2: 3, 3: 2, 4: 1}) == 3
    assert allocation._next_run(means, {2: 2, 3: 3, 4: 1}) == 2


def test_todays_pools_have_the_partly_frozen_network_as_their_last_default() -> None:
    found = overtuning.todays_pools()
    assert [pool.n_defaults for pool in found] == [4] * 6 + [3] * 3
    # the best default of the recipes' sets but two, within the noise of 300 images
    best = [pool.true[pool.n_defaults - 1] >= pool.true[: pool.n_defaults].max() - 0.01 for pool in found]
    assert best.count(True) >= 7


ENDING = overtuning.Ending(
    group=0, n_val=48, n_splits=1, lead=1.0, default_lead=0.5, true=(0.6, 0.7, 0.8, 0.75), best=0.8,
    lasting=0.5, noise=(0.0, 0.0),
)  # fmt: skip


def test_a_search_ends_below_where_the_point_is_taken_and_worse_beyond_two_errors() -> None:
    point, strongest, best = overtuning.POINT, overtuning.STRONGEST, overtuning.BEST
    assert [ENDING.below(choice, strongest) for choice in (point, strongest)] == [True, False]
    assert [ENDING.below(choice, best) for choice in (point, strongest)] == [True, True]
    near = replace(ENDING, true=(0.69, 0.7, 0.7, 0.7))
    assert not near.below(point, strongest)


@pytest.mark.parametrize(
    ("errors", "prefers", "choice"),
    [
        *((0.9, True, overtuning.POINT), (0.9, False, overtuning.POINT)),
        *((1.1, True, overtuning.PREFERRED), (1.1, False, overtuning.STRONGEST)),
    ],
)
def test_the_preferred_default_is_taken_unless_a_lead_is_large_enough(
    errors: float, prefers: bool, choice: int
) -> None:
    assert ENDING.choice(errors, prefers=prefers) == choice
    assert replace(ENDING, lead=0.0, default_lead=1.2).choice(1.1, prefers=True) == overtuning.STRONGEST


def test_the_odds_of_a_search_are_those_that_its_images_need() -> None:
    def ending(n_val: int, n_splits: int) -> overtuning.Ending:
        return replace(ENDING, n_val=n_val, n_splits=n_splits)

    found = [ending(24, 1), ending(48, 1), ending(300, 1), ending(24, 3), ending(48, 3)]
    assert overtuning.odds_of(found, None).tolist() == [6.0, 4.0, 3.0, 2.0, 1.5]
    assert overtuning.odds_of(found, 2.0).tolist() == [2.0] * 5
