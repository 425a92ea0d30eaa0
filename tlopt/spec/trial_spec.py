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
    keeps_train_accuracy: bool = False  # whether its result has the training accuracy at `curve_epochs`
    weights_file: Path | None = None  # where the first network's tensors are written at the end


def curve_epochs(n_epochs: int) -> tuple[int, ...]:
    """The epochs, from 1, at which curves over epochs are drawn: 1, 2, 4, ... and the last."""
    return tuple(sorted({2**i for i in range(n_epochs.bit_length())} | {n_epochs}))
