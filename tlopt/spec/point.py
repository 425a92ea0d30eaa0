"""`Point`: everything that determines a training run, as effective values."""

import hashlib
import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from tlopt.errors import StorageError
from tlopt.spec.search_keys import RULES

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "linear", "constant"]
ClassWeights = Literal["none", "balanced"]
NormAffine = Literal["train", "keep"]
ClassifierKind = Literal["network", "logistic", "svm"]
Convolution = Literal["plain", "separable"]
Activation = Literal["relu", "gelu", "silu", "elu", "tanh"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One decoded point of a search: depths in blocks with freeze <= transfer, "off" as 0.

    Keys with a default were added later; a stored point without them has the default.
    """

    backbone: str
    classifier: ClassifierKind = "network"  # logistic, svm: fitted on features of the frozen network
    resolution: int  # pixels per side of the network's input
    backbone_depth: int = 0  # blocks that are used, in [1, B - 1]; 0 is all B
    neck_layers: int = 0  # in place of the blocks left out; 0 for a whole backbone
    neck_width: int = 256  # channels
    neck_kernel: int = 3  # pixels
    neck_convolution: Convolution = "plain"
    activation: Activation = "relu"  # in the neck and the head
    transfer_depth: int  # blocks, in [0, B], or [0, backbone_depth] if that is not 0
    freeze_depth: int  # blocks, in [0, transfer_depth]
    anchor_depth: int  # blocks, in [0, transfer_depth]
    norm_depth: int = 0  # blocks, in [0, transfer_depth]; 0 if without effect
    norm_affine: NormAffine = "train"  # of the batch-norm layers up to norm_depth
    lr: float  # peak learning rate of head and fresh blocks
    lr_ratio: float
    lr_decay: float
    l2_sp: float
    l2: float
    l2_anchored: float
    optimizer: Optimizer
    momentum: float
    batch_size: int
    epochs: int
    warmup_fraction: float  # of all optimiser steps, in [0, 0.9]
    schedule: Schedule
    label_smoothing: float
    class_weights: ClassWeights
    grad_clip: float  # 0 is off
    augmentation: float  # strength in [0, 1]
    mixup: float  # alpha of the Beta distribution; 0 is off
    head_layers: int
    head_width: int
    head_dropout: float
    head_first_epochs: int
    train_images: int = 0  # 0 is all
    label_noise: float = 0.0  # share of the training images, in [0, 0.9]

    def __post_init__(self) -> None:
        if self.is_shortened and self.transfer_depth > self.backbone_depth:
            raise ValueError(f"{self.transfer_depth=} is not in [0, {self.backbone_depth=}]")
        if not 0 <= self.freeze_depth <= self.transfer_depth:
            raise ValueError(f"{self.freeze_depth=} is not in [0, {self.transfer_depth=}]")
        if not 0 <= self.anchor_depth <= self.transfer_depth:
            raise ValueError(f"{self.anchor_depth=} is not in [0, {self.transfer_depth=}]")
        if not 0 <= self.norm_depth <= self.transfer_depth:
            raise ValueError(f"{self.norm_depth=} is not in [0, {self.transfer_depth=}]")

    @property
    def is_shortened(self) -> bool:
        """Whether blocks of the backbone are left out."""
        return self.backbone_depth > 0

    @property
    def is_linear(self) -> bool:
        """Whether the head is a linear classifier fitted in one step on features of the frozen network."""
        return self.classifier != "network"

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, as stored; keys added later are left out if they have their default.

        This keeps the digests of earlier points, and lets earlier versions read the points they can train.
        """
        later = _later()
        return {name: value for name, value in asdict(self).items() if (name, value) not in later.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The point that `as_dict` wrote.

        Raises:
            ValueError: a key is missing or unknown.
        """
        names, given = {field.name for field in fields(cls)}, set(completed(values))
        if given != names:
            raise ValueError(
                f"a point has exactly the keys {sorted(names)};"
                f" missing {sorted(names - given)}, unknown {sorted(given - names)}"
            )
        return cls(**values)

    @classmethod
    def stored(cls, values: dict[str, Any] | None, owner: str) -> Self:
        """The point stored in a database or an export for `owner`, such as "trial 12 of flowers".

        Raises:
            StorageError: it is damaged or was written by another version; the message names `owner` and the
                keys, and says what to do.
        """
        names = {field.name for field in fields(cls)}
        given = set(completed(values or {}))
        unknown, missing = sorted(given - names), sorted(names - given)
        if unknown:
            raise StorageError(
                f"{owner}: its point has {_keys(unknown)} that this tlopt does not know, so a later version"
                " wrote it; install that version (pip install --upgrade tlopt) and try again"
            )
        if missing:
            raise StorageError(
                f"{owner}: its point lacks {_keys(missing)}; an earlier tlopt or something else wrote it;"
                " read it with what wrote it"
            )
        if damaged := [flaw for key, value in (values or {}).items() if (flaw := _flaw(key, value))]:
            raise StorageError(
                f"{owner}: its point is damaged ({', '.join(damaged)}): something other than tlopt wrote it;"
                " restore it from a backup"
            )
        try:
            return cls.from_dict(values or {})
        except ValueError as error:
            raise StorageError(f"{owner}: its point is not one: {error}") from error


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a stored point, completed with the defaults of keys added later."""
    return _later() | values


def _later() -> dict[str, Any]:
    return {field.name: field.default for field in fields(Point) if field.default is not MISSING}


def _flaw(key: str, value: Any) -> str:
    """As in "head_dropout = 5 is not a number from 0 to 0.95"; "" for a value that a search can have."""
    if not _has_kind(key, value):
        return f"{key} = {value!r}"
    is_default = (
        key in _later() and value == _later()[key]
    )  # all blocks are 0 in a point, not in a study file
    if key in RULES and RULES[key].refuse(value) and not is_default:
        return f"{key} = {value!r} is not {RULES[key].allowed}"
    return ""


def _has_kind(key: str, value: Any) -> bool:
    """Whether `value` has the key's type: a string, an integer >= 0, or a finite number >= 0."""
    kind = next(field.type for field in fields(Point) if field.name == key)
    if words := get_args(kind):
        return value in words
    if kind is str:
        return isinstance(value, str)
    if kind is float and type(value) is float:
        return 0 <= value < math.inf
    return type(value) is int and value >= 0


def _keys(names: list[str]) -> str:
    return f"the key{'s' if len(names) > 1 else ''} {', '.join(names)}"


def seed_for(*parts: int | str) -> int:
    """A seed in [0, 2**63) derived from `parts` only, equal on all machines."""
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
