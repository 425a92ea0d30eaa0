"""The text of a proposed study file, with a comment on every line."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlopt.propose.budget import SEEDS, Size
from tlopt.propose.dataset import ImageSummary
from tlopt.spec.dimensions import Scalar
from tlopt.spec.search_keys import CLASSIFIERS, DEFAULT_L2, PROBE_LR
from tlopt.spec.text import literal
from tlopt.system.words import counted

VIEWS = 8  # the number of epochs of a short trial; cost in longer ones: benchmarks/defaults/README.md
STRENGTHS = (0.2, 0.7)
MANY_IMAGES = 5000  # training images that suffice to train fresh lower blocks
# Steps of a trial, and the batch sizes that may give them. With the statistics of the batch, 24 instead of 48
# steps cost 4.8 ± 2.0 points of accuracy; 96 gained 1.1 ± 2.1, with kept ones 1.1 ± 1.1, for 12 to 17 % more
# time. Searching the batch size gained nothing (benchmarks/recipes/README.md).
STEPS_MIN = 96
BATCH_SIZES = (32, 16, 8)
LINEAR_IMAGES_MAX = 1000  # training images up to which a linear classifier on frozen features is often best
_COMMENT_COLUMN = 44
_NORMS = "blocks whose batch-norm keeps its pretrained statistics"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Everything that determines the text of a study file."""

    name: str
    source: str
    backbone: str
    weights_available: bool
    resolution_expected: int  # pixels per side that the weights expect
    n_blocks: int
    batch_norm: bool  # whether the backbone has batch-norm layers
    plain_lr: float  # learning rate of plain fine-tuning with adamw
    summary: ImageSummary
    data: Mapping[str, Scalar]  # requested keys of [data]
    size: Size
    n_train: int  # training images per trial
    batch_size: int
    estimate: str  # a sentence without a full stop


def n_linear(summary: ImageSummary) -> int:
    """Number of linear classifiers that the proposed ranges have."""
    weightings = 2 if summary.imbalanced else 1
    return (len(CLASSIFIERS) - 1) * weightings if summary.counts.train < LINEAR_IMAGES_MAX else 0


def batch_size(n_train: int, epochs: int) -> int:
    """Training images per optimiser step: the most with which a trial takes `STEPS_MIN` steps, at least 8."""
    enough = (size for size in BATCH_SIZES if n_steps(n_train, epochs, size) >= STEPS_MIN)
    return next(enough, BATCH_SIZES[-1])


def n_steps(n_train: int, epochs: int, batch_size: int) -> int:
    """Optimiser steps of a trial."""
    return epochs * math.ceil(n_train / batch_size)


def lr_range(plain_lr: float) -> tuple[float, float]:
    """Range of learning rates around that of plain fine-tuning; includes the linear probe's."""
    return _round(plain_lr / 10), _round(max(plain_lr * 20, 2 * PROBE_LR["adamw"]))


def l2_sp_range(choices: Choices) -> tuple[float, float]:
    """Range of L2-SP strengths, from almost no effect to almost fixed weights.

    A decoupled pull λ shrinks a displacement by exp(-Σ lr·λ) over a trial, and the rates of a cosine schedule
    with warm-up sum to half of peak · steps. The upper end has 5 in the exponent at the usual rate, but at
    most lr·λ = 1 at the highest rate, so that a step never passes the anchor.
    """
    steps = n_steps(choices.n_train, choices.size.epochs, choices.batch_size)
    felt = 5 / (choices.plain_lr * steps / 2)
    high = min(felt, 1 / lr_range(choices.plain_lr)[1])
    return _round(high / 100), _round(high)


def write_study(choices: Choices) -> str:
    """The text of the whole file."""
    parts = (_head(choices), _data(choices), _model(choices), _budget(choices), _search(choices))
    return "\n\n".join("\n".join(part) for part in (*parts, _end(choices))) + "\n"


def _head(c: Choices) -> list[str]:
    if c.summary.imbalanced:
        objective = _line("objective", "balanced_accuracy", "mean over classes: they are of unequal size")
    else:
        objective = _line("objective", "accuracy", "or balanced_accuracy, macro_f1, log_loss; on validation")
    return [
        "# Next: tlopt check FILE, then tlopt run FILE.",
        *textwrap.wrap(f"Expected: {c.estimate}.", 100, initial_indent="# ", subsequent_indent="# "),
        "",
        _line("name", c.name, "name of the study, also in the database"),
        _line("seed", 0, "seed of all random draws"),
        objective,
    ]


def _data(c: Choices) -> list[str]:
    mirror = "a mirrored sign is another sign" if c.summary.are_signs else "false where left and right matter"
    keys: dict[str, tuple[Scalar, str]] = {
        "source": (c.source, ""),
        "val_fraction": (0.2, "share used for validation, if the source has no val split"),
        "test_fraction": (0.2, "share held out for the test, if the source has no test split"),
    }
    if not c.summary.own_val and not {"folds", "fold_column"} & c.data.keys():
        keys["repeats"] = (c.size.repeats, "train/val splits per trial; each is one training run")
        if c.size.repeats < c.summary.repeats:
            keys["confirm_splits"] = (SEEDS, "other splits, one for each seed of the confirmation")
    if c.size.images_max:
        keys["images_max"] = (c.size.images_max, "number of images to use; 0: all, which takes longer")
    if c.summary.skipped:
        keys["unreadable"] = ("skip", f"leaves out {counted(len(c.summary.skipped), 'file')}; or error")
    keys["flip"] = (not c.summary.are_signs, f"mirror half of the images; {mirror}")
    keys["views"] = (VIEWS, "fixed views per image, used in turn; 0: new ones, slower")
    keys |= {key: (value, keys.get(key, ("", ""))[1]) for key, value in c.data.items()}
    return ["[data]", *(_line(key, value, comment) for key, (value, comment) in keys.items())]


