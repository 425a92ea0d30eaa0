"""Records of the study file for Optuna's samplers and pruners, with their arguments and our defaults.

The defaults were chosen by measurement: benchmarks/defaults/README.md.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_TRIALS_MAX, _EPOCHS_MAX = 1_000_000, 100_000  # as in [budget]


class Record(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TpeSampler(Record):
    """`[sampler] kind = "tpe"`: optuna.samplers.TPESampler, multivariate."""

    kind: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(default=8, ge=0, le=_TRIALS_MAX)
    n_ei_candidates: int = Field(default=24, ge=1, le=100_000)


class RandomSampler(Record):
    """`[sampler] kind = "random"`: optuna.samplers.RandomSampler."""

    kind: Literal["random"]


class GpSampler(Record):
    """`[sampler] kind = "gp"`: optuna.samplers.GPSampler."""

    kind: Literal["gp"]
    n_startup_trials: int = Field(default=10, ge=0, le=_TRIALS_MAX)


class NoPruner(Record):
    """`[pruner] kind = "none"`."""

    kind: Literal["none"]


class MedianPruner(Record):
    """`[pruner] kind = "median"`: optuna.pruners.MedianPruner."""

    kind: Literal["median"] = "median"
    n_startup_trials: int = Field(default=5, ge=0, le=_TRIALS_MAX)
    min_epochs: int = Field(default=4, ge=1, le=_EPOCHS_MAX)


class PercentilePruner(Record):
    """`[pruner] kind = "percentile"`: optuna.pruners.PercentilePruner; keeps the best `percentile`."""

    kind: Literal["percentile"]
    percentile: float = Field(default=75.0, ge=0.01, lt=100)
    n_startup_trials: int = Field(default=5, ge=0, le=_TRIALS_MAX)
    min_epochs: int = Field(default=3, ge=1, le=_EPOCHS_MAX)


class HalvingPruner(Record):
    """`[pruner] kind = "successive_halving"`: optuna.pruners.SuccessiveHalvingPruner."""

    kind: Literal["successive_halving"]
    min_epochs: int = Field(default=4, ge=1, le=_EPOCHS_MAX)
    reduction_factor: int = Field(default=3, ge=2, le=1000)


class HyperbandPruner(Record):
    """`[pruner] kind = "hyperband"`: optuna.pruners.HyperbandPruner."""

    kind: Literal["hyperband"]
    min_epochs: int = Field(default=2, ge=1, le=_EPOCHS_MAX)
    reduction_factor: int = Field(default=3, ge=2, le=1000)


Sampler = Annotated[TpeSampler | RandomSampler | GpSampler, Field(discriminator="kind")]
Pruner = Annotated[
    NoPruner | MedianPruner | PercentilePruner | HalvingPruner | HyperbandPruner, Field(discriminator="kind")
]
