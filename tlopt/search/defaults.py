"""The defaults of a practitioner, linear classifiers, and other points that a search starts from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, assert_never

from tlopt.model.facts import BackboneFacts
from tlopt.search.portfolio import (
    KEPT_RATE,
    KEPT_STATISTICS,
    PARTLY_FROZEN,
    STARTS,
    TRIALS_PER_START,
    Start,
)
from tlopt.search.space import Params, classifiers, decode_params, encode_point, resolve
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.default_names import (
    KEPT_LABEL,
    LINEAR_LABEL,
    PARTLY_LABEL,
    PLAIN_LABEL,
    PROBE_LABEL,
    SCRATCH_LABEL,
)
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Scalar, Uniform
from tlopt.spec.point import Point
from tlopt.spec.search_keys import DEFAULT_L2, PROBE_LR, RULES, STRUCTURE_KEYS, Depth, in_blocks

LINEAR_MAX = 8  # linear classifiers among the initial points; each costs about one epoch


@dataclass(frozen=True)
class Default:
    """A point that a practitioner would use without a search; `params` is None if it is outside the space."""

    label: str
    point: Point
    params: Params | None

    @property
    def is_trained(self) -> bool:
        """Whether the whole network is trained, and not only a classifier on its features."""
        return self.point.freeze_depth == 0


def defaults(
    study: Study, facts: BackboneFacts, labels: Collection[str] | None = None
) -> tuple[Default, ...]:
    """The points that a search is compared with, with the study's fixed values for other keys.

    They are the linear probe and plain fine-tuning; logistic regression on frozen features if the space
    contains it; fine-tuning with kept statistics if the network has batch-norm, at the rates that did best in
    benchmarks/recipes/README.md; and the network whose lower four fifths are frozen and whose upper fifth is
    fresh, which did best in benchmarks/proof/README.md. None has a penalty on pretrained weights: `l2` is for
    the head alone. Without pretrained weights there is training from scratch only.

    Args:
        labels: of a study that has begun, see `begun_labels`; others are left out. None: of a new study.
    """
    found = _defaults(study, facts)
    return found if labels is None else tuple(default for default in found if default.label in labels)


def begun_labels(study: Study, stored: Sequence[Mapping[str, str]] | None) -> tuple[str, ...]:
    """The labels of the defaults of a study that has begun.

    Args:
        stored: `tlopt:defaults`; None: of version 0.2 or earlier, whose studies end with the defaults they
            began with.
    """
    if stored is not None:
        return tuple(row["label"] for row in stored)
    if study.model.weights == "none":
        return (SCRATCH_LABEL,)
    return (PROBE_LABEL, PLAIN_LABEL, *((LINEAR_LABEL,) if "logistic" in classifiers(study) else ()))


def _defaults(study: Study, facts: BackboneFacts) -> tuple[Default, ...]:
    backbone, usual = study.model.backbones[0], _usual(study, facts)
    optimizer = usual["optimizer"]
    common = {
        name: nearest(usual[name], getattr(dimension, optimizer, dimension))
        for name, dimension in study.search.items()
        if name not in _TRANSFER_KEYS
    }
    plain = {**common, "optimizer": optimizer, "lr": usual["lr"]}
    if not facts.transferable:
        return (_default(SCRATCH_LABEL, plain, backbone, study, facts),)
    named = {
        PROBE_LABEL: {**common, "optimizer": optimizer, "freeze_depth": 1.0, "lr": PROBE_LR[optimizer]},
        PLAIN_LABEL: plain,
    }
    if "logistic" in classifiers(study):
        named[LINEAR_LABEL] = {**common, "classifier": "logistic"}
    if facts.batch_norm[backbone]:
        named[KEPT_LABEL] = {**plain, "norm_depth": 1.0, "lr_ratio": KEPT_RATE[optimizer]}
    named[PARTLY_LABEL] = {
        **plain,
        "transfer_depth": PARTLY_FROZEN.transfer,
        "freeze_depth": PARTLY_FROZEN.freeze,
    }
    return tuple(_default(label, values, backbone, study, facts) for label, values in named.items())


def initial_points(study: Study, facts: BackboneFacts, known: Sequence[Params]) -> list[Params]:
    """Parameters of the points that a search starts from, in order and without repeats.

    First the defaults `known` and linear classifiers, cheapest first, so that a search soon has good points:
    a linear classifier costs about one epoch, and the fewer blocks are trained, the faster the epochs are.
    Of fine-tuning, kept statistics come first, which were ahead on every set of benchmarks/proof/README.md.
    Then fine-tuning with kept statistics, if its default is not among `known`, and `STARTS`, as many as leave
    `TRIALS_PER_START` trials for each.
    """
    linear = [params for params in linear_points(study, facts) if params not in known]
    cheapest_first = sorted([*known, *linear], key=lambda params: _cost_order(params, study, facts))
    n_starts_max = max(0, (study.budget.trials_max - len(known)) // TRIALS_PER_START)
    starts = list[Params]()
    for start in (KEPT_STATISTICS, *STARTS):
        params = start_point(start, study, facts)
        if params is not None and params not in (*known, *starts):
            starts.append(params)
    return [*cheapest_first, *starts[:n_starts_max]]


def _cost_order(params: Params, study: Study, facts: BackboneFacts) -> tuple[bool, int, int]:
    """Smaller for points that cost less; statistics that are kept are not computed."""
    point = decode_params(params, study, facts)
    return not point.is_linear, -point.freeze_depth, -point.norm_depth


def linear_points(study: Study, facts: BackboneFacts) -> list[Params]:
    """Parameters of the linear classifiers in the space, at most `LINEAR_MAX`, logistic regression first.

    There is one for each combination of kind, backbone, class weighting and listed resolution.
    """
    found: list[Params] = []
    usual = _usual(study, facts)
    resolution = study.search.get("resolution", Fixed(0))
    sides = dimensions.bounds(resolution) if isinstance(resolution, Choice) else (None,)
    weightings = dimensions.bounds(study.search.get("class_weights", Fixed("none")))  # type: ignore[arg-type]
    kinds = sorted(str(name) for name in classifiers(study) if name != "network")
    for backbone, weighting, side, kind in product(study.model.backbones, weightings, sides, kinds):
        values: dict[str, Scalar] = {"classifier": kind, "class_weights": weighting}
        values |= {
            name: nearest(usual[name], study.search[name])
            for name in ("train_images", "label_noise")
            if name in study.search
        }
        if isinstance(resolution, (Fixed, Int)) and "resolution" in study.search:
            side = nearest(facts.resolution[backbone], resolution)
        if side:
            values["resolution"] = side
        if facts.transferable:
            params = encode_point(resolve(values, backbone, study.budget.epochs, facts), study, facts)
            found += [] if params is None or params in found else [params]
    return found[:LINEAR_MAX]


def start_point(start: Start, study: Study, facts: BackboneFacts) -> Params | None:
    """Parameters of the point of the space nearest to `start`; other keys have plain fine-tuning's values.

    Pretrained blocks have the start's rate as far as `lr` and `lr_ratio` allow. None if the space cannot
    express it: a depth in which it differs from plain fine-tuning is not searched, no statistics would be
    kept, or there are no pretrained weights.
    """
    fixed = {name for name in RULES if isinstance(study.search.get(name, Fixed(0)), Fixed)}
    if not facts.transferable or {"transfer_depth", "freeze_depth"} & fixed & _own_depths(start):
        return None
    usual = _usual(study, facts)
    shares = {
        "backbone_depth": 1.0,
        "transfer_depth": start.transfer,
        "freeze_depth": start.freeze,
        "anchor_depth": start.transfer,
        "norm_depth": start.norm,
    }
    if start.body_rate is not None:
        body_rate = start.body_rate[usual["optimizer"]]
        ratio = nearest(body_rate, study.search.get("lr_ratio", Fixed(1.0)))
        usual |= {"lr_ratio": ratio, "lr": usual["lr"] * min(1.0, body_rate / max(float(ratio), 1e-9))}
    params = _nearest_params(shares, usual, study, facts)
    if params is None or (start.norm and not decode_params(params, study, facts).norm_depth):
        return None
    return params


def _own_depths(start: Start) -> set[str]:
    """The depths in which `start` differs from plain fine-tuning."""
    own = {"transfer_depth": start.transfer < 1, "freeze_depth": start.freeze > 0}
    return {name for name, differs in own.items() if differs}


def _nearest_params(
    shares: Mapping[str, float], usual: Mapping[str, Any], study: Study, facts: BackboneFacts
) -> Params | None:
    """Parameters of the point nearest to depths of `shares` of the blocks and to the `usual` other values."""
    backbone = study.model.backbones[0]
    values = {
        name: _nearest_depth(shares[name], dimension, facts.n_blocks[backbone])
        if isinstance(RULES[name], Depth)
        else nearest(usual[name], getattr(dimension, usual["optimizer"], dimension))
        for name, dimension in study.search.items()
    }
    return encode_point(resolve(values, backbone, study.budget.epochs, facts), study, facts)


def _usual(study: Study, facts: BackboneFacts) -> dict[str, Any]:
    """Values of plain fine-tuning of the first backbone, with AdamW or the nearest allowed optimizer."""
    backbone = study.model.backbones[0]
    optimizer = str(nearest(RULES["optimizer"].default, study.search.get("optimizer", Fixed("adamw"))))
    return {name: rule.default for name, rule in RULES.items()} | {
        "optimizer": optimizer,
        "lr": facts.plain_lr[backbone][optimizer],
        "l2": DEFAULT_L2[optimizer],
        "epochs": study.budget.epochs,
        "resolution": facts.resolution[backbone],
        "train_images": _most_images(study),
    }


def _most_images(study: Study) -> Scalar:
    """The largest number of training images in the space; 0, which is all, if it may be drawn."""
    dimension = study.search.get("train_images", Fixed(0))
    assert not isinstance(dimension, PerOptimizer), "train_images has one range"
    numbers = dimensions.bounds(dimension)
    return 0 if 0 in numbers else max(map(int, numbers))


_TRANSFER_KEYS = frozenset(
    (
        *("classifier", "transfer_depth", "freeze_depth", "anchor_depth", "norm_depth", "norm_affine"),
        *("lr", "lr_ratio", "lr_decay", "l2_sp"),
        *("l2_anchored", "head_layers", "head_first_epochs", "head_dropout", *STRUCTURE_KEYS),
    )
)


def nearest(usual: Scalar | None, dimension: Dimension | PerOptimizer) -> Scalar:
    """`usual` if `dimension` allows it, else the nearest allowed number or the first allowed string."""
    match dimension:
        case Fixed(value):
            return value
        case Choice(options):
            numbers = [option for option in options if not isinstance(option, str)]
            if isinstance(usual, (int, float)) and numbers:
                return min(numbers, key=lambda option: abs(option - usual))
            return usual if usual is not None and usual in options else options[0]
        case Int(low, high) | Uniform(low, high) | Log(low, high):
            assert isinstance(usual, (int, float)), "a number has a usual value"
            return usual if dimensions.contains(dimension, usual) else min(max(usual, low), high)
        case PerOptimizer():
            raise TypeError("ask for one optimizer's range")
        case _:
            assert_never(dimension)


def _nearest_depth(share: float, dimension: Dimension | PerOptimizer, n_blocks: int) -> int:
    """The allowed number of blocks nearest to `share` of `n_blocks`."""
    assert not isinstance(dimension, PerOptimizer), "depths have no ranges for each optimizer"
    allowed = [in_blocks(value, n_blocks) for value in dimensions.bounds(dimension)]
    blocks = allowed if isinstance(dimension, Choice) else range(min(allowed), max(allowed) + 1)
    return min(blocks, key=lambda n: abs(n - in_blocks(share, n_blocks)))


def _default(
    label: str, values: Mapping[str, Scalar], backbone: str, study: Study, facts: BackboneFacts
) -> Default:
    point = resolve(values, backbone, study.budget.epochs, facts)
    return Default(label, point, encode_point(point, study, facts))