def _model(c: Choices) -> list[str]:
    note = (
        "or a .pth or .safetensors file"
        if c.weights_available
        else "NOT AVAILABLE HERE: write the path of a file"
    )
    return [
        "[model]",
        _line("backbone", c.backbone, f"{c.n_blocks} blocks; tlopt blocks {c.backbone} lists them"),
        _line("weights", "default", note),
        _line("precision", "auto", "float32 or bfloat16: the faster, measured once for all workers"),
        _line("layout", "auto", "channels_first or channels_last, likewise"),
    ]


def _budget(c: Choices) -> list[str]:
    return [
        "[budget]",
        _line("trials", c.size.trials, "number of trials, complete or pruned, over all workers"),
        _line("epochs", c.size.epochs, "largest number of epochs per trial"),
        _note("hours = 1.0", "no trial starts later than this after the study began"),
    ]


def _search(c: Choices) -> list[str]:
    n = c.n_blocks
    many = c.n_train > MANY_IMAGES
    lowest = 0 if many else n // 2
    why = "0: from scratch" if many else "the others are fresh"
    linear = c.n_train < LINEAR_IMAGES_MAX
    lines = [
        _commented("[search]", "a plain value is fixed, a table is searched"),
        _line(
            "resolution", c.size.resolution, f"pixels per side; the weights expect {c.resolution_expected}"
        ),
        *([_choice("classifier", CLASSIFIERS, "or a linear one on frozen features")] if linear else []),
        _range("transfer_depth", "int", lowest, n, f"blocks that start pretrained; {why}"),
        _range("freeze_depth", "int", 0, n, f"blocks that are not trained; {n}: a linear probe"),
        *([_range("norm_depth", "int", 0, n, _NORMS)] if c.batch_norm else []),
        _range("lr", "log", *lr_range(c.plain_lr), "peak rate of the head and of fresh blocks"),
        _range("lr_ratio", "log", 0.03, 1.0, "rate of pretrained blocks, relative to lr"),
        _range("l2_sp", "log", *l2_sp_range(c), "pull toward the pretrained weights, or none", zero=True),
        _choice("augmentation", STRENGTHS, "strength of random crops and colours"),
    ]
    if c.summary.imbalanced:
        lines.append(
            _choice("class_weights", ["none", "balanced"], "each image or each class counts the same")
        )
    return [
        *lines,
        _line("optimizer", "adamw", "or sgd, with ten times the lr and ranges of its own"),
        _line("batch_size", c.batch_size, f"training images per step: {_steps_words(c)}"),
        _note(f"l2 = {DEFAULT_L2['adamw']}", "pull of the head and of fresh blocks toward zero"),
        _note("label_smoothing = 0.0", "share of a label spread over all classes"),
        _note("mixup = 0.0", "alpha of mixup; 0: off"),
        _note("lr_decay = 1.0", "factor on the rate for each block toward the input"),
        _note('schedule = "cosine"', "or linear, constant; after a warm-up"),
    ]


def _steps_words(c: Choices) -> str:
    """The steps of a trial, and why they are so few images each where that is the reason."""
    steps = n_steps(c.n_train, c.size.epochs, c.batch_size)
    few = ", with larger batches too few" if c.batch_size < BATCH_SIZES[0] else ""
    return f"{counted(steps, 'step')} per trial{few}"


def _end(c: Choices) -> list[str]:
    return [
        "[pruner]",
        *_pruner(c.size.epochs),
        "",
        "[confirm]",
        _line(
            "points",
            c.size.points,
            "best points to train again, beside the defaults; half are dropped early",
        ),
        _line("seeds", SEEDS, "runs of each remaining point, at least 3; they show the spread"),
    ]


def _pruner(epochs: int) -> list[str]:
    min_epochs = max(2, epochs // 2)
    if min_epochs >= epochs:
        return [_line("kind", "none", f"trials of {counted(epochs, 'epoch')} are too short to stop any")]
    return [
        _line("kind", "median", "stops trials that are worse than the median of finished ones"),
        _line("min_epochs", min_epochs, "no trial is stopped before"),
    ]


def _line(key: str, value: Scalar, comment: str = "") -> str:
    return _commented(f"{key} = {literal(value)}", comment)


def _range(key: str, kind: str, low: float, high: float, comment: str, *, zero: bool = False) -> str:
    off = ", zero = true" if zero else ""
    return _commented(f"{key} = {{ {kind} = [{low!r}, {high!r}]{off} }}", comment)


def _choice(key: str, options: Sequence[str | float], comment: str) -> str:
    return _commented(f"{key} = {{ choice = {literal(list(options))} }}", comment)


def _note(text: str, comment: str) -> str:
    """A commented-out line that shows a key with its default."""
    return _commented(f"# {text}", comment)


def _commented(text: str, comment: str) -> str:
    return f"{text:<{_COMMENT_COLUMN - 2}}  # {comment}" if comment else text


def _round(value: float) -> float:
    """`value` rounded to one significant digit."""
    return float(f"{value:.1g}")
