"""The cache planner: the blocks whose outputs are worth caching, by bytes and by operations."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tlopt.training.frozen_prefix import SplitPoint


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Seconds that a machine takes for an operation and for a byte."""

    seconds_per_flop: float
    seconds_per_byte: float  # read from a file that the system holds in memory, checked, moved to the device


def seconds_to(block: int, start: int, split_points: Sequence[SplitPoint], cost_model: CostModel) -> float:
    """Seconds per image for the output of `block` from the cached output of `start`; 0 is the image."""
    flops = (split_points[block - 1].flops if block else 0.0) - (
        split_points[start - 1].flops if start else 0.0
    )
    read = split_points[start - 1].feature_format.row_bytes * cost_model.seconds_per_byte if start else 0.0
    return flops * cost_model.seconds_per_flop + read


def cheapest_start(
    block: int, cached: Collection[int], split_points: Sequence[SplitPoint], cost_model: CostModel
) -> int:
    """The block of `cached`, at most `block`, from which its output is had soonest; 0: from the image."""
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
    """The blocks whose outputs are to be cached: those that save most seconds per byte, while there is room.

    Args:
        split_points: of all blocks, in order.
        wanted: blocks at which a trial may be cut.
        disk_bytes: what a block takes in all, by the bytes of its output for an image.
        bytes_max: for all of them.
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
