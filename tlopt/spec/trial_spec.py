"""What one trial is to do."""

from dataclasses import dataclass
from pathlib import Path

from tlopt.spec.point import Point


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What one trial is to do: train `point` once for each seed, on the split beside it, in step."""

    point: Point
    seeds: tuple[int, ...]
    splits: tuple[int, ...]  # of `Data.splits`, one for each seed
    label: str  # the name of a point that was asked for, or ""
    prunable: bool
    weights_file: Path | None = None  # where the first network's tensors go at the end
