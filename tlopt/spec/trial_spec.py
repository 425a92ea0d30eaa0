"""The specification of one trial."""

from dataclasses import dataclass
from pathlib import Path

from tlopt.spec.point import Point


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial: `point` is trained once per seed, each run on its own split, epoch by epoch side by side."""

    point: Point
    seeds: tuple[int, ...]
    splits: tuple[int, ...]  # indices into `Data.splits`, one for each seed
    label: str  # name of a default or requested point, or ""
    prunable: bool
    recipes: tuple[str, ...] = ()  # names of the recipes that its point belongs to
    weights_file: Path | None = None  # where the first network's tensors are written at the end
