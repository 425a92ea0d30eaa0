"""The cache planner: which blocks' outputs to cache, by size and by cost of computing them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tlopt.training.frozen_prefix import SplitPoint


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """A machine's cost of computing and of reading features."""

    seconds_per_flop: float
    seconds_per_byte: float  # read from the page cache, verified, moved to the device


def seconds_to(block: int, start: int, split_points: Sequence[SplitPoint], cost_model: CostModel) -> float:
    """Seconds per image for block `block`'s output from the cached output of `start` (0: from the image)."""
    flops = (split_points[block - 1].flops if block else 0.0) - (
        split_points[start - 1].flops if start else 0.0
    )
    read = split_points[start - 1].feature_format.row_bytes * cost_model.seconds_per_byte if start else 0.0
    return flops * cost_model.seconds_per_flop + read


def cheapest_start(
    block: int, cached: Collection[int], split_points: Sequence[SplitPoint], cost_model: CostModel
) -> int:
    """The block in `cached`, up to `block`, from which its output takes least time; 0: from the image."""
    return min(
        (0, *(at for at in cached if at <= block)),
        key=lambda at: (seconds_to(block, at, split_points, cost_model), -at),
    )


def blocks_to_cache(
    split_points: Sequence[SplitPoint],
    wanted: Collection[int],
    *,
    disk_bytes: Callable[[int], int],
    bytes_max: int,
    cost_model: CostModel,
) -> frozenset[int]:
    """Choose the blocks whose outputs save the most seconds per byte, as far as they fit.

    Args:
        split_points: one per block, in order.
        wanted: depths at which a trial may split the network.
        disk_bytes: total bytes on disk for a block, by the bytes of its output per image.
        bytes_max: upper bound for all chosen blocks.
    """
    saved = {
        at: seconds_to(at, 0, split_points, cost_model) - seconds_to(at, at, split_points, cost_model)
        for at in wanted
        if at > 0
    }
    size = {at: disk_bytes(split_points[at - 1].feature_format.row_bytes) for at in saved}
    chosen, room = set(), bytes_max
    for at in sorted(saved, key=lambda at: (-saved[at] / size[at], at)):
        if saved[at] > 0 and size[at] <= room:
            chosen.add(at)
            room -= size[at]
    return frozenset(chosen)
