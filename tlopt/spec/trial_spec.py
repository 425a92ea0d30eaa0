"""The specification of one trial, and of one pruning."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tlopt.spec.point import Point

Criterion = Literal["l1", "batch_norm", "taylor", "history"]
Quantity = Literal["parameters", "multiply_adds"]
Scope = Literal["uniform", "global"]


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


@dataclass(frozen=True, kw_only=True)
class PruneGoal:
    """How small the network should become, and how."""

    quantity: Quantity
    share: float  # of the quantity that may remain, in (0, 1)
    criterion: Criterion = "taylor"
    scope: Scope = "uniform"
    n_rounds: int = 4  # at least 1
    loss_max: float = 0.02  # of validation accuracy, compared with the network before
