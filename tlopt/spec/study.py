"""Parsing of study files: TOML to a frozen `Study`, or an error that names the mistake and its cure."""

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from tlopt.errors import SpecError
from tlopt.spec import dimensions, messages, search_keys
from tlopt.spec.algorithms import (
    FrontPruner,
    GridSampler,
    MedianPruner,
    NoPruner,
    NsgaSampler,
    PromotionPruner,
    Pruner,
    Record,
    Sampler,
    TpeSampler,
)
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Uniform
from tlopt.spec.model_names import is_file_name, split_part
from tlopt.spec.objectives import COST_TITLES, TITLES, AnyObjective, Direction, Objective, direction_of
from tlopt.spec.sections import BudgetSpec, ConfirmSpec, ConstraintsSpec, DataSpec, ModelSpec, ServiceSpec
from tlopt.spec.text import read_text
from tlopt.spec.trial_spec import PruneSpec

SEMANTICS_VERSION = 4  # raised when the same study file comes to mean another trial

# Keys that were added after studies had been made, with the value that earlier trials have.
_LATER = {
    "model.compile": False,
    "data.bits": 0,
    "data.folds": 0,
    "data.confirm_splits": 0,
    "objectives": (),
    "pruner.pauses": True,
    "constraints.parameters": 0.0,
    "constraints.multiply_adds": 0.0,
    "constraints.bytes": 0.0,
    "constraints.latency_ms": 0.0,
    "search.norm_depth": Fixed(0),
    "search.classifier": Fixed("network"),
    "search.norm_affine": Fixed("train"),
    "search.train_images": Fixed(0),
    "search.label_noise": Fixed(0.0),
    "search.backbone_depth": Fixed(1.0),
    "search.neck_layers": Fixed(0),
    "search.neck_width": Fixed(256),
    "search.neck_kernel": Fixed(3),
    "search.neck_convolution": Fixed("plain"),
    "search.activation": Fixed("relu"),
}

# Values that were renamed after studies had been made; digests use the former name.
_FORMER_VALUES = {("data.resize", "stretch"): "squash"}

# Keys that do not change what a trial means. Images with their classes, splits and groups are covered by the
# fingerprint of the images; a weights file has its own.
_NOT_IN_DIGEST = {
    *("name", "warm_start", "confirm.points", "confirm.seeds", "budget.trials", "budget.hours"),
    "sampler.repeats",
    *("data.source", "data.conflicts", "data.copies", "data.megapixels_max", "data.images_root"),
    *("data.file_column", "data.label_column", "data.split_column", "data.fold_column"),
    *("data.group_column", "data.group_folder", "data.group_pattern"),
}

_SEED_MAX = 2**63 - 1  # the largest integer that TOML guarantees

CONFIRM_SUFFIX = ".confirm"  # suffix of the name of a study's confirmation
PRUNE_SUFFIX = ".prune"  # suffix of the name of the study of its prunings
NAME_LENGTH_MAX = 100
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LENGTH_MAX - 1}}}$"


def is_companion(name: str, names: Collection[str]) -> bool:
    """Whether `name` is that of a confirmation, or of the prunings of one of the studies `names`."""
    return name.endswith(CONFIRM_SUFFIX) or (
        name.endswith(PRUNE_SUFFIX) and name.removesuffix(PRUNE_SUFFIX) in names
    )


