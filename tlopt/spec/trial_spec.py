"""The specification of one trial, and of prunings: the table `[prune]`, and the goal of one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tlopt.spec.algorithms import Record
from tlopt.spec.objectives import percent_words
from tlopt.spec.point import Point
from tlopt.spec.sections import or_zero

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
    pruned: "PrunedRun | None" = None  # what is pruned, by training at `point`; None: a new network

    @property
    def n_reports(self) -> int:
        """Number of values that the trial reports at most, one for each epoch."""
        return self.n_trainings * self.point.epochs

    @property
    def n_trainings(self) -> int:
        """Number of trainings, to each of which a limit on the time of a trial applies."""
        return 1 if self.pruned is None else self.pruned.goal.n_trainings


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

    @property
    def n_trainings(self) -> int:
        """Number of trainings: one for each round, and one more for a first history."""
        return self.n_rounds + (self.criterion == "history")

    @property
    def words(self) -> str:
        """As in "50.0 % of the multiply-adds, taylor, uniform"."""
        quantity = self.quantity.replace("_", "-")
        return f"{percent_words(self.share)} of the {quantity}, {self.criterion}, {self.scope}"


@dataclass(frozen=True, kw_only=True)
class PrunedRun:
    """A run of a confirmation whose network is pruned."""

    point: Point
    weights_file: Path  # its trained tensors
    goal: PruneGoal


@dataclass(frozen=True, kw_only=True)
class PlannedPruning:
    """A pruning of the second stage: a run of the confirmation, and the goal."""

    candidate: int
    replicate: int
    seed: int
    point: Point  # of the run
    epochs: int  # of each round
    goal: PruneGoal


def recipe_point(point: Point, *, epochs: int | None) -> Point:
    """The point that a pruned network is trained by: its own, but no block is frozen, at any time.

    Args:
        epochs: of each round; default: as many as the point has.
    """
    return replace(point, freeze_depth=0, head_first_epochs=0, epochs=epochs or point.epochs)


class PruneSpec(Record):
    """`[prune]`: a second stage, which removes channels from the network that the confirmation has chosen."""

    multiply_adds: tuple[float, ...] = Field(
        default=(),
        strict=False,  # TOML has arrays
        description="shares of its multiply-adds to keep, such as [0.5, 0.35], each in a pruning of its own;"
        " none here and in parameters: no second stage",
    )
    parameters: tuple[float, ...] = Field(
        default=(),
        strict=False,
        description="shares of its parameters to keep, such as [0.33]; in place of multiply_adds",
    )
    criterion: tuple[Criterion, ...] = Field(
        default=("taylor",),
        strict=False,
        description="what decides which channels go: any of taylor, l1, batch_norm and history, each in a"
        " pruning of its own",
    )
    scope: tuple[Scope, ...] = Field(
        default=("uniform",),
        strict=False,
        description="take the same share of each layer (uniform), or compare all layers (global), or both,"
        " each in a pruning of its own",
    )
    rounds: int = Field(default=4, ge=1, le=100, description="number of removals, each followed by training")
    epochs: int = Field(
        default=0, ge=0, le=100_000, description="epochs of each round; 0: as many as the chosen point has"
    )
    loss_max: Annotated[float, or_zero(0.001, zero="no loss")] = Field(
        default=2.0,
        ge=0,
        le=100,
        description="points of validation accuracy that may be lost; a pruning ends after a round that loses"
        " more, with the network before it",
    )

    @field_validator("multiply_adds", "parameters")
    @classmethod
    def _are_shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        for share in shares:
            if not 0 < share < 1:
                raise ValueError(f"{share:g} is not allowed: shares above 0 and below 1, such as [0.5, 0.35]")
        return tuple(dict.fromkeys(shares))

    @field_validator("criterion", "scope")
    @classmethod
    def _are_some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("[] is not allowed: name at least one")
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _wants_one_quantity(self) -> Self:
        if self.multiply_adds and self.parameters:
            raise ValueError("prune.multiply_adds and prune.parameters both say what to keep: keep one key")
        return self

    @property
    def quantity(self) -> Quantity:
        """The quantity of which shares are kept."""
        return "parameters" if self.parameters else "multiply_adds"

    @property
    def goals(self) -> Sequence[PruneGoal]:
        """The goal of each pruning; none without a second stage."""
        return [
            PruneGoal(
                quantity=self.quantity,
                share=share,
                criterion=criterion,
                scope=scope,
                n_rounds=self.rounds,
                loss_max=self.loss_max / 100,
            )
            for share in self.multiply_adds or self.parameters
            for criterion in self.criterion
            for scope in self.scope
        ]
