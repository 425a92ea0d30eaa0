"""The search space: distributions of the parameters, and conversion between parameters and `Point`.

The space is static: every searched key is always drawn, so that the sampler sees one joint space.
Dependencies (a depth capped by another, "off") are resolved on decoding, and the result is stored as the
trial's point. Linear classifiers are the one exception: only keys that affect them are drawn, and samplers
neither draw nor see such trials (see `InitialPointsSampler`).
"""

from collections.abc import Mapping
from typing import Any, assert_never

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial, FrozenTrial

from tlopt.errors import SpecError
from tlopt.model.facts import BackboneFacts
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Scalar, Uniform
from tlopt.spec.point import Point
from tlopt.spec.search_keys import (
    DEFAULT_L2,
    LINEAR_KEYS,
    NECK_KEYS,
    NORM_KEYS,
    RULES,
    STRUCTURE_KEYS,
    Depth,
    in_blocks,
)

# The classifier first, since it decides which keys are drawn.
_ORDER = ("classifier", *(name for name in RULES if name != "classifier"))
Params = dict[str, Any]  # a trial's parameters by name, as in Optuna


def search_space(study: Study) -> dict[str, BaseDistribution]:
    """Distributions of the parameters by name, in drawing order.

    A key whose range depends on the optimizer has a parameter `KEY_position` in [0, 1] instead.
    """
    space = _distribution("backbone", study.model.backbone)
    for name in _ORDER:
        dimension = study.search.get(name)
        if isinstance(dimension, PerOptimizer):
            space[f"{name}_position"] = FloatDistribution(0.0, 1.0)
            space |= _distribution("optimizer", study.search["optimizer"])
        elif dimension is not None:
            space |= _distribution(name, dimension)
    return space


def suggest_params(trial: Trial | FixedTrial | FrozenTrial, space: Mapping[str, BaseDistribution]) -> Params:
    """Have `trial` suggest a value for every parameter of `space`."""
    params: Params = {}
    for name, distribution in space.items():
        if name in live_keys(params, space):
            params[name] = _suggest(trial, name, distribution)
    return params