class PerOptimizer(Record):
    """A dimension with one range per optimiser, for studies that search the optimiser."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    sgd: Fixed | Uniform | Log
    adamw: Fixed | Uniform | Log


class Study(Record):
    """A whole study file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    name: str = Field(
        pattern=NAME_PATTERN, description="up to 100 letters, digits and . _ - (first a letter or digit)"
    )
    seed: int = Field(default=0, ge=0, le=_SEED_MAX, description="seed of all random draws")
    objective: Objective = Field(
        default="accuracy",
        description="metric on validation to optimise: accuracy, balanced_accuracy, macro_f1 or log_loss",
    )
    objectives: tuple[AnyObjective, ...] = Field(
        default=(),
        strict=False,  # TOML has arrays
        description="several objectives in place of one: a metric as in objective, then one or two of"
        " parameters, multiply_adds, bytes and latency_ms",
    )
    warm_start: str = Field(
        default="",
        description="an earlier study in the same database, or the folder of an export (with a /), whose"
        " points the search starts from; read once, when the study is created",
    )
    data: DataSpec
    model: ModelSpec
    budget: BudgetSpec
    search: dict[str, Dimension | PerOptimizer] = Field(default_factory=dict)
    sampler: Sampler = Field(default_factory=TpeSampler)
    pruner: Pruner = Field(default_factory=MedianPruner)
    constraints: ConstraintsSpec = Field(default_factory=ConstraintsSpec)
    confirm: ConfirmSpec = Field(default_factory=ConfirmSpec)
    prune: PruneSpec = Field(default_factory=PruneSpec)
    service: ServiceSpec = Field(default_factory=ServiceSpec)

    @model_validator(mode="before")
    @classmethod
    def _take_metric(cls, raw: object) -> object:
        """The first of several objectives is the metric that every screen shows."""
        names = raw.get("objectives") if isinstance(raw, dict) and "objective" not in raw else None
        if not isinstance(raw, dict) or not isinstance(names, list | tuple) or not names:
            return raw
        return raw | {"objective": names[0]} if names[0] in (*TITLES,) else raw

    @field_validator("objectives")
    @classmethod
    def _are_metric_and_costs(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        costs = names[1:]
        if not names:
            return names
        if names[0] not in TITLES or not 1 <= len(costs) <= 2 or len({*costs} & {*COST_TITLES}) < len(costs):
            raise ValueError(
                f"{json.dumps(names)} is not allowed: first one of {', '.join(TITLES)}, then"
                f" one or two of {', '.join(COST_TITLES)}; a single metric is objective = ..."
            )
        return names

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name.endswith(CONFIRM_SUFFIX):
            raise ValueError("names that end in .confirm belong to confirmations")
        return name

    @field_validator("warm_start")
    @classmethod
    def _can_be_begun_with(cls, earlier: str) -> str:
        if not earlier or "/" in earlier:
            return earlier
        if earlier.endswith(CONFIRM_SUFFIX):
            raise ValueError(
                f'"{earlier}" is a confirmation, which searches nothing; name its search:'
                f' "{earlier.removesuffix(CONFIRM_SUFFIX)}"'
            )
        if not re.match(NAME_PATTERN, earlier):
            raise ValueError(f'"{earlier}" is no name of a study, and no folder either: a folder has a /')
        return earlier

    @field_validator("search", mode="before")
    @classmethod
    def _parse_search(cls, raw: object) -> dict[str, Dimension | PerOptimizer]:
        if not isinstance(raw, dict):
            raise ValueError(f"a table, [search], and not {dimensions.as_toml(raw)}")
        parsed, mistakes = {}, []
        for name, value in raw.items():
            try:
                parsed[name] = _parse_key(name, value)
            except ValueError as error:
                mistakes.append(f"search.{name}: {error}")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return parsed

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        epochs = self.search.get("epochs")
        if epochs is not None and any(value > self.budget.epochs for value in _values(epochs)):  # type: ignore[operator]
            raise ValueError(f"search.epochs exceeds budget.epochs = {self.budget.epochs}")
        if self.warm_start == self.name:
            raise ValueError(
                f'warm_start: "{self.name}" is this study itself; name an earlier one, or leave the key out'
            )
        self._check_optimizer_ranges()
        self._check_backbone_depths()
        return self

    @model_validator(mode="after")
    def _check_promotion(self) -> Self:
        if isinstance(self.pruner, PromotionPruner) and not isinstance(self.budget.trials, int):
            raise ValueError(
                'budget.trials: "enough" decides by trials in the order they began, which pruner.kind ='
                ' "promotion" leaves unfinished; give a number of trials, or choose another pruner'
            )
        return self

    @model_validator(mode="after")
    def _as_front(self) -> Self:
        """With several objectives, trials are pruned by the front."""
        if not self.objectives:
            if isinstance(self.pruner, FrontPruner) or isinstance(self.sampler, NsgaSampler):
                where = "pruner" if isinstance(self.pruner, FrontPruner) else "sampler"
                raise ValueError(f"{where}.kind: this one needs several objectives, see objectives")
            return self
        if self.objective != self.objectives[0]:
            raise ValueError(f'objective: leave it out, objectives begins with "{self.objectives[0]}"')
        if self.budget.trials == "enough":
            raise ValueError('budget.trials: "enough" judges by one objective; write a number of trials')
        if self.warm_start:
            raise ValueError(
                "warm_start: a search with several objectives starts from no other; leave it out"
            )
        if isinstance(self.sampler, GridSampler):
            return self
        if "pruner" not in self.model_fields_set:
            return self.model_copy(update={"pruner": FrontPruner()})
        if not isinstance(self.pruner, FrontPruner | NoPruner):
            raise ValueError(
                f'pruner.kind: "{self.pruner.kind}" judges by one objective; with several: "front", or "none"'
            )
        return self

    @model_validator(mode="after")
    def _as_grid(self) -> Self:
        """With a grid, nothing is pruned, and keys of recipes are choices, with their usual value first."""
        if not isinstance(self.sampler, GridSampler):
            return self
        if self.warm_start:
            raise ValueError("warm_start: a grid has its own points and begins with no others; leave it out")
        if self.prune.goals:
            raise ValueError(
                "prune: a grid ends with curves and has no second stage; leave the table out, and prune an"
                " export with: tlopt prune"
            )
        if "pruner" in self.model_fields_set and not isinstance(self.pruner, NoPruner):
            raise ValueError('pruner.kind: a grid trains every point to its end: "none", or leave it out')
        search = self.search | _recipe_choices(self.search, self.sampler)
        for name, dimension in {"backbone": self.model.backbone, **search}.items():
            if not isinstance(dimension, Fixed | Choice | Int):
                raise ValueError(
                    f"search.{name}: a grid takes listed values, such as {{ choice = [0.001, 0.01] }}"
                )
        return self.model_copy(update={"search": search, "pruner": NoPruner(kind="none")})

    def _check_optimizer_ranges(self) -> None:
        searched = isinstance(self.search.get("optimizer"), Choice)
        for name, dimension in self.search.items():
            if searched and isinstance(dimension, (Log, Uniform, Choice)) and _per_optimizer(name):
                raise ValueError(
                    f"search.{name}: with a searched optimizer it needs a range for each:"
                    f" {name} = {{ sgd = {{ ... }}, adamw = {{ ... }} }}"
                )
            if not searched and isinstance(dimension, PerOptimizer):
                raise ValueError(
                    f"search.{name}: ranges for each optimizer need optimizer ="
                    ' { choice = ["sgd", "adamw"] }'
                )

    def _check_backbone_depths(self) -> None:
        if isinstance(self.model.backbone, Fixed):
            return
        for name, dimension in self.search.items():
            if not isinstance(search_keys.RULES[name], search_keys.Depth):
                continue
            whole = [v for v in _values(dimension) if isinstance(v, int) and v != 0]
            if whole:
                raise ValueError(
                    f"search.{name}: with a searched backbone a depth is a fraction of its blocks,"
                    f" 0.0 to 1.0, not {whole[0]}"
                )

    @property
    def is_grid(self) -> bool:
        """Whether trials are the points of a grid over repeated seeds, instead of draws of a sampler."""
        return isinstance(self.sampler, GridSampler)

    def is_log(self, key: str) -> bool:
        """Whether `key` is searched on a logarithmic scale."""
        dimension = self.search.get(key)
        if isinstance(dimension, PerOptimizer):
            return isinstance(dimension.sgd, Log) or isinstance(dimension.adamw, Log)
        return isinstance(dimension, Log)

    @property
    def direction(self) -> Direction:
        """Optuna's direction of the objective."""
        return direction_of(self.objective)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Optuna's direction of each objective, the metric first."""
        return (self.direction, *(direction_of(name) for name in self.cost_objectives))

    @property
    def cost_objectives(self) -> tuple[str, ...]:
        """The inference costs that are minimised beside the metric; empty for one objective."""
        return self.objectives[1:]

    @property
    def cost_names(self) -> tuple[str, ...]:
        """The inference costs that are objectives or limited."""
        return tuple(dict.fromkeys((*self.cost_objectives, *self.constraints.limits)))

    @property
    def digest(self) -> str:
        """Digest of `meaning`, 16 hexadecimal digits."""
        canonical = json.dumps(meaning(self), sort_keys=True, default=repr)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def weights_file(self) -> Path | None:
        """The weights file, or None if `model.weights` is not a path."""
        weights = self.model.weights
        return split_part(weights)[0] if is_file_name(weights) else None


def meaning(study: Study) -> dict[str, object]:
    """The keys of the study file that determine what a trial means, as table.key, with their values.

    Left out: name, warm_start, budget.trials and hours, confirm, service, and the locations of images and
    weights.
    """
    keys: dict[str, object] = {}
    for name, value in study:
        if name in ("service", "prune"):
            continue
        if isinstance(value, (dict, Record)):
            keys |= {f"{name}.{key}": item for key, item in dict(value).items()}
        else:
            keys[name] = value
    if study.weights_file is not None:
        keys["model.weights"] = "a file"
    for key, value in _FORMER_VALUES:
        if keys.get(key) == value:
            keys[key] = _FORMER_VALUES[key, value]
    unsaid = {key for key, value in _LATER.items() if keys.get(key) == value}
    return {key: value for key, value in keys.items() if key not in _NOT_IN_DIGEST | unsaid}


def loads(text: str, where: str) -> Study:
    """The study written in `text`; `where` names it in errors.

    Raises:
        SpecError: one line for each mistake.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not valid TOML: {error}") from error
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise SpecError("\n".join(f"{where}: {line}" for line in messages.lines(error, Study))) from error


def load(path: str | Path) -> Study:
    """The study in the file `path`.

    Raises:
        SpecError: the file cannot be read, or a key is wrong.
    """
    return loads(read_text(path), str(path))


def _parse_key(name: str, raw: object) -> Dimension | PerOptimizer:
    if name not in search_keys.RULES:
        raise ValueError(messages.unknown_key(name, list(search_keys.RULES)))
    if _per_optimizer(name) and isinstance(raw, dict) and set(raw) & set(search_keys.OPTIMIZERS):
        return _parse_per_optimizer(name, raw)
    return search_keys.checked(name, dimensions.parse(raw))


def _parse_per_optimizer(name: str, raw: dict[str, object]) -> PerOptimizer:
    if set(raw) != set(search_keys.OPTIMIZERS):
        wanted, found = ", ".join(search_keys.OPTIMIZERS), ", ".join(raw)
        raise ValueError(f"needs a value for each of {wanted} and nothing else, has {found}")
    ranges: dict[str, Any] = {
        key: search_keys.checked(name, dimensions.parse(value)) for key, value in raw.items()
    }
    if any(isinstance(dimension, Choice) for dimension in ranges.values()):
        raise ValueError("a range for each optimizer is a value, uniform or log")
    return PerOptimizer(**ranges)


def _recipe_choices(
    search: Mapping[str, Dimension | PerOptimizer], grid: GridSampler
) -> dict[str, Dimension]:
    """The keys that recipes set, each as a choice of all their values and the usual one, which is first.

    Raises:
        ValueError: a key is searched, too, or has no usual value.
    """
    found: dict[str, Dimension] = {}
    for name in dict.fromkeys(key for recipe in grid.recipes.values() for key in recipe):
        given, values = (
            search.get(name),
            [v for recipe in grid.recipes.values() for v in recipe.get(name, ())],
        )
        if given is not None and not isinstance(given, Fixed):
            raise ValueError(
                f"search.{name}: recipes set it, so here it has one plain value, that of the other recipes"
            )
        usual = search_keys.RULES[name].default if given is None else given.value
        if usual is None:
            raise ValueError(
                f"search.{name}: recipes set it; give a value here, that of the recipes which do not"
            )
        if given is None and all(isinstance(value, float) for value in values) and usual == 0:
            usual = 0.0  # a depth as a fraction, like the others
        options = tuple(dict.fromkeys([usual, *values]))
        try:
            found[name] = search_keys.checked(
                name, Choice(options) if len(options) > 1 else Fixed(options[0])
            )
        except ValueError as error:
            raise ValueError(f"search.{name}: {error}") from error
    return found


def _per_optimizer(name: str) -> bool:
    return search_keys.RULES[name].per_optimizer


def _values(dimension: Dimension | PerOptimizer) -> tuple[dimensions.Scalar, ...]:
    if isinstance(dimension, PerOptimizer):
        return (*dimensions.bounds(dimension.sgd), *dimensions.bounds(dimension.adamw))
    return dimensions.bounds(dimension)
