"""The keys of `[search]`: one row each, with the allowed values, the default and the meaning.

The table is the only source of these facts: study files are checked against it, docs/study_file.md is
generated from it, and `search/space.py` reads defaults from it.
"""

from dataclasses import dataclass
from typing import assert_never

from tlopt.spec.dimensions import (
    LOG_LOW_MIN,
    Choice,
    Dimension,
    Fixed,
    Int,
    Log,
    Scalar,
    Uniform,
    as_toml,
    bounds,
)

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "linear", "constant")
CLASS_WEIGHTS = ("none", "balanced")
NORM_AFFINE = ("train", "keep")
CLASSIFIERS = ("network", "logistic", "svm")
CONVOLUTIONS = ("plain", "separable")
# All map 0 to 0, so that channels of hidden layers can be pruned; a sigmoid does not.
ACTIVATIONS = ("relu", "gelu", "silu", "elu", "tanh")

_BLOCKS_MAX = 1_000_000  # more than any network has; means all blocks


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A depth: whole numbers count blocks from the input; real numbers in [0, 1] are fractions of all."""

    default: int | float | None
    meaning: str
    per_optimizer: bool = False
    low: int = 0  # blocks

    @property
    def allowed(self) -> str:
        return f"a whole number of blocks from {self.low}, or a fraction from 0.0 to 1.0"

    def refuse(self, value: Scalar) -> bool:
        if isinstance(value, (bool, str)):
            return True
        low, high = (0, 1) if isinstance(value, float) else (self.low, _BLOCKS_MAX)
        return not low <= value <= high


@dataclass(frozen=True, kw_only=True)
class Number:
    """A whole or real number within bounds, both included."""

    whole: bool
    low: float
    high: float
    default: int | float | None
    meaning: str
    per_optimizer: bool = False
    least: float = LOG_LOW_MIN  # smallest value above 0, if 0 is allowed
    odd: bool = False  # whether even numbers are refused

    @property
    def allowed(self) -> str:
        kind = "an odd number" if self.odd else "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def refuse(self, value: Scalar) -> bool:
        if isinstance(value, (bool, str)) or (self.whole and not isinstance(value, int)):
            return True
        return not self.low <= value <= self.high or (self.odd and value % 2 == 0)


@dataclass(frozen=True, kw_only=True)
class Word:
    """One of a fixed set of names."""

    words: tuple[str, ...]
    default: str
    meaning: str
    per_optimizer: bool = False

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def refuse(self, value: Scalar) -> bool:
        return value not in self.words


Rule = Depth | Number | Word

RULES: dict[str, Rule] = {
    "transfer_depth": Depth(
        default=1.0, meaning="blocks that start from pretrained weights; the others are fresh"
    ),
    "freeze_depth": Depth(
        default=0, meaning="blocks that are never trained (at most transfer_depth of them)"
    ),
    "anchor_depth": Depth(
        default=None,
        meaning="transferred blocks up to this depth are anchored: pulled toward their pretrained"
        " weights, the others toward zero; default: all transferred blocks",
    ),
    "norm_depth": Depth(
        default=0,
        meaning="batch-norm layers of trained blocks up to this depth keep their pretrained statistics"
        " (at most transfer_depth)",
    ),
    "norm_affine": Word(
        words=NORM_AFFINE,
        default="train",
        meaning="whether weights and biases of the batch-norm layers up to norm_depth are trained or"
        " keep their pretrained values",
    ),
    "lr": Number(
        whole=False,
        low=1e-8,
        high=100,
        default=None,
        per_optimizer=True,
        meaning="peak learning rate of the head and of fresh blocks; default 0.01 (sgd), 0.001 (adamw), and a"
        " tenth of them for networks without batch-norm",
    ),
    "lr_ratio": Number(
        whole=False,
        low=0,
        high=10,
        default=1.0,
        meaning="learning rate of the last transferred block, relative to lr",
    ),
    "lr_decay": Number(
        whole=False,
        low=0,
        high=1,
        default=1.0,
        meaning="factor on the learning rate for each block toward the input",
    ),
    "l2_sp": Number(
        whole=False,
        low=0,
        high=1e4,
        default=0.0,
        per_optimizer=True,
        meaning="strength of the pull of anchored weights toward their pretrained values",
    ),
    "l2": Number(
        whole=False,
        low=0,
        high=1e4,
        default=None,
        per_optimizer=True,
        meaning="strength of the pull of the other weights toward zero; default 0.0005 (sgd), 0.02 (adamw)",
    ),
    "l2_anchored": Number(
        whole=False,
        low=0,
        high=1e4,
        default=0.0,
        per_optimizer=True,
        meaning="strength of an additional pull of anchored weights toward zero",
    ),
    "optimizer": Word(words=OPTIMIZERS, default="adamw", meaning="sgd has Nesterov momentum"),
    "momentum": Number(
        whole=False, low=0, high=0.999, default=0.9, meaning="momentum of sgd, beta1 of adamw"
    ),
    "batch_size": Number(
        whole=True, low=2, high=65536, default=32, meaning="training images per optimiser step"
    ),
    "epochs": Number(
        whole=True, low=1, high=100000, default=None, meaning="epochs of a trial; default: budget.epochs"
    ),
    "warmup_fraction": Number(
        whole=False,
        low=0,
        high=0.9,
        default=0.1,
        meaning="share of all steps in which the learning rate rises from 0 to its peak",
    ),
    "schedule": Word(
        words=SCHEDULES, default="cosine", meaning="course of the learning rate after the warm-up"
    ),
    "label_smoothing": Number(
        whole=False,
        low=0,
        high=0.9,
        default=0.0,
        meaning="share of each label that is spread over all classes",
    ),
    "class_weights": Word(
        words=CLASS_WEIGHTS, default="none", meaning="balanced: every class weighs the same in the loss"
    ),
    "grad_clip": Number(
        whole=False,
        low=0,
        high=1e6,
        default=0.0,
        least=1e-6,
        meaning="norm to which a larger gradient is scaled down; 0: no clipping",
    ),
    "augmentation": Number(
        whole=False,
        low=0,
        high=1,
        default=0.5,
        meaning="strength of random crops and colour changes; 0: none",
    ),
    "mixup": Number(
        whole=False, low=0, high=10, default=0.0, meaning="alpha of mixup's Beta distribution; 0: no mixup"
    ),
    "backbone_depth": Depth(
        default=1.0,
        low=1,
        meaning="blocks of the backbone that are used, at least one; those above are left out, and the neck"
        " is in their place. Other depths are at most this one; fractions are of the whole backbone",
    ),
    "neck_layers": Number(
        whole=True,
        low=0,
        high=4,
        default=0,
        meaning="new convolution layers with batch-norm and activation between a shortened backbone and the"
        " head; 0: the head is on the output of block backbone_depth, averaged over positions",
    ),
    "neck_width": Number(
        whole=True, low=2, high=65536, default=256, meaning="channels per layer of the neck"
    ),
    "neck_kernel": Number(
        whole=True, odd=True, low=1, high=7, default=3, meaning="side of the neck's kernels in pixels"
    ),
    "neck_convolution": Word(
        words=CONVOLUTIONS,
        default="plain",
        meaning="separable: each layer of the neck is a depthwise convolution and a 1×1 convolution",
    ),
    "activation": Word(
        words=ACTIVATIONS,
        default="relu",
        meaning="activation in the neck and of the head's hidden layers",
    ),
    "head_layers": Number(whole=True, low=0, high=4, default=0, meaning="hidden layers in the head"),
    "head_width": Number(whole=True, low=2, high=65536, default=256, meaning="units per hidden layer"),
    "head_dropout": Number(
        whole=False, low=0, high=0.95, default=0.0, meaning="dropout before each layer of the head"
    ),
    "head_first_epochs": Number(
        whole=True,
        low=0,
        high=100000,
        default=0,
        meaning="epochs at the start in which only the head is trained (LP-FT); they are part of epochs",
    ),
    "resolution": Number(
        whole=True,
        low=8,
        high=2048,
        default=None,
        meaning="side of the images in pixels; default: the side that the weights expect",
    ),
    "train_images": Number(
        whole=True,
        low=0,
        high=1_000_000_000,
        default=0,
        meaning="number of images to train on, of those for training, in proportion to the classes; drawn by"
        " the seed, and fewer are always among more; 0: all",
    ),
    "label_noise": Number(
        whole=False,
        low=0,
        high=0.9,
        default=0.0,
        least=1e-6,
        meaning="share of the training images that get another class, drawn by the seed; validation and test"
        " keep theirs. For experiments only",
    ),
    "classifier": Word(
        words=CLASSIFIERS,
        default="network",
        meaning="network: trained epoch by epoch; logistic, svm: all blocks are frozen, and logistic"
        " regression or a linear SVM is fitted on their features, with C chosen by"
        " cross-validation; of the other keys, only class_weights, resolution, train_images and"
        " label_noise then have an effect",
    ),
}

# The keys that affect a linear classifier.
LINEAR_KEYS = ("classifier", "class_weights", "resolution", "train_images", "label_noise")
NORM_KEYS = ("norm_depth", "norm_affine")  # no effect on networks without batch-norm
NECK_KEYS = ("neck_layers", "neck_width", "neck_kernel", "neck_convolution")  # none on whole backbones
STRUCTURE_KEYS = ("backbone_depth", *NECK_KEYS, "activation")
DEFAULT_L2 = {"sgd": 5e-4, "adamw": 0.02}
PROBE_LR = {"sgd": 0.1, "adamw": 0.01}  # a head alone tolerates ten times the rate of a network


def checked(name: str, dimension: Dimension) -> Dimension:
    """`dimension`, if the key `name` allows all its values; integers become floats for keys of real numbers.

    Raises:
        ValueError: a value is not allowed; the message says which, and what is allowed.
    """
    rule = RULES[name]
    for value in bounds(dimension):
        if rule.refuse(value):
            raise ValueError(f"{as_toml(value)} is not allowed: {rule.allowed}")
        least = rule.least if isinstance(rule, Number) else LOG_LOW_MIN
        if isinstance(value, float) and 0 < value < least:
            raise ValueError(f"{as_toml(value)} is not allowed: 0, or {least:g} and more")
    match rule:
        case Depth():
            kinds = {isinstance(value, float) for value in bounds(dimension)}
            if len(kinds) > 1:
                raise ValueError("mixes whole numbers (blocks) and fractions; use one kind")
            if isinstance(dimension, Log):
                raise ValueError("a depth is searched with int, uniform or choice, not log")
        case Number(odd=True):
            if not isinstance(dimension, (Fixed, Choice)):
                raise ValueError("an odd number is fixed or searched with choice")
        case Number(whole=True):
            if isinstance(dimension, (Uniform, Log)):
                raise ValueError("a whole number is searched with int or choice")
        case Number():
            if isinstance(dimension, Int):
                raise ValueError("a real number is searched with uniform, log or choice")
            return _real(dimension)
        case Word():
            if not isinstance(dimension, (Fixed, Choice)):
                raise ValueError("a name is fixed or searched with choice")
        case _:
            assert_never(rule)
    return dimension


def _real(dimension: Dimension) -> Dimension:
    match dimension:
        case Fixed(value):
            return Fixed(float(value))
        case Choice(options):
            return Choice(tuple(float(option) for option in options))
        case _:
            return dimension


def in_blocks(depth: Scalar, n_blocks: int, low: int = 0) -> int:
    """A depth in blocks: fractions are rounded, and the result lies in [`low`, `n_blocks`]."""
    blocks = round(depth * n_blocks) if isinstance(depth, float) else int(depth)
    return max(low, min(blocks, n_blocks))