def live_keys(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> set[str]:
    """Names of the parameters of `space` that are drawn in a trial with `params`."""
    live = ("backbone", "replicate", *LINEAR_KEYS)
    return {name for name in space if not is_linear(params) or name in live}


def is_linear(params: Mapping[str, Any]) -> bool:
    """Whether `params` belong to a linear classifier."""
    return bool(params.get("classifier", "network") != "network")


def _suggest(trial: Trial | FixedTrial | FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case IntDistribution(low=low, high=high):
            return trial.suggest_int(name, low, high)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case _:
            raise TypeError(f"{name} has a distribution that no dimension has: {distribution}")


def decode_params(params: Mapping[str, Any], study: Study, facts: BackboneFacts) -> Point:
    """The point given by `params`, which must contain every parameter of the search space."""
    backbone = str(_decoded(params, "backbone", study.model.backbone))
    values: dict[str, Scalar] = {}
    for name in _ORDER:
        dimension = study.search.get(name)
        if is_linear(values) and name not in LINEAR_KEYS:
            continue
        match dimension:
            case None:
                continue
            case PerOptimizer():
                optimizer = str(_decoded(params, "optimizer", study.search["optimizer"]))
                values[name] = dimensions.at(getattr(dimension, optimizer), params[f"{name}_position"])
            case _:
                values[name] = _decoded(params, name, dimension)
    return resolve(values, backbone, study.budget.epochs, facts)


def suggest(trial: Trial | FixedTrial | FrozenTrial, study: Study, facts: BackboneFacts) -> Point:
    """Have `trial` draw every parameter of the search space, and return its point."""
    return decode_params(suggest_params(trial, search_space(study)), study, facts)


def resolve(values: Mapping[str, Scalar], backbone: str, epochs_max: int, facts: BackboneFacts) -> Point:
    """The point with `values` and defaults for other keys, depths in blocks and capped by each other."""
    n_blocks = facts.n_blocks[backbone]
    if is_linear(values):
        values = {name: value for name, value in values.items() if name in LINEAR_KEYS} | _LINEAR_VALUES
    full: dict[str, Any] = {name: values.get(name, rule.default) for name, rule in RULES.items()}
    optimizer = full["optimizer"]
    if full["lr"] is None:
        full["lr"] = facts.plain_lr[backbone][optimizer]
    if full["l2"] is None:
        full["l2"] = DEFAULT_L2[optimizer]
    if full["epochs"] is None:
        full["epochs"] = epochs_max
    if full["resolution"] is None:
        full["resolution"] = facts.resolution[backbone]
    full |= _structure(full, n_blocks)
    used = full["backbone_depth"] or n_blocks
    transfer = min(in_blocks(full["transfer_depth"], n_blocks), used) if facts.transferable else 0
    anchor = transfer if full["anchor_depth"] is None else in_blocks(full["anchor_depth"], n_blocks)
    full["transfer_depth"] = transfer
    full["freeze_depth"] = min(in_blocks(full["freeze_depth"], n_blocks), transfer)
    full["anchor_depth"] = min(anchor, transfer)
    full["norm_depth"] = _kept_norms(full["norm_depth"], full["freeze_depth"], transfer, backbone, facts)
    if not full["norm_depth"]:
        full["norm_affine"] = RULES["norm_affine"].default
    return Point(backbone=backbone, **full)


# Fixed values of keys without effect, so that equal linear classifiers are equal points.
_LINEAR_VALUES: dict[str, Scalar] = {
    "transfer_depth": 1.0,
    "freeze_depth": 1.0,
    "epochs": 1,
    "l2": 0.0,
    "augmentation": 0.0,
}


def _structure(values: Mapping[str, Any], n_blocks: int) -> dict[str, Any]:
    """Values of `STRUCTURE_KEYS`, so that equal networks are equal points.

    All blocks of the backbone are 0 blocks, as in a point. Keys of the neck have their defaults without one,
    and so has the activation if no layer uses it.
    """
    depth = values["backbone_depth"]
    blocks = n_blocks if depth == 0 and isinstance(depth, int) else in_blocks(depth, n_blocks, low=1)
    found: dict[str, Any] = {name: RULES[name].default for name in STRUCTURE_KEYS}
    found["backbone_depth"] = blocks if blocks < n_blocks else 0
    has_neck = blocks < n_blocks and values["neck_layers"] > 0
    if has_neck:
        found |= {name: values[name] for name in NECK_KEYS}
    if has_neck or values["head_layers"]:
        found["activation"] = values["activation"]
    return found


def _kept_norms(
    depth: Scalar, freeze_depth: int, transfer_depth: int, backbone: str, facts: BackboneFacts
) -> int:
    """A norm depth in blocks; 0 if no trained block within it has pretrained batch-norm layers."""
    if not facts.batch_norm[backbone]:
        return 0
    blocks = min(in_blocks(depth, facts.n_blocks[backbone]), transfer_depth)
    return blocks if blocks > freeze_depth else 0


def without_idle_keys(study: Study, facts: BackboneFacts) -> Study:
    """`study` without the keys that have no effect in any of its trials.

    Norm depths are drawn only for networks with batch-norm layers, keys of the neck only if a backbone may be
    shortened, and linear classifiers only with pretrained weights. A study of linear classifiers alone has
    only their keys.
    """
    idle = idle_structure_keys(study, facts)
    if not any(facts.batch_norm[backbone] for backbone in study.model.backbones):
        idle |= set(NORM_KEYS)
    if not facts.transferable:
        idle.add("classifier")
    elif "network" not in classifiers(study):
        idle |= RULES.keys() - set(LINEAR_KEYS)
    if not idle & study.search.keys():
        return study
    search = {name: dimension for name, dimension in study.search.items() if name not in idle}
    return study.model_copy(update={"search": search})


def idle_structure_keys(study: Study, facts: BackboneFacts) -> set[str]:
    """Keys of the neck if no trial shortens the backbone, and the activation if no layer uses it."""
    depths = _ends(study, "backbone_depth", 1.0)
    is_shortened = any(
        in_blocks(depth, n_blocks, low=1) < n_blocks
        for n_blocks in facts.n_blocks.values()
        for depth in depths
    )
    has_neck = is_shortened and any(_ends(study, "neck_layers", 0))
    idle = set[str]() if is_shortened else {"neck_layers"}
    if not has_neck:
        idle |= set(NECK_KEYS) - {"neck_layers"}
    return idle if has_neck or any(_ends(study, "head_layers", 0)) else idle | {"activation"}


def _ends(study: Study, name: str, default: Scalar) -> tuple[Scalar, ...]:
    dimension = study.search.get(name, Fixed(default))
    assert not isinstance(dimension, PerOptimizer), f"{name} has one range"
    return dimensions.bounds(dimension)


def classifiers(study: Study) -> tuple[Scalar, ...]:
    """Values of `classifier` in trials of the study."""
    return _ends(study, "classifier", "network")


def check_depths(study: Study, facts: BackboneFacts) -> None:
    """Check the study's depths against its backbones.

    Raises:
        SpecError: a depth lies beyond the last block; norm_depth is fixed above 0 and no backbone has
            batch-norm; or only linear classifiers are searched, without weights. The message names the
            key and what is allowed.
    """
    if not facts.transferable and "network" not in classifiers(study):
        raise SpecError(
            "search.classifier: a linear classifier needs features of pretrained weights, and model.weights"
            ' is "none"; add "network" to its choices, or name weights'
        )
    norm_depth = study.search.get("norm_depth")
    if isinstance(norm_depth, Fixed) and norm_depth.value and not any(facts.batch_norm.values()):
        raise SpecError(
            f"search.norm_depth = {norm_depth.value}: {', '.join(study.model.backbones)} has no batch-norm"
            " layers that could keep their statistics; leave the key out"
        )
    for name, dimension in study.search.items():
        if not isinstance(RULES[name], Depth) or isinstance(dimension, PerOptimizer):
            continue
        for value in dimensions.bounds(dimension):
            for backbone in study.model.backbones:
                if isinstance(value, int) and value > facts.n_blocks[backbone]:
                    raise SpecError(
                        f"search.{name}: {value} is beyond the last block of {backbone}, which has"
                        f" {facts.n_blocks[backbone]} (see: tlopt blocks {backbone})"
                    )


def _distribution(name: str, dimension: Dimension | PerOptimizer) -> dict[str, BaseDistribution]:
    """The distribution of the parameter `name`; none for a fixed key."""
    match dimension:
        case Fixed():
            return {}
        case Int(low, high):
            return {name: IntDistribution(low, high)}
        case Uniform(low, high):
            return {name: FloatDistribution(low, high)}
        case Log(_, high):
            return {name: FloatDistribution(dimension.drawn_low, high, log=True)}
        case Choice(options):
            return {name: CategoricalDistribution(options)}
        case PerOptimizer():
            raise TypeError(f"{name} depends on the optimizer and has a position, not a draw")
        case _:
            assert_never(dimension)


def _decoded(params: Mapping[str, Any], name: str, dimension: Dimension | PerOptimizer) -> Scalar:
    match dimension:
        case Fixed(value):
            return value
        case Log():
            return dimension.decode(params[name])
        case PerOptimizer():
            raise TypeError(f"{name} depends on the optimizer and has a position, not a draw")
        case _:
            drawn: Scalar = params[name]
            return drawn


def encode_point(point: Point, study: Study, facts: BackboneFacts) -> dict[str, Any] | None:
    """The parameters with which `suggest` returns `point`, or None if the space does not contain it.

    Optuna accepts enqueued values outside their range silently, so points are checked here first.
    """
    params: dict[str, Any] = {}
    for name, dimension in (("backbone", study.model.backbone), *study.search.items()):
        if point.is_linear and name not in ("backbone", *LINEAR_KEYS):
            continue
        value: Scalar | None
        if isinstance(dimension, PerOptimizer):
            position = _position(getattr(dimension, point.optimizer), getattr(point, name))
            name, value = f"{name}_position", position
        else:
            value = fitting_value(name, point, dimension, facts)
        if value is None or not (
            isinstance(dimension, PerOptimizer) or dimensions.contains(dimension, value)
        ):
            return None
        if not isinstance(dimension, Fixed):
            params[name] = dimension.encode(float(value)) if isinstance(dimension, Log) else value
    return params if decode_params(params, study, facts) == point else None


def _position(dimension: Fixed | Uniform | Log, value: float) -> float | None:
    return dimensions.position(dimension, value) if dimensions.contains(dimension, value) else None


def fitting_value(name: str, point: Point, dimension: Dimension, facts: BackboneFacts) -> Scalar | None:
    """A value of `dimension` with the same effect as the point's, or None if there is none."""
    if name in NORM_KEYS:
        return _norm_value(name, point, dimension, facts)
    if isinstance(RULES.get(name), Depth):
        return _depth_value(name, point, dimension, facts.n_blocks[point.backbone])
    own: Scalar = getattr(point, name)
    if dimensions.contains(dimension, own):
        return own
    return dimensions.bounds(dimension)[0] if name in _idle_keys(point) else None


def _idle_keys(point: Point) -> set[str]:
    """The structure keys without effect on the point."""
    idle = set() if point.is_shortened else {"neck_layers"}
    if point.neck_layers:
        return idle
    idle |= set(NECK_KEYS) - {"neck_layers"}
    return idle if point.head_layers else idle | {"activation"}


def _norm_value(name: str, point: Point, dimension: Dimension, facts: BackboneFacts) -> Scalar | None:
    """A value of `dimension` with the same effect as the point's, or None; any if none has an effect."""
    if name == "norm_affine":
        wanted = point.norm_affine
        any_will_do = not point.norm_depth and not dimensions.contains(dimension, wanted)
        return dimensions.bounds(dimension)[0] if any_will_do else wanted
    depths = (point.freeze_depth, point.transfer_depth, point.backbone, facts)
    values = (
        _equal_depth(point.norm_depth, dimension, facts.n_blocks[point.backbone]),
        *dimensions.bounds(dimension),
    )
    return next((v for v in values if v is not None and _kept_norms(v, *depths) == point.norm_depth), None)


def _depth_value(name: str, point: Point, dimension: Dimension, n_blocks: int) -> Scalar | None:
    """A depth that comes to the point's, also by the cap of a shortened backbone, or None."""
    used = point.backbone_depth or n_blocks
    blocks = used if name == "backbone_depth" else getattr(point, name)
    if name != "backbone_depth" and blocks == used < n_blocks:
        return next((v for v in dimensions.bounds(dimension) if in_blocks(v, n_blocks) >= used), None)
    return _equal_depth(blocks, dimension, n_blocks, low=1 if name == "backbone_depth" else 0)


def _equal_depth(blocks: int, dimension: Dimension, n_blocks: int, low: int = 0) -> Scalar | None:
    """A value of `dimension` that equals `blocks` in blocks, or None."""
    ends = [value for value in dimensions.bounds(dimension) if not isinstance(value, (str, bool))]
    match dimension:
        case Choice() | Fixed():
            candidates = ends
        case Uniform():  # a range's end may round to a block whose own fraction lies outside
            candidates = [blocks / n_blocks, *ends]
        case _:
            candidates = [blocks]
    fitting = (value for value in candidates if dimensions.contains(dimension, value))
    return next((value for value in fitting if in_blocks(value, n_blocks, low) == blocks), None)
