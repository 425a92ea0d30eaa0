"""Records of the study file for Optuna's samplers and pruners, with their arguments and our defaults.

The defaults were chosen by measurement: benchmarks/defaults/README.md.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tlopt.spec.dimensions import Choice, Fixed, Scalar, as_toml, bounds
from tlopt.spec.search_keys import RULES, checked

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


class NsgaSampler(Record):
    """`[sampler] kind = "nsga2"`: optuna.samplers.NSGAIISampler, for several objectives."""

    kind: Literal["nsga2"]
    population_size: int = Field(default=16, ge=2, le=_TRIALS_MAX)


Recipe = dict[str, tuple[Scalar, ...]]  # values of each key that the recipe sets


class GridSampler(Record):
    """`[sampler] kind = "grid"`: every combination of listed values, each trained over `repeats` seeds."""

    kind: Literal["grid"]
    repeats: int = Field(default=3, ge=1, le=1000)
    recipes: dict[str, Recipe] = Field(default_factory=dict)

    @field_validator("recipes", mode="before")
    @classmethod
    def _parse_recipes(cls, raw: object) -> dict[str, Recipe]:
        if not isinstance(raw, Mapping) or not all(isinstance(keys, Mapping) for keys in raw.values()):
            raise ValueError('recipes are tables by name, such as "probe" = { freeze_depth = 1.0 }')
        recipes: dict[str, Recipe] = {}
        mistakes = []
        for name, keys in raw.items():
            recipes[name] = {}
            for key, given in keys.items():
                try:
                    recipes[name][key] = _recipe_values(key, given)
                except ValueError as error:
                    mistakes.append(f"sampler.recipes.{name}.{key}: {error}")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return recipes


def _recipe_values(key: str, given: object) -> tuple[Scalar, ...]:
    """The values of `key` in a recipe: one, or a list of them.

    Raises:
        ValueError: the key is unknown, or a value is not allowed.
    """
    if key not in RULES:
        raise ValueError(f"unknown key; the keys here are those of [search]: {', '.join(RULES)}")
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values or not all(isinstance(value, bool | int | float | str) for value in values):
        raise ValueError(f"{as_toml(given)} is neither a plain value nor a list of some")
    if len(set(values)) != len(values):
        raise ValueError(f"names a value twice: {as_toml(given)}")
    return bounds(checked(key, Fixed(values[0]) if len(values) == 1 else Choice(values)))


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


class PromotionPruner(Record):
    """`[pruner] kind = "promotion"`: trials pause after `min_epochs` and multiples of it; the best go on."""

    kind: Literal["promotion"]
    min_epochs: int = Field(default=1, ge=1, le=_EPOCHS_MAX)
    reduction_factor: int = Field(default=2, ge=2, le=1000)


class FrontPruner(Record):
    """`[pruner] kind = "front"`: trials of several objectives pause, and end where cheaper are ahead."""

    kind: Literal["front"] = "front"
    pauses: bool = True
    n_startup_trials: int = Field(default=5, ge=3, le=_TRIALS_MAX)
    min_epochs: int = Field(default=1, ge=1, le=_EPOCHS_MAX)
    n_better: int = Field(default=1, ge=1, le=_TRIALS_MAX)
    margin: float = Field(default=1.5, ge=0.01, le=100)


Sampler = Annotated[
    TpeSampler | RandomSampler | GpSampler | NsgaSampler | GridSampler, Field(discriminator="kind")
]
Pruner = Annotated[
    NoPruner
    | MedianPruner
    | PercentilePruner
    | HalvingPruner
    | HyperbandPruner
    | PromotionPruner
    | FrontPruner,
    Field(discriminator="kind"),
]
