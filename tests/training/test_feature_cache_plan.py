"""The blocks worth caching: those that save the most seconds per byte, within the bound."""

import pytest
import torch

from tlopt.training.feature_cache_plan import CostModel, blocks_to_cache, cheapest_start, seconds_to
from tlopt.training.frozen_prefix import FeatureFormat, SplitPoint

# Three blocks of 100, 200 and 300 operations in all; an image's output has 400, 40 and 4 bytes.
SPLIT_POINTS = tuple(
    SplitPoint(block, FeatureFormat((n_floats,), torch.float32, channels_last=False), flops)
    for block, n_floats, flops in ((1, 100, 100.0), (2, 10, 200.0), (3, 1, 300.0))
)
TEN = (10).__mul__  # images
COST_MODEL = CostModel(seconds_per_flop=1.0, seconds_per_byte=0.125)


@pytest.mark.parametrize(
    ("block", "start", "seconds"),
    [(0, 0, 0), (1, 0, 100), (3, 0, 300), (3, 3, 0.5), (3, 2, 105), (2, 1, 150)],
)
def test_a_way_costs_its_operations_and_what_is_read(block: int, start: int, seconds: float) -> None:
    assert seconds_to(block, start, SPLIT_POINTS, COST_MODEL) == seconds


@pytest.mark.parametrize(
    ("block", "kept", "wanted"),
    [(3, [], 0), (3, [1, 2, 3], 3), (3, [1, 2], 2), (2, [3], 0), (2, [1], 1), (0, [1], 0)],
)
def test_the_quickest_way_starts_where_least_is_left(block: int, kept: list[int], wanted: int) -> None:
    assert cheapest_start(block, kept, SPLIT_POINTS, COST_MODEL) == wanted


def test_what_is_dearer_to_read_than_to_compute_is_computed() -> None:
    slow = CostModel(seconds_per_flop=1.0, seconds_per_byte=1.0)

    assert cheapest_start(1, [1], SPLIT_POINTS, slow) == 0
    assert blocks_to_cache(SPLIT_POINTS, [1], disk_bytes=TEN, bytes_max=10**6, cost_model=slow) == frozenset()


@pytest.mark.parametrize(
    ("bytes_max", "kept"),
    [(0, set()), (39, set()), (40, {3}), (439, {3}), (440, {2, 3}), (4440, {1, 2, 3})],
)
def test_within_the_bound_goes_first_what_saves_most_a_byte(bytes_max: int, kept: set[int]) -> None:
    assert (
        blocks_to_cache(SPLIT_POINTS, [1, 2, 3], disk_bytes=TEN, bytes_max=bytes_max, cost_model=COST_MODEL)
        == kept
    )


def test_only_what_may_be_wanted_is_kept() -> None:
    assert blocks_to_cache(SPLIT_POINTS, [0, 2], disk_bytes=TEN, bytes_max=10**6, cost_model=COST_MODEL) == {
        2
    }
