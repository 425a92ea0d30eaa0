"""The cache planner: the blocks whose outputs are worth caching, by bytes and by operations."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tlopt.training.frozen_prefix import SplitPoint


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Seconds that a machine takes for an operation and for a byte."""

    seconds_a_flop: float
    seconds_a_byte: float  # read from a file that the system holds in memory, checked, moved to the device


def seconds_to(block: int, start: int, cuts: Sequence[SplitPoint], rates: CostModel) -> float:
    """Seconds per image for the output of `block` from the cached output of `start`; 0 is the image."""
    flops = (cuts[block - 1].flops if block else 0.0) - (cuts[start - 1].flops if start else 0.0)
    read = cuts[start - 1].form.row_bytes * rates.seconds_a_byte if start else 0.0
    return flops * rates.seconds_a_flop + read


def best_start(block: int, kept: Collection[int], cuts: Sequence[SplitPoint], rates: CostModel) -> int:
    """The block of `kept`, at most `block`, from which its output is had soonest; 0: from the image."""
    return min(
        (0, *(at for at in kept if at <= block)), key=lambda at: (seconds_to(block, at, cuts, rates), -at)
    )


def worth_keeping(
    cuts: Sequence[SplitPoint],
    wanted: Collection[int],
    *,
    disk_bytes: Callable[[int], int],
    bytes_max: int,
    rates: CostModel,
) -> frozenset[int]:
    """The blocks whose outputs are to be cached: those that save most seconds per byte, while there is room.

    Args:
        cuts: of all blocks, in order.
        wanted: blocks at which a trial may be cut.
        disk_bytes: what a block takes in all, by the bytes of its output for an image.
        bytes_max: for all of them.
    """
    saved = {at: seconds_to(at, 0, cuts, rates) - seconds_to(at, at, cuts, rates) for at in wanted if at > 0}
    size = {at: disk_bytes(cuts[at - 1].form.row_bytes) for at in saved}
    kept, room = set(), bytes_max
    for at in sorted(saved, key=lambda at: (-saved[at] / size[at], at)):
        if saved[at] > 0 and size[at] <= room:
            kept.add(at)
            room -= size[at]
    return frozenset(kept)
