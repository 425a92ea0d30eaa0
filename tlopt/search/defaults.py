"""Initial points of a search: the defaults of a practitioner, and a partly frozen network."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, assert_never

from tlopt.model.facts import BackboneFacts
from tlopt.search.space import Params, classifiers, decode_params, encode_point, resolve
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.default_names import KEPT_LABEL, LINEAR_LABEL, PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Scalar, Uniform
from tlopt.spec.point import Point
from tlopt.spec.search_keys import DEFAULT_L2, PROBE_LR, RULES, Depth, in_blocks

FROZEN_SHARE = 0.8  # share of the blocks: "Initial points" in benchmarks/defaults/README.md
# lr_ratio of fine-tuning with kept statistics, by optimiser: benchmarks/recipes/README.md
KEPT_STATISTICS_RATIO = {"sgd": 0.1, "adamw": 0.3}


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
    contains it; and fine-tuning with kept statistics if the network has batch-norm, at the rates that did
    best in benchmarks/recipes/README.md. None has a penalty on pretrained weights: `l2` applies to the head
    alone. Without pretrained weights there is training from scratch only.

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
        named[KEPT_LABEL] = {**plain, "norm_depth": 1.0, "lr_ratio": KEPT_STATISTICS_RATIO[optimizer]}
    return tuple(_default(label, values, backbone, study, facts) for label, values in named.items())


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


def partly_frozen(study: Study, facts: BackboneFacts) -> Params | None:
    """Parameters of a partly frozen network: lower blocks pretrained and frozen, upper blocks fresh.

    It beat both defaults on small data sets (benchmarks/README.md) and trains quickly. Other keys have the
    values of plain fine-tuning, or the nearest allowed ones. None if a depth is not searched, or if there are
    no pretrained weights.
    """
    depths = [study.search.get(name, Fixed(0)) for name in ("transfer_depth", "freeze_depth")]
    if not facts.transferable or any(isinstance(depth, Fixed) for depth in depths):
        return None
    shares = {name: FROZEN_SHARE for name, rule in RULES.items() if isinstance(rule, Depth)}
    return _start(shares | {"norm_depth": 0.0}, {}, study, facts)


def kept_statistics(study: Study, facts: BackboneFacts) -> Params | None:
    """Parameters of fine-tuning with pretrained batch-norm statistics in the whole network.

    Pretrained blocks train at `KEPT_STATISTICS_RATIO` of plain fine-tuning's rate: at the full rate such
    networks diverge on some data sets. Other keys have the values of plain fine-tuning, or the nearest
    allowed ones, so that this is the default with kept statistics if the space contains that one. None if
    the space does not keep statistics, or there are none to keep.
    """
    usual = _usual(study, facts)
    wanted = KEPT_STATISTICS_RATIO[usual["optimizer"]]
    ratio = nearest(wanted, study.search.get("lr_ratio", Fixed(1.0)))
    rate = usual["lr"] * min(1.0, wanted / max(float(ratio), 1e-9))
    shares = {"transfer_depth": 1.0, "freeze_depth": 0.0, "anchor_depth": 1.0, "norm_depth": 1.0}
    start = _start(shares, {"lr": rate, "lr_ratio": ratio}, study, facts)
    return start if start is not None and decode_params(start, study, facts).norm_depth else None


def _start(
    shares: Mapping[str, float], wanted: Mapping[str, Scalar], study: Study, facts: BackboneFacts
) -> Params | None:
    """Parameters of the point nearest to depths of `shares` of the blocks and the `wanted` other values."""
    backbone, usual = study.model.backbones[0], _usual(study, facts) | dict(wanted)
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
        *("l2_anchored", "head_layers", "head_first_epochs", "head_dropout"),
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
